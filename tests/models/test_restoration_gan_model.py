"""RestorationGANModel: the losses of other methods, one training for all of them."""

import copy

import pytest
import torch
from basicsr.archs import vgg_arch
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY
from test_gpen_model import assert_same, batch, ready, states
from test_preflight import parsed, put

from gpen_plugin.errors import GPENError, MissingFileError, OptionError
from gpen_plugin.losses import DiscriminatorFeatureMatchingLoss, gradient_penalty
from gpen_plugin.models.adversarial_model import LinearDecayLR
from gpen_plugin.models.gan_steps import logits_and_features
from gpen_plugin.nets import vgg
from gpen_plugin.preflight import check_run

LAYERS = {"relu1_1": 0.03125, "relu2_1": 0.0625}


def step(options: dict, iteration: int = 1, **more):
    torch.manual_seed(0)
    model = build_model(ready(options))
    model.feed_data(batch() | more)
    model.optimize_parameters(iteration)
    return model


def test_small_options_pass_preflight(rival_options):
    check_run(parsed(rival_options))


def test_losses_are_those_of_the_networks_outputs(rival_options):
    """Of the first step, against the formulas: least squares and L1 of features, summed over scales."""
    torch.manual_seed(0)
    model = build_model(ready(rival_options))
    before = copy.deepcopy(model.net_d)
    model.feed_data(batch())
    model.optimize_parameters(1)
    pairs = [torch.cat([model.lq, images], dim=1) for images in (model.output.detach(), model.gt)]
    with torch.no_grad():
        (fake, fake_features), (real, real_features) = (before(pair, return_features=True) for pair in pairs)
    assert model.losses["l_g_gan"].item() == pytest.approx(sum((each - 1).square().mean().item() for each in fake))
    expected = sum((each - 1).square().mean() for each in real) + sum(each.square().mean() for each in fake)
    assert model.losses["l_d"].item() == pytest.approx(expected.item())
    matched = 5 * sum((a - b).abs().mean() for a, b in zip(fake_features, real_features, strict=True))
    assert model.losses["l_g_feat"].item() == pytest.approx(matched.item(), rel=1e-5)
    assert (len(fake), len(fake_features)) == (2, 8)


def test_generator_gradient_is_that_of_the_sum_of_its_losses(rival_options):
    rival_options["train"]["pixel_opt"] = {"type": "L1Loss", "loss_weight": 10.0}
    torch.manual_seed(0)
    model = build_model(ready(rival_options))
    model.feed_data(batch())
    output = model.net_g(model.lq)
    fake, features = model.net_d(torch.cat([model.lq, output], 1), return_features=True)
    _, real_features = model.net_d(torch.cat([model.lq, model.gt], 1), return_features=True)
    total = sum((each - 1).square().mean() for each in fake) + 10 * (output - model.gt).abs().mean()
    total = total + DiscriminatorFeatureMatchingLoss(5.0, "l1")(features, real_features)
    gradients = torch.autograd.grad(total, list(model.net_g.parameters()))
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
    model.optimize_parameters(1)
    assert model.losses["grad_norm_g"].item() == pytest.approx(norm, rel=1e-4)


def test_gradient_of_one_image_is_right(rival_options):
    """PyTorch's instance norm has a wrong gradient of one image in channels last, the layout of the other models."""
    rival_options["train"]["feature_matching_opt"] = None
    torch.manual_seed(0)
    model = build_model(ready(rival_options))
    model.feed_data({name: images[:1] for name, images in batch().items()})
    exact = copy.deepcopy(model.net_g).double()
    logits = copy.deepcopy(model.net_d).double()(torch.cat([model.lq.double(), exact(model.lq.double())], dim=1))
    sum((each - 1).square().mean() for each in logits).backward()
    expected = torch.nn.utils.get_total_norm([parameter.grad for parameter in exact.parameters()])
    model.optimize_parameters(1)
    assert model.losses["grad_norm_g"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("gan_type", ["lsgan", "hinge", "vanilla", "wgan", "wgan_softplus"])
def test_each_gan_type_moves_both_networks_and_is_logged(rival_options, gan_type):
    rival_options["train"]["gan_opt"]["gan_type"] = gan_type
    rival_options["train"] |= {"gp_weight": 10 if gan_type == "wgan" else 0, "r1_reg_weight": 1, "net_d_reg_every": 1}
    torch.manual_seed(0)
    model = build_model(ready(rival_options))
    before = [copy.deepcopy(net.state_dict()) for net in (model.net_g, model.net_d, model.net_g_ema)]
    model.feed_data(batch())
    model.optimize_parameters(1)
    for net, old in zip((model.net_g, model.net_d, model.net_g_ema), before, strict=True):
        assert any(not torch.equal(tensor, old[name]) for name, tensor in net.state_dict().items())
    log = model.get_current_log()
    assert {"l_g_gan", "l_g_feat", "l_d", "l_d_r1", "out_d_real", "lr_generator", "lr_discriminator"} <= set(log)
    assert ("l_d_gp" in log) == (gan_type == "wgan")


def test_gradient_penalty_of_a_linear_critic():
    """The gradient of w x is w everywhere, so the penalty is (|w| - 1)^2."""
    weight = torch.randn(3, 4, 4)
    real, fake = torch.randn(2, 2, 3, 4, 4)
    penalty = gradient_penalty(lambda x: [(x * weight).sum((1, 2, 3))[:, None]], real, fake, torch.rand(2, 1, 1, 1))
    assert penalty.item() == pytest.approx((weight.norm().item() - 1) ** 2, rel=1e-5)


def test_content_only_iterations_leave_the_discriminator(rival_options):
    rival_options["train"] |= {"content_only_iter": 1, "pixel_opt": {"type": "MSELoss"}}
    torch.manual_seed(0)
    model = build_model(ready(rival_options))
    before = copy.deepcopy(model.net_d.state_dict())
    for iteration in (1, 2):
        model.feed_data(batch())
        model.optimize_parameters(iteration)
        unchanged = all(torch.equal(tensor, before[name]) for name, tensor in model.net_d.state_dict().items())
        assert unchanged == (iteration == 1)
        assert ("l_g_gan" in model.losses) == (iteration == 2)


def test_frozen_module_learns_after_its_iterations(rival_options):
    rival_options["network_g"] |= {"enhancer": True}
    rival_options["train"]["freeze_iter"] = {"model": 1}
    check_run(parsed(rival_options))
    torch.manual_seed(0)
    model = build_model(ready(rival_options))
    before = copy.deepcopy(model.net_g.state_dict())
    for iteration in (1, 2):
        model.feed_data(batch())
        model.optimize_parameters(iteration)
        moved = {
            name.partition(".")[0]
            for name, one in model.net_g.state_dict().items()
            if not torch.equal(one, before[name])
        }
        assert moved == ({"model1_1", "model1_2"} if iteration == 1 else {"model", "model1_1", "model1_2"})


def test_perceptual_loss_is_a_term_of_its_own(rival_options, random_vgg):
    perceptual = {"type": "PerceptualLoss", "layer_weights": LAYERS, "use_input_norm": False, "perceptual_weight": 10.0}
    rival_options["train"]["perceptual_opt"] = perceptual
    check_run(parsed(rival_options))
    model = step(rival_options)
    expected = model.loss_terms["percep"].loss(model.output.detach(), model.gt)[0]
    assert model.losses["l_g_percep"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_missing_vgg_is_found_before_the_run(rival_options, monkeypatch, tmp_path):
    for name, value in (("GPEN_PLUGIN_OFFLINE", "1"), ("XDG_CACHE_HOME", str(tmp_path)), ("TORCH_HOME", str(tmp_path))):
        monkeypatch.setenv(name, value)
    rival_options["train"]["perceptual_opt"] = {"type": "PerceptualLoss", "layer_weights": LAYERS, "range_norm": True}
    with pytest.raises(MissingFileError, match="train:perceptual_opt: vgg19-dcbb9e9d"):
        check_run(parsed(rival_options))


def test_vgg_is_read_from_the_folder_of_weights(monkeypatch, tmp_path):
    (tmp_path / "vgg19-dcbb9e9d.pth").touch()
    monkeypatch.setenv("GPEN_PLUGIN_WEIGHTS", str(tmp_path))
    before = vgg_arch.VGG_PRETRAIN_PATH
    with vgg.vgg19_of({"type": "PerceptualLoss"}):
        assert str(tmp_path / "vgg19-dcbb9e9d.pth") == vgg_arch.VGG_PRETRAIN_PATH
    with vgg.vgg19_of({"type": "PerceptualLoss", "vgg_type": "vgg16"}):
        assert before == vgg_arch.VGG_PRETRAIN_PATH
    assert before == vgg_arch.VGG_PRETRAIN_PATH


def test_stopped_and_resumed_is_the_same_as_not_stopped(rival_options, train, tmp_path):
    rival_options["train"] |= {"gp_weight": 1.0, "scheduler": {"type": "LinearDecayLR", "start": 1, "end": 4}}
    whole = train(rival_options, tmp_path / "whole")
    stopped = copy.deepcopy(rival_options)
    stopped["train"]["total_iter"] = 2
    train(stopped, tmp_path / "parts")
    parts = train(rival_options, tmp_path / "parts", "--auto_resume")
    assert_same(states(whole, 4), states(parts, 4))


def test_linear_decay_ends_at_zero():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule, rates = LinearDecayLR(optimizer, 2, 6), []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([2, 2, 2, 1.5, 1, 0.5, 0])


class WithReference(torch.nn.Module):
    """Returns the mean of input and reference, and the reference times a parameter."""

    value_range = (-1, 1)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, lq, ref):
        return (lq + ref) / 2 * self.weight, ref * self.weight

    def auxiliary_losses(self, outputs, gt):
        return {"l_g_ref": (outputs - gt).abs().mean()}


@pytest.fixture
def with_reference(rival_options, monkeypatch):
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "WithReference", WithReference)
    return rival_options | {"network_g": {"type": "WithReference"}}


def test_reference_enters_the_network_and_its_own_loss_counts(with_reference):
    ref = batch(1)["gt"]
    model = step(with_reference, ref=ref)
    torch.testing.assert_close(model.output.detach(), (batch()["lq"] + ref) / 2)
    assert model.losses["l_g_ref"].item() == pytest.approx((ref - model.gt).abs().mean().item())
    assert model.losses["share_ref"] > 0
    model.test()
    assert model.output.shape == ref.shape


def test_missing_reference_is_an_error(with_reference):
    with pytest.raises(OptionError, match=r"datasets: gives no reference image \(ref\); .*WithReference"):
        step(with_reference)


def test_networks_of_the_host_train_in_the_range_of_the_data(rival_options):
    """With BasicSR's discriminator of HiFaceGAN, whose features are a list for each scale."""
    rival_options["network_g"] = {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1, "upscale": 1}
    rival_options["network_d"] = {"type": "HiFaceGANDiscriminator", "num_feat": 4, "n_layers_d": 3}
    for data in rival_options["datasets"].values():
        data["value_range"] = [0, 1]
    check_run(parsed(rival_options))
    model = step(rival_options)
    assert model.value_range == (0, 1)
    logits, features = logits_and_features(model.net_d, torch.cat([model.lq, model.gt], 1))
    assert (len(logits), len(features)) == (2, 6)
    assert all(each.shape[1] == 1 for each in logits)
    assert model.losses["l_g_feat"] > 0


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train:optim_g:lr", 0, "train:optim_g:lr: got 0"),
        ("train:gp_weight", -1, "train:gp_weight: got -1; expected 0 or more"),
        ("train:content_only_iter", 3, "train:content_only_iter: got 3, but neither pixel_opt nor perceptual_opt"),
        ("train:freeze_iter", {"modl": 3}, "train:freeze_iter:modl: unknown key.*Did you mean 'model'"),
        ("train:freeze_iter", {"model": "a"}, "train:freeze_iter: got {'model': 'a'}; expected modules with numbers"),
        ("train:lr_ratio", [1, 1, 1], "train:lr_ratio: unknown key"),
        ("train:conditional_d", False, "network_d:x: got C=3 .*C=6"),
        ("network_d:num_feet", 4, "network_d:num_feet: unknown key.*Did you mean 'num_feat'"),
        ("network_g:num_down", 0, "network_g:num_down: got 0; expected a whole number from 1"),
        ("network_g:num_down", 6, "network_g:lq: .*multiples of 64"),
        ("network_d:type", "Pix2PixHDDiscriminater", "network_d:type: got .*Did you mean 'Pix2PixHDDiscriminator'"),
        (
            "train:scheduler",
            {"type": "LinearDecayLR", "start": 6, "end": 6},
            "train:scheduler: .*got 6 and 6",
        ),
        ("train:scheduler", {"type": "LinearDecayLR", "start": 6}, "train:scheduler:end: missing"),
        ("path:pretrain_prior", "x.pth", "path:pretrain_prior: got x.pth; expected a training of GPENModel"),
    ],
)
def test_mistakes_are_found_before_the_run(rival_options, path, value, message):
    put(rival_options, path, value)
    with pytest.raises(GPENError, match=message):
        check_run(parsed(rival_options))
