"""Values that the host takes without looking at them, tried before a run: scheduler, losses, metrics, loggers."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from basicsr.losses.basic_loss import PerceptualLoss
from basicsr.metrics import calculate_metric
from basicsr.models import lr_scheduler

from gpen_plugin.config import schema
from gpen_plugin.errors import GPENError, OptionError
from gpen_plugin.host import is_our_own, resolve

LOSS_MODULES = ("basicsr.losses.basic_loss", "basicsr.losses.gan_loss")
METRIC_MODULES = ("basicsr.metrics.psnr_ssim", "basicsr.metrics.niqe")
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


@dataclass(frozen=True)
class MultiStepOptions:
    """Keys of the host's MultiStepRestartLR, in iterations."""

    milestones: Sequence[float]
    gamma: float = 0.1
    restarts: Sequence[float] = (0,)
    restart_weights: Sequence[float] = (1,)


@dataclass(frozen=True)
class CosineOptions:
    """Keys of the host's CosineAnnealingRestartLR, in iterations."""

    periods: Sequence[float]
    restart_weights: Sequence[float] = (1,)
    eta_min: float = 0


SCHEDULERS = {
    "MultiStepLR": (MultiStepOptions, lr_scheduler.MultiStepRestartLR),
    "MultiStepRestartLR": (MultiStepOptions, lr_scheduler.MultiStepRestartLR),
    "CosineAnnealingRestartLR": (CosineOptions, lr_scheduler.CosineAnnealingRestartLR),
}


def scheduler_problems(section: Mapping, total_iter: int, where: str) -> Iterator[GPENError]:
    """Problems of a scheduler's options: keys, types, and what it does on its way to the last iteration."""
    if "type" not in section:
        yield OptionError(f"{where}:type", "missing", "one of " + ", ".join(SCHEDULERS), "Add the key.")
        return
    if not isinstance(section["type"], str) or section["type"] not in SCHEDULERS:
        yield schema.unknown_name(section["type"], list(SCHEDULERS), f"{where}:type")
        return
    keys, scheduler = SCHEDULERS[section["type"]]
    options = {key: value for key, value in section.items() if key != "type"}
    problems = schema.validate(keys, options, where)
    yield from problems or _stepped(scheduler, options, total_iter, where)


def _stepped(scheduler: type, options: Mapping, total_iter: int, where: str) -> Iterator[GPENError]:
    """Step a scheduler at each iteration where its rule changes, and at the last one."""
    periods = options.get("periods")
    if periods and sum(periods) < total_iter - 1:  # its first step is at iteration 2
        got = f"add up to {sum(periods)}, and train:total_iter is {total_iter}"
        yield OptionError(f"{where}:periods", got, "at least train:total_iter", "Raise the last period.")
        return
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    iteration = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is stepped without its optimiser
            trial = scheduler(optimizer, **options)
            for iteration in _turning_points(options, total_iter):
                trial.last_epoch = iteration - 1
                trial.step()
    except Exception as error:  # of any kind: the host checks nothing
        got = f"ends in {_told(error)}" + (f" at iteration {iteration + 1}" if iteration else "")
        yield OptionError(where, got, "values with which it reaches train:total_iter")


def _turning_points(options: Mapping, total_iter: int) -> list[int]:
    lists = [value for value in options.values() if isinstance(value, Sequence)]
    named = [number for value in lists for number in (*value, *accumulate(value))]
    around = {int(number) + step for number in named for step in (-1, 0, 1)} | {1, total_iter - 1}
    return sorted(point for point in around if 1 <= point < total_iter)


def loss_trial(opt: Mapping, name: str, where: str) -> Iterator[GPENError]:
    """Problems of a loss's values: build it as the model will, and call it, unless it is of another package.

    Args:
        opt: options of the run.
        name: of the section of ``train:``.
        where: key path of the section.
    """
    options = opt["train"][name]
    cls = resolve("loss", options["type"])
    arguments = {key: value for key, value in options.items() if key != "type"}
    if cls is PerceptualLoss and name != "pixel_opt":
        yield OptionError(f"{where}:type", "got PerceptualLoss, which gives two losses", "a loss that gives one")
    elif cls is PerceptualLoss:
        low = (opt["network_g"].get("value_range") or (-1, 1))[0]
        if bool(options.get("range_norm")) != (low < 0):
            expected = f"{str(low < 0).lower()}, for images from {low:g} to 1"
            yield OptionError(f"{where}:range_norm", f"got {options.get('range_norm', False)}", expected)
        else:  # not called: its layers need larger images than 4 px
            yield from _tried(lambda: cls(**arguments), where)
    elif is_our_own(cls):
        yield from _tried(lambda: _ask_for_layers(cls(**arguments), opt), where)
    elif cls.__module__ in LOSS_MODULES:
        problems = [*texts_for_numbers(options, where)]
        yield from problems or _tried(lambda: _call_loss(cls(**arguments), name), where)


def _ask_for_layers(loss: torch.nn.Module, opt: Mapping) -> None:
    size = opt["network_d"].get("out_size")
    if hasattr(loss, "chosen_layers") and isinstance(size, int) and size > 0:
        loss.chosen_layers(size.bit_length() - 2)  # as many as D has: log2(size) - 1


def _call_loss(loss: torch.nn.Module, name: str) -> None:
    given = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    value = loss(given, True, is_disc=False) if name == "gan_opt" else loss(given, torch.zeros(2, 3, 4, 4))
    if not isinstance(value, torch.Tensor) or value.ndim:
        shape = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise OptionError("reduction", f"the loss has the shape {shape}", "one number", "Set reduction to mean.")


def metric_trial(metric: Mapping, size: int, where: str) -> Iterator[GPENError]:
    """Problems of a metric's values: measure a pair of images, unless that needs files or another package.

    Args:
        metric: its options, whose keys are right.
        size: side of the images that the run makes.
        where: key path of the metric.
    """
    function = resolve("metric", metric["type"])
    if function.__module__ in METRIC_MODULES:
        problems = [*texts_for_numbers(metric, where)]
        if problems:
            yield from problems
            return
    elif metric["type"] != "calculate_swd":
        return
    ramp = np.linspace(0, 255, size)
    image = np.repeat((ramp[:, None] / 2 + ramp / 2).astype(np.uint8)[:, :, None], 3, axis=2)  # (size, size, 3)
    noise = np.random.default_rng(0).integers(0, 64, image.shape, np.uint8)

    def measure() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty image
            value = calculate_metric({"img": image // 2 + noise, "img2": image}, dict(metric))
            if metric["type"] != "calculate_niqe" and not np.isfinite(float(value / 1)):
                got = f"images of {size} px give {float(value)}"
                raise OptionError(metric["type"], got, "a number", "Is crop_border larger than half the image?")

    yield from _tried(measure, where)


def texts_for_numbers(section: Mapping, where: str) -> Iterator[GPENError]:
    """Numbers that came as texts, in a section of a class of the host's, which would calculate with them."""
    for key, value in section.items():
        if isinstance(value, str) and key != "type" and NUMBER.fullmatch(value):
            yield schema.wrong_type(f"{where}:{key}", value, float)


def loggers(opt: Mapping) -> Iterator[GPENError]:
    """Packages that TensorBoard and Weights & Biases need, which the host imports once the experiment is there."""
    section = opt.get("logger")
    if not opt["is_train"] or not isinstance(section, Mapping) or "debug" in str(opt.get("name")):
        return
    uses_tensorboard, wandb = section.get("use_tb_logger"), section.get("wandb")
    if isinstance(wandb, Mapping) and wandb.get("project") is not None:
        if uses_tensorboard is not True:
            expected = "true, as wandb receives what TensorBoard's files hold"
            hint = "Set it to true, or logger:wandb:project to ~."
            yield OptionError("logger:use_tb_logger", f"got {uses_tensorboard}", expected, hint)
        yield from _importable("wandb", "init", "logger:wandb:project", "wandb")
    if uses_tensorboard:
        yield from _importable("torch.utils.tensorboard", "SummaryWriter", "logger:use_tb_logger", "tensorboard")


def _importable(module: str, attribute: str, where: str, package: str) -> Iterator[GPENError]:
    try:
        getattr(__import__(module, fromlist=[attribute]), attribute)  # a folder of that name has no attributes
    except Exception as error:  # of any kind: a broken installation
        got = f"{module} cannot be imported ({_told(error)})"
        yield OptionError(where, got, f"the package {package}", f"Run: pip install {package}. Or switch it off.")


def _tried(build: Callable[[], object], where: str) -> Iterator[GPENError]:
    """What goes wrong when `build` is called, under the key path `where`."""
    try:
        build()
    except GPENError as error:
        yield error.under(where)
    except Exception as error:  # of any kind: the host checks nothing
        yield OptionError(where, _told(error), "values that it can use", "Change them.")


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
