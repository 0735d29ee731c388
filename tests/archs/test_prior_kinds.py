"""PGGAN and StyleGAN v1 as priors: alone, inside GPEN, and where they are refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gpen_plugin.archs.biggan_prior_arch import BigGANPrior, ConditionalNorm, SpectralConv2d
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.inference import fuse
from gpen_plugin.archs.layers import upsampling_kernel
from gpen_plugin.archs.pggan_prior_arch import PGGANPrior, PixelNormConv
from gpen_plugin.archs.stylegan1_prior_arch import AdaINConv, StyleGAN1Prior
from gpen_plugin.checkpoints.checkpoint import build, infer_spec
from gpen_plugin.checkpoints.grow import grow, grown_spec
from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.export.exporter import export
from gpen_plugin.export.options import ExportOptions
from gpen_plugin.restore.network import open_network
from gpen_plugin.restore.prior_sampler import PriorSampler
from gpen_plugin.restore.variants import VariedNetwork, variation_of

SMALL = {"num_style_feat": 12, "channel_multiplier": 1, "narrow": 0.02}
PRIORS = {
    "PGGANPrior": lambda **more: PGGANPrior(32, **SMALL, **more),
    "StyleGAN1Prior": lambda **more: StyleGAN1Prior(32, num_mlp=2, **SMALL, **more),
    "BigGANPrior": lambda **more: BigGANPrior(32, **SMALL, **more),
}
MODES = ["concat", "add", "none"]
each_prior = pytest.mark.parametrize("kind", PRIORS)
each_mode = pytest.mark.parametrize("noise_mode", MODES)


def built(kind, noise_mode="concat", noise=0.0):
    torch.manual_seed(0)
    return with_noise(PRIORS[kind](noise_mode=noise_mode), noise)


def with_noise(net, noise):
    for name, parameter in net.named_parameters():
        if name.endswith("noise_weight"):
            parameter.data.fill_(noise)
    return net


def gpen(kind, noise_mode="concat", noise=0.0, out_size=32, **more):
    torch.manual_seed(0)
    mapping = {"num_mlp": 2} if kind == "StyleGAN1Prior" else {}
    net = GPEN(out_size, **SMALL, **mapping, noise_mode=noise_mode, prior={"type": kind}, **more)
    return with_noise(net, noise)


def image(batch=2, size=32):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@each_mode
@each_prior
def test_prior_gives_one_image_and_its_codes(kind, noise_mode):
    prior = built(kind, noise_mode)
    drawn, latents = prior(torch.randn(2, 12), return_latents=True)
    assert drawn.shape == (2, 3, 32, 32)
    assert latents.shape == (2, {"StyleGAN1Prior": 8}.get(kind, 1), 12)
    assert [image.shape[-1] for image in prior.synthesize(latents, [None] * 4)] == [32]


@pytest.mark.parametrize("noise_mode", ["concat", "add"])
@each_prior
def test_features_of_a_fresh_encoder_leave_the_prior_as_it_is(kind, noise_mode):
    net = gpen(kind, noise_mode).eval()
    z, features = net.encoder(image())
    assert all(feature.abs().max() > 0.01 for feature in features)
    torch.testing.assert_close(net(image()), net.decoder(z, [None] * 4), rtol=0, atol=0)


@pytest.mark.parametrize("noise_mode", ["concat", "add"])
@each_prior
def test_noise_weights_have_a_gradient_from_the_first_step(kind, noise_mode):
    net = gpen(kind, noise_mode)
    net(image()).square().sum().backward()
    without = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    still = [
        name for name, parameter in net.named_parameters() if name.endswith("noise_weight") and not parameter.grad.any()
    ]
    assert (without, still) == ([], [])


@each_prior
def test_every_parameter_learns_once_the_noise_weights_have_moved(kind):
    net = gpen(kind, noise=0.5, in_size=16)  # the finest block has no features
    net(image()).square().sum().backward()
    still = [name for name, parameter in net.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    layers = ("noise1", "noise2") if kind == "BigGANPrior" else ("conv0", "conv1")
    assert still == [f"decoder.blocks.32.{layer}.noise_weight" for layer in layers]


@pytest.mark.parametrize("before", ["none", "add"])
@pytest.mark.parametrize("kind", ["PGGANPrior", "StyleGAN1Prior"])
def test_grown_to_concat_a_prior_draws_its_own_images(kind, before):
    small, z = built(kind, before), torch.randn(2, 12)
    tensors = small.state_dict()
    target = grown_spec(infer_spec(tensors), noise_mode="concat")
    large = build(target)
    large.load_state_dict(grow(tensors, target))
    torch.testing.assert_close(large(z, large.make_noise(2)), small(z, [None] * 4), rtol=1e-3, atol=1e-4)
    again = grown_spec(target, noise_mode=before)
    back = build(again)
    back.load_state_dict(grow(large.state_dict(), again))
    torch.testing.assert_close(back(z, [None] * 4), small(z, [None] * 4), rtol=1e-3, atol=1e-4)


@each_prior
def test_size_of_a_prior_whose_image_is_no_sum_cannot_grow(kind):
    with pytest.raises(OptionError, match=r"--out-size: got 64 for a .*its image comes from its last block"):
        grown_spec(infer_spec(built(kind).state_dict()), out_size=64)


@each_mode
@each_prior
def test_network_is_determined_by_its_tensors(kind, noise_mode):
    for net in (built(kind, noise_mode), gpen(kind, noise_mode, in_size=16)):
        spec = infer_spec(net.state_dict())
        again = build(spec)
        again.load_state_dict(net.state_dict())
        assert type(again) is type(net)
        assert infer_spec(again.state_dict()) == spec
        assert spec.noise_mode == noise_mode
        assert kind in str(spec)


@each_mode
@each_prior
def test_fused_network_gives_the_same_images(kind, noise_mode):
    net = gpen(kind, noise_mode, noise=0.5).eval()
    with torch.no_grad():
        torch.testing.assert_close(fuse(net)(image()), net(image()), rtol=1e-4, atol=1e-4)
        assert (fuse(net, torch.bfloat16)(image()) - net(image())).abs().mean() < 0.05 * net(image()).std()


@each_prior
def test_noise_and_codes_of_another_shape_are_refused(kind):
    prior = built(kind)
    with pytest.raises(ShapeError, match="noise of 4 px: got C=3"):
        prior(torch.randn(1, 12), [torch.zeros(1, 3, 4, 4), None, None, None])
    with pytest.raises(ShapeError, match="styles: got F=5"):
        prior(torch.randn(1, 5))


def test_pggan_refuses_what_needs_a_mapping_network():
    prior, z = built("PGGANPrior"), torch.randn(1, 12)
    with pytest.raises(OptionError, match=r"truncation: got 0.7; expected 1: PGGANPrior has no mean latent code"):
        prior(z, truncation=0.7)
    with pytest.raises(OptionError, match="styles: got 2 codes; expected one"):
        prior([z, z])
    with pytest.raises(OptionError, match="truncation: PGGANPrior has no mean latent code"):
        prior.mean_latent(8)
    with pytest.raises(OptionError, match="num_mlp: got 3; expected no such key: PGGANPrior has no use for it"):
        GPEN(32, **SMALL, num_mlp=3, prior={"type": "PGGANPrior"})


def test_samples_of_pggan_are_not_truncated_or_mixed(tmp_path):
    path = tmp_path / "prior.pth"
    torch.save({"params": built("PGGANPrior").state_dict()}, path)
    with pytest.raises(OptionError, match=r"truncation: .*Set truncation to 1"):
        PriorSampler(path)
    sampler = PriorSampler(path, truncation=1)
    (drawn,) = sampler([sampler.from_seed(3)])
    assert drawn.shape == (32, 32, 3)
    with pytest.raises(OptionError, match="mode: got mix; expected another mode: PGGANPrior has a single latent code"):
        sampler.mix(sampler.from_seed(0), sampler.from_seed(1), 8)


def test_samples_of_stylegan1_can_be_mixed(tmp_path):
    path = tmp_path / "prior.pth"
    torch.save({"params": built("StyleGAN1Prior").state_dict()}, path)
    sampler = PriorSampler(path, truncation=0.5, noise="zero")
    one, other = sampler.from_seed(0), sampler.from_seed(1)
    mixed = sampler.mix(one, other, 16)
    assert torch.equal(mixed.latents[:, :4], one.latents[:, :4])
    assert torch.equal(mixed.latents[:, 4:], other.latents[:, 4:])


@each_prior
def test_restorer_opens_a_gpen_on_it_and_varies_it_if_it_can(kind, tmp_path):
    path = tmp_path / "net_g_latest.pth"
    torch.save({"params_ema": gpen(kind, noise=0.5).state_dict()}, path)
    network = open_network(path, device="cpu")
    face = np.zeros((32, 32, 3), np.float32)
    assert network([face])[0].shape == (32, 32, 3)
    if kind == "StyleGAN1Prior":
        assert not np.array_equal(VariedNetwork(network, variation_of(), 1)([face])[0], network([face])[0])
    else:
        with pytest.raises(OptionError, match=f"variants: got a network on {kind}"):
            VariedNetwork(network, variation_of(), 1)


@each_prior
def test_exported_network_is_refused_in_half_precision_only(kind, tmp_path):
    pytest.importorskip("onnxruntime")
    net = gpen(kind, noise=0.5, out_size=16).eval()
    exported = export(net, tmp_path / "net.onnx", ExportOptions(), {})
    assert exported.difference.largest < 1e-3
    with pytest.raises(OptionError, match=f"--precision: got fp16 for a network on {kind}"):
        export(net, tmp_path / "half.onnx", ExportOptions(precision="fp16"), {})


def test_upsampling_convolution_is_nearest_neighbor_and_convolution():
    x, weight = torch.randn(2, 3, 5, 4), torch.randn(6, 3, 3, 3)
    expected = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    torch.testing.assert_close(
        F.conv_transpose2d(x, upsampling_kernel(weight), stride=2, padding=1), expected, rtol=1e-4, atol=1e-4
    )


def test_adain_gives_the_mean_and_deviation_of_the_style():
    torch.manual_seed(0)
    layer = AdaINConv(4, 6, 12, "none")
    w, x = torch.randn(2, 12), torch.randn(2, 4, 16, 16)
    scale, shift = layer.style(w).chunk(2, dim=1)
    out = layer(x, w, None)
    torch.testing.assert_close(out.mean(dim=(2, 3)), shift, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out.std(dim=(2, 3), correction=0), (scale + 1).abs(), rtol=1e-4, atol=1e-4)


def test_pixel_norm_gives_each_pixel_a_mean_square_of_1():
    layer = PixelNormConv(4, 6, "none")
    out = layer(torch.randn(2, 4, 8, 8), None, None)
    torch.testing.assert_close(out.square().mean(dim=1), torch.ones(2, 8, 8), rtol=1e-4, atol=1e-4)


def test_one_channel_of_noise_stands_for_all_of_stylegan1():
    prior, z = built("StyleGAN1Prior", "add", noise=0.5), torch.randn(2, 12)
    noise = prior.make_noise(2)
    assert [map_.shape[1] for map_ in noise] == [1] * 4
    wide = [
        map_.expand(-1, block.noise_channels, -1, -1) for map_, block in zip(noise, prior.blocks.values(), strict=True)
    ]
    torch.testing.assert_close(prior(z, noise), prior(z, wide), rtol=1e-5, atol=1e-5)


def test_spectral_convolution_has_a_largest_singular_value_of_1():
    torch.manual_seed(0)
    layer = SpectralConv2d(4, 6, 3)
    layer.weight.data = torch.randn_like(layer.weight)
    for _ in range(200):
        kernel = layer.make_kernel()
    assert float(torch.linalg.matrix_norm(kernel.flatten(1), 2)) == pytest.approx(1, rel=1e-3)
    before = layer.u.clone()
    layer.eval().make_kernel()
    assert torch.equal(layer.u, before)


def test_noise_mode_of_biggan_cannot_change():
    with pytest.raises(OptionError, match="--noise-mode: got add for a BigGANPrior"):
        grown_spec(infer_spec(built("BigGANPrior").state_dict()), noise_mode="add")


def test_norm_of_biggan_is_group_norm():
    norm, x = ConditionalNorm(16, 12), torch.randn(2, 16, 4, 4)
    torch.nn.init.zeros_(norm.style.weight)
    torch.testing.assert_close(norm(x, torch.randn(2, 12)), F.group_norm(x, norm.groups).relu(), rtol=1e-4, atol=1e-5)


def test_truncation_of_biggan_scales_z():
    prior, z, noise = built("BigGANPrior").eval(), torch.randn(1, 12), [None] * 4
    truncated = prior(z, noise, truncation=0.5, truncation_latent=prior.mean_latent(1))
    torch.testing.assert_close(truncated, prior(0.5 * z, noise))
