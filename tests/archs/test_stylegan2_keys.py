"""BasicSR's own StyleGAN2 and the prior made of its weights compute the same."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from basicsr.archs.stylegan2_arch import StyleGAN2Discriminator, StyleGAN2Generator

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.key_maps import detect_layout, fixed_noise, from_authors, to_authors
from gpen_plugin.checkpoints.convert import to_layout

WIDTHS = {"channel_multiplier": 1, "narrow": 0.04}
STYLE = {"num_style_feat": 8, "num_mlp": 2}


@pytest.fixture
def fused_act_in_pytorch(monkeypatch):
    """What the host leaves to a compiled extension, forward only."""

    def fused_bias_act(x, bias, _reference, _kind, _order, slope, scale):
        return F.leaky_relu(x + bias.view(-1, *[1] * (x.ndim - 2)), slope) * scale

    module = sys.modules["basicsr.ops.fused_act.fused_act"]
    monkeypatch.setattr(module, "fused_act_ext", SimpleNamespace(fused_bias_act=fused_bias_act), raising=False)


def filled(net):
    """Values other than those that a fresh network starts from: noise weights and biases are zero there."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 1 and not name.startswith(("style_mlp", "mapping")):
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return net


def hosts_generator(size):
    return filled(StyleGAN2Generator(size, **STYLE, **WIDTHS))


def hosts_discriminator(size):
    return filled(StyleGAN2Discriminator(size, **WIDTHS))


def rosinalitys(state_dict):
    """The spelling of the implementation that the authors built upon: fixed noise has an underline more."""
    noise = {key.replace("noise", "noise_").replace("noise_s", "noises"): t for key, t in state_dict.items()}
    return to_authors(state_dict) | {key: tensor for key, tensor in noise.items() if key.startswith("noises.")}


@pytest.mark.usefixtures("fused_act_in_pytorch")
@pytest.mark.parametrize("respelled", [dict, rosinalitys])
@pytest.mark.parametrize("size", [32, 64])
@torch.no_grad()
def test_imported_prior_generates_basicsrs_images(size, respelled):
    theirs = hosts_generator(size)
    ours = GPENPrior(size, noise_mode="add", **STYLE, **WIDTHS)
    ours.load_state_dict(respelled(theirs.state_dict()), strict=True)
    maps = [torch.randn(2, 1, r, r) for r in (4, 8, 16, 32, 64) if r <= size]
    layers = [maps[0]] + [noise for noise in maps[1:] for _ in range(2)]
    shared = [
        noise.expand(-1, block.noise_channels, -1, -1) for noise, block in zip(maps, ours.blocks.values(), strict=True)
    ]
    z = torch.randn(2, 8)
    expected, latents = theirs([z], noise=layers, return_latents=True)
    image, codes = ours(z, shared, return_latents=True)
    assert expected.std() > 0.1
    for given, wanted in ((codes, latents), (image, expected)):
        # The sums of a dozen layers, in another order: each value may be off by some steps of the largest one.
        step = torch.finfo(torch.float32).eps * float(wanted.abs().max())
        torch.testing.assert_close(given, wanted, atol=64 * step, rtol=0)
    silent = ours(z, [torch.zeros_like(noise) for noise in shared])
    assert (silent - expected).abs().max() > 1e-2, "the noise must matter, or nothing is shown"


@pytest.mark.usefixtures("fused_act_in_pytorch")
@pytest.mark.parametrize("size", [32, 64])
@torch.no_grad()
def test_imported_discriminator_gives_basicsrs_logits(size):
    theirs, ours = hosts_discriminator(size), GPENDiscriminator(size, **WIDTHS)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(4, 3, size, size)
    expected = theirs(images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [16, 32, 128])
def test_names_and_shapes_are_basicsrs(size):
    prior = GPENPrior(size, noise_mode="add", **STYLE, **WIDTHS)
    hosts = hosts_generator(size)
    written = to_layout(prior.state_dict(), "stylegan2")
    assert {key: t.shape for key, t in written.items()} == {key: t.shape for key, t in hosts.state_dict().items()}
    hosts.load_state_dict(written, strict=True)
    discriminator = GPENDiscriminator(size, **WIDTHS)
    hosts_discriminator(size).load_state_dict(to_layout(discriminator.state_dict(), "stylegan2"), strict=True)


@pytest.mark.parametrize("build", [hosts_generator, hosts_discriminator])
@pytest.mark.parametrize("size", [16, 64])
def test_round_trip_of_basicsrs_tensors(build, size):
    given = {key: tensor for key, tensor in build(size).state_dict().items() if not key.startswith("noises.")}
    ours = from_authors(given)
    assert detect_layout(given) == (detect_layout(ours)[0], "stylegan2")
    for through in (ours, to_authors(given)):
        back = {key: t for key, t in to_layout(through, "stylegan2").items() if not key.startswith("noises.")}
        assert set(back) == set(given)
        assert all(torch.equal(back[key], given[key]) and back[key].shape == given[key].shape for key in given)


def test_only_fixed_noise_is_left_out():
    given = hosts_generator(16).state_dict()
    assert sum(key.startswith("noises.") for key in given) == 5
    assert len(from_authors(given)) == len(given) - 5
    assert set(from_authors(rosinalitys(given))) == set(from_authors(given))
    assert "noises.unknown" in from_authors(given | {"noises.unknown": torch.zeros(1)})


def test_fixed_noise_is_normal_and_constant():
    maps = fixed_noise(64)
    assert [noise.shape[-1] for noise in maps.values()] == [4, 8, 8, 16, 16, 32, 32, 64, 64]
    assert maps["noises.noise8"].std() == pytest.approx(1, abs=0.1)
    assert all(torch.equal(noise, fixed_noise(64)[key]) for key, noise in maps.items())
