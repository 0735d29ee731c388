"""Optimizers, schedulers, parts of a batch, clipping and the average, in every model and over a resume."""

import copy
import sys
import types

import pytest
import torch
from basicsr.models import build_model
from helpers.linear_discriminator import LinearDiscriminator
from models.test_gpen_model import assert_same, batch, ready, states
from test_preflight import parsed
from torch.optim import lr_scheduler

from gpen_plugin.config.train_options import OptimizerOptions
from gpen_plugin.errors import GPENError
from gpen_plugin.models.gan_steps import NaNGuard, Part, discriminator_step
from gpen_plugin.models.train_state import load_optimizers
from gpen_plugin.preflight import check_run

FIXTURES = {"GPENModel": "options", "GPENPriorModel": "prior_options", "RestorationGANModel": "rival_options"}
WHOLE = {"rtol": 1e-4, "atol": 1e-6}  # of SGD's steps: a batch is summed in another order


@pytest.fixture(params=FIXTURES.values())
def each(request) -> dict:
    options = request.getfixturevalue(request.param)
    options["logger"] |= {"use_tb_logger": False}
    options["val"] = None
    return options


def set_optimizer(options: dict, **section: object) -> None:
    """The same optimizer for G and D."""
    train = options["train"]
    for name in ("optim", "optim_g", "optim_d"):
        if name in train:
            kept = {"lr_ratio": [1, 1, 1]} if name == "optim" else {}
            train[name] = {"lr": 0.002, **kept, **section}


def weights(model) -> dict[str, torch.Tensor]:
    nets = {"g": model.net_g, "d": model.net_d}
    return {f"{name}.{key}": t.clone() for name, net in nets.items() for key, t in net.state_dict().items()}


def trained(options: dict, iterations: int = 2, images: int = 2):
    torch.manual_seed(0)
    model = build_model(ready(options))
    for iteration in range(1, iterations + 1):
        model.feed_data({name: torch.cat([batch(iteration)[name]] * 2)[:images] for name in ("lq", "gt")})
        model.optimize_parameters(iteration)
    return model


def test_optimizer_has_the_class_and_the_arguments_of_its_section(each):
    set_optimizer(each, type="AdamW", weight_decay=0.3, eps=1e-6)
    check_run(parsed(each))
    model = trained(each)
    for optimizer in model.optimizers:
        assert type(optimizer) is torch.optim.AdamW
        assert {(group["weight_decay"], group["eps"]) for group in optimizer.param_groups} == {(0.3, 1e-6)}


def test_step_of_sgd_is_that_of_its_formula(options):
    set_optimizer(options, type="SGD", momentum=0.5, lr=0.1)
    options["train"]["r1_reg_weight"] = 0
    torch.manual_seed(0)
    model = build_model(ready(options))
    before = model.net_g.encoder.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    moved = []
    for _ in range(2):
        model.feed_data(batch())
        model.optimize_parameters(1)
        after = {name: tensor.clone() for name, tensor in model.net_g.encoder.state_dict().items()}
        moved.append({name: after[name] - before[name] for name in after})
        before = after
    momenta = {
        name: model.optimizer.state[parameter]["momentum_buffer"]
        for name, parameter in model.net_g.encoder.named_parameters()
    }
    for name, momentum in momenta.items():
        torch.testing.assert_close(moved[1][name], -0.1 * momentum, rtol=1e-3, atol=1e-6)


class OwnSGD(torch.optim.SGD):
    """Of another package."""


def test_optimizers_of_other_packages(options, monkeypatch):
    set_optimizer(options, type="own_package.optim.OwnSGD")
    with pytest.raises(GPENError, match=r"own_package\.optim cannot be imported \(.*its file in imports"):
        check_run(parsed(options))
    module = types.ModuleType("own_package.optim")
    module.OwnSGD = module.Adan = OwnSGD
    monkeypatch.setitem(sys.modules, "own_package", types.ModuleType("own_package"))
    monkeypatch.setitem(sys.modules, "own_package.optim", module)
    check_run(parsed(options))
    assert type(trained(options).optimizer) is OwnSGD
    with pytest.raises(GPENError, match=r"got 'Adan'.*pip install adan-pytorch"):
        OptimizerOptions(type="Adan")
    monkeypatch.setitem(sys.modules, "adan", module)
    assert OptimizerOptions(type="Adan").type == "Adan"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"type": "AdamX"}, "train:optim:type: got 'AdamX'; expected an optimizer of torch.optim"),
        ({"type": "Optimizer"}, "train:optim: "),
        ({"type": "LBFGS"}, "train:optim: .*closure"),
        ({"type": "AdamW", "weigth_decay": 1}, "train:optim:weigth_decay: unknown key.*Did you mean 'weight_decay'"),
        ({"type": "AdamW", "weight_decay": "1e-2"}, "train:optim:weight_decay: got '1e-2'.*write !!float 1e-2"),
        ({"type": "SGD", "betas": [0, 0.9]}, "train:optim:betas: unknown key"),
        ({"type": "SGD", "nesterov": True}, "train:optim: ValueError: Nesterov"),
    ],
)
def test_wrong_optimizers_are_found_before_the_run(options, section, message):
    options["train"]["optim"] = {"lr": 0.1, **section}
    with pytest.raises(GPENError, match=message):
        check_run(parsed(options))


def test_micro_batches_are_the_whole_batch(each):
    """Same weights after SGD's steps; R1 takes place in the second iteration. D's minibatch deviation is off."""
    set_optimizer(each, type="SGD", lr=0.01)
    if each["model_type"] == "GPENPriorModel":
        each["train"] |= {"path_reg_weight": 0}
    if each["model_type"] == "RestorationGANModel":
        each["train"] |= {"gp_weight": 1.0, "r1_reg_weight": 1.0, "net_d_reg_every": 2}
    else:
        each["network_d"]["stddev_group"] = 1
    one, other = copy.deepcopy(each), copy.deepcopy(each)
    other["train"]["micro_batch"] = 3  # parts of three and of one
    one, other = (trained(options, images=4) for options in (one, other))
    expected = weights(one)
    for name, tensor in weights(other).items():
        torch.testing.assert_close(tensor, expected[name], **WHOLE, msg=lambda text, name=name: f"{name}: {text}")
    for name in ("l_d", "l_g_gan", "grad_norm_g", "grad_norm_d", "l_d_r1"):
        assert other.losses[name].item() == pytest.approx(one.losses[name].item(), rel=1e-3), name
    assert len(other.gt) == 4


def test_path_length_of_parts(prior_options):
    prior_options["train"] |= {"micro_batch": 1, "path_batch_shrink": 1}
    model = trained(prior_options)
    assert model.losses["l_g_path"] > 0
    assert model.losses["mean_path_length"] > 0


def test_larger_gradients_are_scaled_down_to_the_limit():
    """Of D(x) = w sum(x) + b with least squares, whose gradients are far above 0.1."""
    net_d = LinearDiscriminator()
    before = torch.stack([net_d.w, net_d.b]).detach().clone()
    optimizer = torch.optim.SGD(net_d.parameters(), lr=1.0)
    parts = [Part(torch.ones(2, 3, 2, 2), torch.ones(2, 3, 2, 2))]

    def gan(logits, target, is_disc):
        return (logits - float(target)).square().mean()

    norm = discriminator_step(net_d, optimizer, parts, gan=gan, guard=NaNGuard(max_norm=0.1))["grad_norm_d"]
    assert norm > 1
    moved = torch.stack([net_d.w, net_d.b]).detach() - before
    assert moved.norm().item() == pytest.approx(0.1, rel=1e-4)


def test_average_by_images_with_a_warm_up(each):
    """StyleGAN2-ADA's: a half-life of 1000 images, at first a twentieth of those seen so far."""
    each["train"].pop("ema_decay", None)
    each["train"] |= {"ema_half_life": 1000, "ema_rampup": 0.05}
    check_run(parsed(each))
    model = trained(each, iterations=1)
    assert model.ema_decay(10) == pytest.approx(0.5 ** (2 / (0.05 * 20)))
    assert model.ema_decay(100_000) == pytest.approx(0.5 ** (2 / 1000))


def test_average_has_one_definition(options):
    options["train"] |= {"ema_half_life": 1000}
    with pytest.raises(GPENError, match="train:ema_half_life: given beside ema_decay"):
        check_run(parsed(options))
    del options["train"]["ema_half_life"]
    options["train"]["ema_rampup"] = 0.05
    with pytest.raises(GPENError, match="train:ema_rampup: given without ema_half_life"):
        check_run(parsed(options))
    del options["train"]["ema_decay"], options["train"]["ema_rampup"]
    assert trained(options, iterations=1).ema_decay(1) == 0.999


@pytest.mark.parametrize(
    "scheduler",
    [
        {"type": "CosineAnnealingLR", "T_max": 6, "eta_min": 1e-5},
        {"type": "LinearLR", "start_factor": 0.5, "total_iters": 4},
        {"type": "CosineAnnealingWarmRestarts", "T_0": 2, "T_mult": 2},
    ],
)
@pytest.mark.parametrize("warmup", [-1, 3])
def test_rates_are_those_of_torchs_scheduler(options, scheduler, warmup):
    options["train"] |= {"scheduler": scheduler, "warmup_iter": warmup}
    check_run(parsed(options))
    model = build_model(ready(options))
    parameter = torch.nn.Parameter(torch.zeros(1))
    arguments = {key: value for key, value in scheduler.items() if key != "type"}
    optimizer = torch.optim.SGD([parameter], lr=0.002)
    expected = getattr(lr_scheduler, scheduler["type"])(optimizer, **arguments)
    for iteration in range(1, 7):
        optimizer.step()
        if iteration > 1:
            expected.step()
        model.optimizer.step()
        model.update_learning_rate(iteration, warmup_iter=warmup)
        rate = 0.002 * iteration / warmup if iteration < warmup else expected.get_last_lr()[0]
        assert model.get_current_learning_rate()[0] == pytest.approx(rate), iteration


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"type": "StepLR"}, "train:scheduler:step_size: missing"),
        ({"type": "StepLR", "step_size": "3"}, "train:scheduler:step_size: got '3'"),
        ({"type": "StepLR", "step_size": 3, "gama": 1}, "train:scheduler:gama: unknown key.*Did you mean 'gamma'"),
        ({"type": "OneCycleLR", "max_lr": 0.1, "total_steps": 4}, "train:scheduler:type: got 'OneCycleLR'"),
        ({"type": "LinearLR", "start_factor": 2.0}, "train:scheduler: ValueError|train:scheduler: raises ValueError"),
    ],
)
def test_wrong_schedulers_are_found_before_the_run(options, scheduler, message):
    options["train"]["scheduler"] = scheduler
    with pytest.raises(GPENError, match=message):
        check_run(parsed(options))


@pytest.mark.parametrize(
    ("each", "optimizer", "scheduler"),
    [
        (
            "options",
            {"type": "AdamW", "weight_decay": 0.1},
            {"type": "CosineAnnealingWarmRestarts", "T_0": 2, "T_mult": 2},
        ),
        ("prior_options", {"type": "SGD", "momentum": 0.9}, {"type": "CosineAnnealingLR", "T_max": 4}),
        ("rival_options", {"type": "RMSprop"}, {"type": "LinearLR", "start_factor": 0.5, "total_iters": 4}),
    ],
    indirect=["each"],
)
def test_stopped_and_resumed_is_the_same_as_not_stopped(each, train, tmp_path, optimizer, scheduler):
    """With parts, clipping, a warm-up that the stop interrupts, and the average by images."""
    set_optimizer(each, lr=1e-3, **optimizer)
    each["train"].pop("ema_decay", None)
    each["train"] |= {"scheduler": scheduler, "warmup_iter": 3, "micro_batch": 1, "max_grad_norm": 0.5}
    each["train"] |= {"ema_half_life": 100, "ema_rampup": 0.05}
    whole = train(each, tmp_path / "whole")
    stopped = copy.deepcopy(each)
    stopped["train"]["total_iter"] = 2
    train(stopped, tmp_path / "parts")
    parts = train(each, tmp_path / "parts", "--auto_resume")
    assert_same(states(whole, 4), states(parts, 4))
    log = max(parts.glob("train_*.log"), key=lambda path: path.stat().st_mtime).read_text()
    changes = [line for line in log.splitlines() if "option file was changed" in line]
    assert [line.rpartition(": train:")[2] for line in changes] == ["total_iter: 2 -> 4"]


def test_moments_of_another_class_of_optimizer_are_dropped():
    def made(cls):
        return cls([{"name": "encoder", "params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.1}])

    old, new = made(torch.optim.Adam), made(torch.optim.RMSprop)
    schedulers = [lr_scheduler.StepLR(optimizer, 3) for optimizer in (old, new)]
    old.param_groups[0]["params"][0].sum().backward()
    old.step()
    state = {
        "optimizers": [old.state_dict()],
        "schedulers": [schedulers[0].state_dict()],
        "optimizer_classes": ["Adam"],
    }
    assert load_optimizers(state, [new], schedulers[1:], lambda: None, where="1.state") == []
    new.param_groups[0]["params"][0].sum().backward()
    new.step()
    assert new.state[new.param_groups[0]["params"][0]]["step"] == 1
