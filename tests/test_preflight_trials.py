"""Values that the host takes without looking at them are tried before a run, and what it would run is not refused."""

import sys
import types
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from basicsr.losses import basic_loss
from basicsr.metrics import calculate_metric
from basicsr.models.lr_scheduler import CosineAnnealingRestartLR, MultiStepRestartLR
from test_preflight import parsed, put
from torch.optim import SGD

from gpen_plugin.errors import GPENError
from gpen_plugin.preflight import check_run

COSINE = {"type": "CosineAnnealingRestartLR", "periods": [4, 2], "restart_weights": [1, 0.5], "eta_min": 1e-7}
STEPS = {"type": "MultiStepRestartLR", "milestones": [2, 5], "gamma": 0.5}


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({**COSINE, "periods": [2, 2]}, "scheduler:periods: add up to 4, and train:total_iter is 6; expected at least"),
        ({**COSINE, "periods": 10}, "scheduler:periods: got 10 .*expected a list of a number"),
        ({**COSINE, "periods": [6]}, "scheduler: raises AssertionError: periods and restart_weights"),
        ({**COSINE, "periods": [0, 6]}, "scheduler: raises ZeroDivisionError"),
        ({**COSINE, "eta_min": "1e-7"}, "scheduler:eta_min: got '1e-7'.*write !!float 1e-7"),
        ({**COSINE, "milestones": [3]}, "scheduler:milestones: unknown key"),
        ({**STEPS, "gamma": "5e-1"}, "scheduler:gamma: got '5e-1'.*write !!float 5e-1"),
        ({**STEPS, "milestones": 1000}, "scheduler:milestones: got 1000 .*expected a list of a number"),
        ({**STEPS, "milestones": ["1e5"]}, "scheduler:milestones: got .*expected a list of a number"),
        ({**STEPS, "restarts": [0, 3]}, "scheduler: raises AssertionError: restarts and their weights do not match"),
        ({**STEPS, "restarts": [0, 3], "restart_weights": [1, None]}, "scheduler:restart_weights: got"),
        ({"type": ["MultiStepLR"]}, "scheduler:type: got"),
        ({}, "train:scheduler:type: missing"),
    ],
)
def test_a_scheduler_that_would_end_the_training(options, scheduler, message):
    put(options, "train:scheduler", scheduler)
    with pytest.raises(GPENError, match=message):
        check_run(parsed(options))


@pytest.mark.filterwarnings("ignore:Detected call of")  # its optimizer takes no steps
@pytest.mark.parametrize("total_iter", [5, 6, 7, 8])
def test_periods_are_refused_where_the_host_runs_off_them(options, total_iter):
    """As the host steps: not at the first iteration, so periods of 6 last for 7 iterations."""

    put(options, "train:total_iter", total_iter)
    put(options, "train:scheduler", COSINE)
    scheduler = CosineAnnealingRestartLR(SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), [4, 2], [1, 0.5])
    if total_iter == 8:
        with pytest.raises(GPENError, match="train:scheduler:periods: add up to 6, and train:total_iter is 8"):
            check_run(parsed(options))
    else:
        check_run(parsed(options))
    for iteration in range(2, total_iter + 1):
        if iteration == 8:
            with pytest.raises(TypeError, match="NoneType"):
                scheduler.step()
        else:
            scheduler.step()


def test_a_scheduler_of_many_iterations_is_tried_at_few(options, monkeypatch):
    steps = []
    monkeypatch.setattr(MultiStepRestartLR, "step", lambda self: steps.append(self.last_epoch + 1))
    put(options, "train:total_iter", 800_000)
    put(options, "train:scheduler", {**STEPS, "milestones": [400_000, 600_000]})
    check_run(parsed(options))
    assert {400_000, 600_000, 799_999} <= set(steps)
    assert len(steps) < 40


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train:pixel_opt:loss_weight", "1e-2", "train:pixel_opt:loss_weight: got '1e-2'.*write !!float 1e-2"),
        ("train:gan_opt:loss_weight", "1", "train:gan_opt:loss_weight: got '1'.*without quotes"),
        ("train:gan_opt:loss_weight", [1], "train:gan_opt: TypeError"),
        ("train:pixel_opt:reduction", "none", r"train:pixel_opt:reduction: the loss has the shape \[2, 3, 4, 4\]"),
        ("train:pixel_opt", {"type": "GANLoss", "gan_type": "wgan", "x": 1}, "train:pixel_opt:x: unknown key"),
        (
            "train:gan_opt",
            {"type": "PerceptualLoss", "layer_weights": {}},
            "train:gan_opt:type: got PerceptualLoss, which returns two losses; expected a loss that returns one",
        ),
        (
            "train:pixel_opt",
            {"type": "PerceptualLoss", "layer_weights": {}},
            "train:pixel_opt:range_norm: got False; expected true, for images from -1 to 1",
        ),
        ("val:metrics:psnr:crop_border", "0", "val:metrics:psnr:crop_border: got '0'.*Write 0 without quotes"),
        ("val:metrics:psnr:crop_border", None, "val:metrics:psnr: TypeError"),
        ("val:metrics:psnr:crop_border", 16, "val:metrics:psnr:calculate_psnr: images of 32 px give nan"),
        ("val:metrics:psnr:input_order", "HCW", "val:metrics:psnr: ValueError: Wrong input_order HCW"),
        ("val:metrics:psnr", {"type": "calculate_psnr_pt", "crop_border": 0}, "val:metrics:psnr: "),
        ("val:metrics:psnr", {"type": "calculate_swd", "better": "lower", "patches": 0}, "metrics:psnr:patches: got 0"),
        ("datasets:train:num_worker_per_gpu", "0", "datasets:train:num_worker_per_gpu: got '0'"),
        ("datasets:train:prefetch_mode", "cuda", "datasets:train:pin_memory: missing; expected true"),
        ("datasets:train_2", {}, "datasets:train_2: got train_2; expected train, val"),
        ("datasets:val_2", {"type": "GPENFaceDataset"}, "datasets:val_2:name: missing"),
    ],
)
def test_values_that_would_end_the_training_later(options, path, value, message):
    put(options, path, value)
    with pytest.raises(GPENError, match=message):
        check_run(parsed(options))


@pytest.mark.parametrize("offline", [False, True])
def test_a_perceptual_loss_is_built_before_the_run(options, monkeypatch, offline):
    def extractor(**_):
        if offline:
            raise OSError("no network")
        return torch.nn.Identity()

    monkeypatch.setattr(basic_loss, "VGGFeatureExtractor", extractor)
    monkeypatch.setattr("gpen_plugin.nets.vgg.find_weights", lambda *_, **__: "vgg19.pth")
    perceptual = {"type": "PerceptualLoss", "layer_weights": {"conv5_4": 1.0}, "range_norm": True}
    put(options, "train:pixel_opt", perceptual)
    with pytest.raises(GPENError, match="train:pixel_opt: OSError: no network") if offline else nullcontext():
        check_run(parsed(options))


@pytest.mark.parametrize(
    "metric",
    [
        {"type": "calculate_psnr", "crop_border": 15, "test_y_channel": True},
        {"type": "calculate_ssim", "crop_border": 0, "better": "higher"},
        {"type": "calculate_swd", "better": "lower"},
    ],
)
def test_metrics_that_the_host_can_measure_pass(options, metric):
    put(options, "val:metrics", {"it": metric})
    check_run(parsed(options))
    images = {name: np.full((32, 32, 3), value, np.uint8) for name, value in (("img", 3), ("img2", 9))}
    assert calculate_metric(images, metric) is not None


@pytest.fixture
def without(monkeypatch):
    """Makes a module one that cannot be imported, or a folder of its name, as wandb leaves where it ran."""

    def remove(module: str, *, folder: bool = False) -> None:
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module) if folder else None)

    return remove


@pytest.mark.parametrize("folder", [False, True])
def test_wandb_that_is_not_installed(options, without, folder):
    options["logger"]["wandb"] = {"project": "mine", "resume_id": None}
    without("wandb", folder=folder)
    with pytest.raises(GPENError, match=r"logger:wandb:project: wandb cannot be imported .*Run: pip install wandb"):
        check_run(parsed(options))
    check_run(parsed({**options, "name": "debug_it"}))  # where the host uses neither
    options["logger"]["wandb"]["project"] = None
    check_run(parsed(options))


def test_wandb_needs_tensorboard(options, monkeypatch, without):
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=print))
    options["logger"]["wandb"] = {"project": "mine"}
    check_run(parsed(options))
    without("torch.utils.tensorboard")
    with pytest.raises(GPENError, match=r"logger:use_tb_logger: torch\.utils\.tensorboard cannot be imported"):
        check_run(parsed(options))
    options["logger"]["use_tb_logger"] = False
    with pytest.raises(GPENError, match="logger:use_tb_logger: got False; expected true"):
        check_run(parsed(options))
