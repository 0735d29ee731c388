import pytest
import torch

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.ops import force_implementation

SMALL = {"num_style_feat": 16, "num_mlp": 2, "channel_multiplier": 1, "narrow": 0.03}


def build(size=32, noise_mode="concat", noisy=True):
    torch.manual_seed(0)
    prior = GPENPrior(size, noise_mode=noise_mode, **SMALL)
    for name, parameter in prior.named_parameters():
        if noisy and name.endswith("noise_weight"):
            parameter.data.fill_(0.5)
    return prior


@pytest.mark.parametrize("noise_mode", ["concat", "add", "none"])
@pytest.mark.parametrize("size", [16, 64])
def test_prior_generates_an_image(size, noise_mode):
    prior = build(size, noise_mode)
    image, latents = prior(torch.randn(2, 16), return_latents=True)
    assert image.shape == (2, 3, size, size)
    assert latents.shape == (2, prior.num_latent, 16)
    assert prior.num_latent == {16: 6, 64: 10}[size]


def test_list_of_one_code_equals_the_code():
    prior, z = build(), torch.randn(2, 16)
    noise = prior.make_noise(2)
    assert torch.equal(prior(z, noise), prior([z], noise))


def test_noise_has_one_map_per_resolution():
    shapes = [tuple(noise.shape) for noise in build(32).make_noise(3)]
    assert shapes == [(3, 15, 4, 4), (3, 15, 8, 8), (3, 15, 16, 16), (3, 15, 32, 32)]


def test_noise_comes_from_the_generator():
    prior = build()
    draw = lambda seed: prior.make_noise(1, torch.Generator().manual_seed(seed))  # noqa: E731
    assert all(torch.equal(a, b) for a, b in zip(draw(1), draw(1), strict=True))
    assert not torch.equal(draw(1)[0], draw(2)[0])


def test_noise_is_fresh_by_default_and_zero_for_none():
    prior, z = build(), torch.randn(1, 16)
    assert not torch.equal(prior(z), prior(z))
    silent = [None] * 4
    zeros = [torch.zeros_like(noise) for noise in prior.make_noise(1)]
    assert torch.equal(prior(z, silent), prior(z, zeros))


def test_map_reaches_only_its_resolution():
    prior, z = build(), torch.randn(1, 16)
    noise = prior.make_noise(1)
    seen = []
    for name, module in prior.named_modules():
        if name.endswith(("conv0", "conv1")):
            module.register_forward_pre_hook(lambda _, inputs, name=name: seen.append((name, inputs[2])))
    prior(z, noise)
    assert len(seen) == 7
    order = ["4", "8", "16", "32"]
    assert all(given is noise[order.index(name.split(".")[1])] for name, given in seen)


def test_each_code_reaches_its_block():
    """The image of a block depends on the codes up to its own one, and on no later one."""
    prior = build(16)
    latents = torch.randn(1, prior.num_latent, 16, requires_grad=True)
    reach = [1, 3, 5]  # the last code that blocks 4, 8 and 16 take
    for rgb, last in zip(prior.synthesize(latents, [None] * 3), reach, strict=True):
        (gradient,) = torch.autograd.grad(rgb.sum(), latents, retain_graph=True)
        moved = [place for place in range(prior.num_latent) if gradient[0, place].abs().sum() > 0]
        # the image before reads code 2k+1, which conv0 of the next block reads too
        assert moved == list(range(last + 1))


def test_style_mixing_switches_at_the_index():
    prior, first, second = build(16), torch.randn(2, 16), torch.randn(2, 16)
    latents = prior.to_latents([first, second], inject_index=2)
    one, other = prior.mapping(first), prior.mapping(second)
    assert all(torch.equal(latents[:, place], one if place < 2 else other) for place in range(6))


def test_style_mixing_samples_an_index_in_range():
    prior, first, second = build(16), torch.zeros(1, 16), torch.ones(1, 16)
    points = {int(prior.to_latents([first, second], input_is_latent=True).sum() / 16) for _ in range(100)}
    assert points == {1, 2, 3, 4, 5}


def test_truncation_pulls_towards_the_mean():
    prior, z = build(), torch.randn(2, 16)
    mean = prior.mean_latent(64, torch.Generator().manual_seed(0))
    assert mean.shape == (1, 16)
    assert torch.equal(mean, prior.mean_latent(64, torch.Generator().manual_seed(0)))
    w = prior.mapping(z)
    half = prior.to_latents(z, truncation=0.5, truncation_latent=mean)
    torch.testing.assert_close(half[:, 0], (w + mean) / 2)
    none = prior.to_latents(z, truncation=0.0, truncation_latent=mean)
    torch.testing.assert_close(none[:, 3], mean.expand(2, -1))


def test_latents_pass_through():
    prior, noise = build(), build().make_noise(2)
    image, latents = prior(torch.randn(2, 16), noise, return_latents=True)
    assert torch.equal(prior(latents, noise, input_is_latent=True), image)
    assert torch.equal(prior(latents[:, 0], noise, input_is_latent=True), image)


def test_a_fresh_prior_ignores_noise():
    prior, z = build(noisy=False), torch.randn(1, 16)
    assert torch.equal(prior(z), prior(z))


@pytest.mark.parametrize("noise_mode", ["concat", "add"])
def test_fast_ops_equal_reference_ops(noise_mode):
    prior, z = build(32, noise_mode).double(), torch.randn(2, 16, dtype=torch.float64)
    noise = prior.make_noise(2)
    fast = prior(z, noise)
    with force_implementation("reference"):
        torch.testing.assert_close(fast, prior(z, noise))


def path_length(prior, z, noise):
    """The length of the image's gradient along w, which path length regularization differentiates again."""
    image, latents = prior(z, noise, return_latents=True)
    along = torch.linspace(-1, 1, image.numel(), dtype=image.dtype).reshape(image.shape)
    (gradient,) = torch.autograd.grad((image * along).sum(), latents, create_graph=True)
    return gradient.square().sum()


@pytest.mark.parametrize("noise_mode", ["concat", "add", "none"])
def test_path_length_is_differentiable(noise_mode):
    prior, z = build(16, noise_mode).double(), torch.randn(1, 16, dtype=torch.float64)
    noise = prior.make_noise(1)
    path_length(prior, z, noise).backward()
    for name in ["constant", "mapping.0.weight", "blocks.8.conv0.weight", "blocks.16.to_rgb.modulation.bias"]:
        parameter = prior.get_parameter(name)
        direction = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64)).reshape(parameter.shape)
        lengths = []
        for step in (1e-7, -1e-7):  # so short that no activation crosses its kink on the way
            parameter.data.add_(direction, alpha=step)
            lengths.append(path_length(prior, z, noise).item())
            parameter.data.sub_(direction, alpha=step)
        slope = (lengths[0] - lengths[1]) / 2e-7
        assert float((parameter.grad * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-3), name


def test_bad_arguments():
    prior, z = build(), torch.randn(1, 16)
    with pytest.raises(OptionError, match="out_size: got 500"):
        GPENPrior(500)
    with pytest.raises(OptionError, match="noise_mode: got 'cat'"):
        GPENPrior(16, noise_mode="cat")
    with pytest.raises(OptionError, match="resample_kernel"):
        GPENPrior(16, resample_kernel=[1])
    with pytest.raises(OptionError, match="styles: got 3 codes"):
        prior([z, z, z])
    with pytest.raises(OptionError, match="truncation_latent"):
        prior(z, truncation=0.7)
    with pytest.raises(OptionError, match="inject_index: got 8; expected a whole number from 1 to 7"):
        prior([z, z], inject_index=8)
    with pytest.raises(OptionError, match="noise: got 3 maps"):
        prior(z, [None] * 3)
    with pytest.raises(OptionError, match="noise_mode is 'none'"):
        build(noise_mode="none")(z, [torch.zeros(1, 15, 4, 4), None, None, None])
    with pytest.raises(ShapeError, match=r"noise of 8 px: got C=1 "):
        prior(z, [None, torch.zeros(1, 1, 8, 8), None, None])
    with pytest.raises(ShapeError, match=r"noise of 8 px: got N=3 "):
        prior(torch.randn(2, 16), [None, torch.zeros(3, 15, 8, 8), None, None])
    with pytest.raises(ShapeError, match=r"styles: got F=8 .*F=16"):
        prior(torch.randn(1, 8))
    with pytest.raises(ShapeError, match=r"latents: got codes=4 .*codes=8"):
        prior(torch.randn(1, 4, 16), input_is_latent=True)


def test_odd_filters_and_lists_from_yaml():
    assert GPENPrior(16, resample_kernel=[1, 2, 1], **SMALL)(torch.randn(1, 16)).shape == (1, 3, 16, 16)
