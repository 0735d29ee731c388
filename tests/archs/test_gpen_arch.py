import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN, Restoration
from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.ops import force_implementation

SMALL = {"num_style_feat": 16, "num_mlp": 2, "channel_multiplier": 1, "narrow": 0.03}


def build(out_size=32, **arguments):
    torch.manual_seed(0)
    net = GPEN(out_size, **SMALL, **arguments)
    for name, parameter in net.named_parameters():
        if name.endswith("noise_weight"):
            parameter.data.fill_(0.5)
    return net


def image(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("shape", [(32, 32), (20, 50), (100, 90), (1, 1)])
def test_takes_any_size_and_returns_a_tensor(shape):
    out = build()(image(2, 3, *shape))
    assert isinstance(out, torch.Tensor)
    assert out.shape == (2, 3, 32, 32)


def test_images_of_the_right_size_enter_bit_for_bit():
    net, lq, seen = build(), image(1, 3, 32, 32), []
    net.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(lq)
    assert torch.equal(seen[0], lq)


@pytest.mark.parametrize("shape", [(8, 8), (20, 30)])
def test_smaller_images_are_enlarged_bilinearly(shape):
    net, lq = build(), image(1, 3, *shape)
    resized = F.interpolate(lq, size=(32, 32), mode="bilinear")
    torch.testing.assert_close(net(lq), net(resized))


@pytest.mark.parametrize("shape", [(96, 80), (20, 45), (1, 1)])
def test_resizes_as_the_dataset_and_the_restorer_do(shape):
    """One bilinear interpolation everywhere: OpenCV's, which is the authors' too."""
    image = np.random.default_rng(0).random((*shape, 3), dtype=np.float32)
    net, seen = build(), []
    net.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(torch.from_numpy(image).permute(2, 0, 1)[None])
    expected = cv2.resize(image, (net.in_size, net.in_size), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(seen[0][0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_embeds_the_prior_itself():
    net = build()
    assert type(net.decoder) is GPENPrior
    prior = GPENPrior(32, **SMALL)
    prior.load_state_dict(net.decoder.state_dict(), strict=True)
    z, features = net.encoder(image(1, 3, 32, 32))
    assert torch.equal(prior(z, features), net(image(1, 3, 32, 32)))


def test_encoder_and_decoder_hold_every_parameter():
    net = build()
    parts = {id(parameter) for part in (net.encoder, net.decoder) for parameter in part.parameters()}
    assert parts == {id(parameter) for parameter in net.parameters()}


@pytest.mark.parametrize("noise_mode", ["concat", "add", "none"])
def test_every_parameter_learns(noise_mode):
    net = build(noise_mode=noise_mode)
    net(image(2, 3, 32, 32)).square().sum().backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize("noise_mode", ["concat", "add", "none"])
def test_every_parameter_has_a_gradient_with_a_smaller_input(noise_mode):
    net = build(in_size=16, noise_mode=noise_mode)
    net(image(1, 3, 16, 16)).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_without_noise_only_z_matters():
    net, lq = build(noise_mode="none"), image(1, 3, 32, 32)
    z, _ = net.encoder(lq)
    assert torch.equal(net(lq), net.decoder(z))


def test_fresh_encoder_does_not_change_the_prior():
    torch.manual_seed(0)
    net, lq = GPEN(32, **SMALL), image(1, 3, 32, 32)
    z, _ = net.encoder(lq)
    assert torch.equal(net(lq), net.decoder(z, net.decoder.make_noise(1)))


def test_smaller_input_leaves_the_finest_blocks_without_features():
    net, lq = build(32, in_size=16), image(1, 3, 16, 16)
    assert list(net.encoder.down) == ["8", "4"]
    z, features = net.encoder(lq)
    assert len(features) == 3
    assert torch.equal(net(lq), net.decoder(z, [*features, torch.zeros(1, 15, 32, 32)]))


def test_value_range_maps_in_and_out():
    net, unit = build(), build(value_range=[0, 1])
    lq = image(1, 3, 20, 20)
    torch.testing.assert_close(unit((lq + 1) / 2), (net(lq) + 1) / 2)


def test_more_on_request():
    net, lq = build(), image(2, 3, 32, 32)
    out = net(lq, return_latents=True, return_rgbs=True)
    assert isinstance(out, Restoration)
    assert torch.equal(out.image, net(lq))
    assert out.latents.shape == (2, net.decoder.num_latent, 16)
    assert [rgb.shape[-1] for rgb in out.rgbs] == [4, 8, 16, 32]
    assert torch.equal(out.rgbs[-1], out.image)
    assert net(lq, return_latents=True).rgbs is None
    assert net(lq, return_rgbs=True).latents is None


def test_fast_ops_equal_reference_ops():
    net, lq = build().double(), image(2, 3, 32, 32).double()
    fast = net(lq)
    with force_implementation("reference"):
        torch.testing.assert_close(fast, net(lq))


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_result_is_the_same(guard):
    net, lq = build(), image(1, 3, 20, 20)
    expected = net(lq)
    with guard():
        torch.testing.assert_close(net(lq), expected)


def test_channels_last():
    net, lq = build(), image(2, 3, 32, 32)
    expected = net(lq)
    net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(lq.to(memory_format=torch.channels_last)), expected, rtol=0, atol=1e-4)


def test_bfloat16_under_autocast():
    net, lq = build(), image(2, 3, 20, 20)
    expected = net(lq)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(lq)
    assert out.dtype == torch.float32, "the image is summed up in float32"
    assert (out - expected).abs().max() / expected.std() < 0.1
    assert not torch.equal(out, expected)


def test_bfloat16_throughout():
    assert build().bfloat16()(image(1, 3, 40, 20).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_size": 500}, "out_size: got 500; expected a power of two from 16 to 2048. Use 512."),
        ({"out_size": 64, "in_size": 128}, "in_size: got 128; expected at most out_size, which is 64."),
        ({"out_size": 64, "in_size": 48}, "in_size: got 48; expected a power of two"),
        ({"out_size": 64, "noise_mode": "both"}, "noise_mode: got 'both'; expected one of concat, add, none"),
        ({"out_size": 64, "narrow": 0}, "narrow: got 0"),
        (
            {"out_size": 64, "value_range": [1, 0]},
            r"value_range: got \[1, 0\]; expected two values, the lower",
        ),
        ({"out_size": 64, "resample_kernel": [0, 0]}, r"resample_kernel: got \[0, 0\]"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(OptionError, match=message):
        GPEN(**arguments)


def test_bad_input():
    with pytest.raises(ShapeError, match=r"lq: got C=1 in shape \(1, 1, 32, 32\); expected \(N, C=3, H, W\)"):
        build()(torch.zeros(1, 1, 32, 32))


def test_default_prior_is_stylegan2_under_either_name():
    torch.manual_seed(0)
    default = GPEN(32, **SMALL)
    for name in ("GPENPrior", "StyleGAN2Prior"):
        torch.manual_seed(0)
        named = GPEN(32, **SMALL, prior={"type": name})
        assert type(named.decoder) is GPENPrior
        torch.testing.assert_close(named.state_dict(), default.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"type": "StyleGAN9Prior"}, "prior:type: got 'StyleGAN9Prior'; expected the name of a GAN prior"),
        ({"type": "GPENDiscriminator"}, "prior:type: got 'GPENDiscriminator'"),
        ({}, "prior:type: got None"),
        ({"type": "StyleGAN2Prior", "narrow": 1}, "prior:narrow: given in prior.*Write it beside prior"),
        ({"type": "StyleGAN2Prior", "width": 1}, "prior:width: unknown key"),
    ],
)
def test_prior_that_cannot_be_built_is_refused(prior, message):
    with pytest.raises(OptionError, match=message):
        GPEN(32, **SMALL, prior=prior)
