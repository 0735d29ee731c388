"""Discriminators of BasicSR, of several scales and of a user's own, in every model."""

import re

import pytest
import torch
from basicsr.archs.discriminator_arch import UNetDiscriminatorSN
from basicsr.losses.gan_loss import GANLoss
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY
from helpers import REPOSITORY
from models.test_gpen_model import batch, ready
from test_preflight import parsed
from torch.nn import functional as F

from gpen_plugin.errors import GPENError
from gpen_plugin.models.gan_steps import logits_and_features
from gpen_plugin.preflight import check_run

UNET = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}
PATCHES = {"type": "Pix2PixHDDiscriminator", "num_in_ch": 3, "num_feat": 4}
HIFACEGAN = {"type": "HiFaceGANDiscriminator", "num_in_ch": 3, "num_feat": 4, "conditional_d": False, "n_layers_d": 3}


def iterate(options: dict, iterations: int = 2):
    torch.manual_seed(0)
    model = build_model(ready(options))
    for iteration in range(1, iterations + 1):
        model.feed_data(batch())
        model.optimize_parameters(iteration)
        assert all(value.isfinite() for value in model.losses.values())
    return model


@pytest.mark.parametrize("discriminator", [UNET, PATCHES, HIFACEGAN], ids=lambda section: section["type"])
@pytest.mark.parametrize("fixture", ["options", "prior_options"])
def test_logits_of_patches_and_scales(fixture, discriminator, request):
    options = request.getfixturevalue(fixture)
    options["network_d"] = discriminator
    check_run(parsed(options))
    model = iterate(options)
    assert model.losses["l_d_r1"] > 0
    if fixture == "options":
        assert model.losses["l_g_feat"] > 0


def test_adversarial_loss_of_a_map_is_its_mean_over_the_patches(options):
    options["network_d"] = UNET
    torch.manual_seed(0)
    model = build_model(ready(options))
    model.feed_data(batch())
    weights = {name: tensor.clone() for name, tensor in model.net_d.state_dict().items()}
    model.optimize_parameters(1)
    model.net_d.load_state_dict(weights)
    logits = model.net_d(model.output.detach())
    assert logits.shape == (2, 1, 16, 16)
    assert model.losses["l_g_gan"].item() == pytest.approx(GANLoss("wgan_softplus")(logits, True).item(), rel=1e-5)


def test_features_of_a_discriminator_that_returns_logits_alone():
    """Of its layers but the last, in order, after the activation that BasicSR applies in place."""
    torch.manual_seed(0)
    net = UNetDiscriminatorSN(3, 4).eval()
    images = torch.rand(1, 3, 16, 16)
    (logits,), features = logits_and_features(net, images)
    assert torch.equal(logits, net(images))
    assert len(features) == 9
    assert torch.equal(features[0], F.leaky_relu(net.conv0(images), 0.2))
    assert not any(module._forward_hooks for module in net.modules())
    assert logits_and_features(net, images, want_features=False)[1] == []


@pytest.mark.parametrize(
    ("discriminator", "message"),
    [
        ({"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 4}, "network_d: AssertionError: Input"),
        ({"type": "SRVGGNetCompact", "upscale": 1}, r"network_d:type: gives a tensor of shape \(2, 3, 16, 16\)"),
        ({**UNET, "num_in_ch": 6}, "network_d: RuntimeError"),
        ({**UNET, "num_feet": 6}, "network_d:num_feet: unknown key"),
    ],
)
def test_unfit_discriminators_are_found_before_the_run(options, discriminator, message):
    options["network_d"] = discriminator
    with pytest.raises(GPENError, match=message):
        check_run(parsed(options))


def test_features_of_layers_need_an_uncompiled_discriminator(options):
    options["network_d"], options["train"]["compile"] = UNET, "aot_eager"
    with pytest.raises(GPENError, match="feature_matching_opt:type: needs features, and network_d gives none"):
        check_run(parsed(options))


def test_vision_aided_example_of_the_documentation_trains(options, monkeypatch):
    text = (REPOSITORY / "docs/TRAINING.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (code,) = [block for block in blocks if "BackboneDiscriminator" in block]
    names = {}
    monkeypatch.setattr(ARCH_REGISTRY, "_obj_map", dict(ARCH_REGISTRY._obj_map))
    exec(code, names)
    options["network_d"] = {"type": "BackboneDiscriminator", "weights": None}
    options["train"]["net_d_reg_every"] = 1
    check_run(parsed(options))
    model = iterate(options, 1)
    assert not any(parameter.requires_grad for parameter in model.net_d.backbone.parameters())
    assert model.losses["l_g_feat"] > 0
