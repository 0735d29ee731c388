"""What a step draws is a function of its place in the run."""

import pytest
import torch

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.models.adversarial_model import StepRNG
from gpen_plugin.models.gan_prior_model import mix_styles, noise_maps, normal

CPU = torch.device("cpu")


@pytest.fixture
def prior():
    return GPENPrior(16, num_style_feat=8, num_mlp=2, narrow=0.03125)


def numbers(draws: StepRNG, purpose: str, iteration: int, batch: int) -> torch.Tensor:
    return normal((4,), draws.generators(purpose, iteration, batch))


def test_two_ranks_draw_what_one_rank_with_twice_the_batch_draws():
    one = numbers(StepRNG(5, 0, 1, CPU), "generator", 3, 4)
    ranks = [numbers(StepRNG(5, rank, 2, CPU), "generator", 3, 2) for rank in range(2)]
    assert torch.equal(one[0::2], ranks[0])
    assert torch.equal(one[1::2], ranks[1])


def test_seed_iteration_and_purpose_all_count_and_nothing_else():
    draws = StepRNG(5, 0, 1, CPU)
    first = numbers(draws, "generator", 3, 1)
    torch.manual_seed(9)
    assert torch.equal(first, numbers(StepRNG(5, 0, 1, CPU), "generator", 3, 1))
    for other in (
        numbers(StepRNG(6, 0, 1, CPU), "generator", 3, 1),
        numbers(draws, "generator", 4, 1),
        numbers(draws, "discriminator", 3, 1),
    ):
        assert not torch.equal(first, other)


def test_noise_has_one_map_per_resolution(prior):
    maps = noise_maps(prior, StepRNG(0, 0, 1, CPU).generators("generator", 1, 2))
    assert [tuple(noise.shape) for noise in maps] == [(2, 16, side, side) for side in (4, 8, 16)]
    assert not torch.equal(maps[0][0], maps[0][1])
    without = GPENPrior(16, num_style_feat=8, num_mlp=2, narrow=0.03125, noise_mode="none")
    assert noise_maps(without, StepRNG(0, 0, 1, CPU).generators("generator", 1, 2)) == [None] * 3


def test_so_many_styles_are_mixed(prior):
    draws = StepRNG(0, 0, 1, CPU)
    counts = {}
    for share in (0.0, 0.9, 1.0):
        _, places = mix_styles(prior, draws.generators("generator", 1, 400), share)
        assert int(places.min()) >= 1
        assert int(places.max()) <= prior.num_latent
        counts[share] = int((places < prior.num_latent).sum())
    assert counts[0.0] == 0
    assert counts[1.0] == 400
    assert 330 < counts[0.9] < 390


def test_each_sample_is_mixed_at_its_own_place(prior):
    first, second = torch.randn(2, 3, 8).unbind()
    both = prior.to_latents([first, second], inject_index=torch.tensor([1, 3, prior.num_latent]))
    unmixed, others = prior.to_latents(first), prior.to_latents(second)
    for sample, place in enumerate([1, 3, prior.num_latent]):
        assert torch.equal(both[sample, :place], unmixed[sample, :place])
        assert torch.equal(both[sample, place:], others[sample, place:])
