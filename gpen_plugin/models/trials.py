"""Trials of data sets, optimizers, schedulers and losses before a run: BasicSR takes their options without a check."""

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from itertools import accumulate

import torch
from basicsr.losses.basic_loss import PerceptualLoss
from basicsr.models import lr_scheduler

from gpen_plugin.config import schema
from gpen_plugin.config.train_options import (
    CosineOptions,
    LinearDecayOptions,
    MultiStepOptions,
    optimizer_class,
)
from gpen_plugin.errors import DataError, GPENError, OptionError
from gpen_plugin.host import resolve
from gpen_plugin.models.adversarial_model import TORCH_SCHEDULERS, LinearDecayLR, scheduler_class
from gpen_plugin.models.loss_terms import LossEntry
from gpen_plugin.models.train_state import preserve_rng_state
from gpen_plugin.nets.vgg import vgg19_of

LOSS_MODULES = ("basicsr.losses.basic_loss", "basicsr.losses.gan_loss")
HOST_SCHEDULERS = {
    "MultiStepLR": (MultiStepOptions, lr_scheduler.MultiStepRestartLR),
    "MultiStepRestartLR": (MultiStepOptions, lr_scheduler.MultiStepRestartLR),
    "CosineAnnealingRestartLR": (CosineOptions, lr_scheduler.CosineAnnealingRestartLR),
    "LinearDecayLR": (LinearDecayOptions, LinearDecayLR),
}
SCHEDULERS = (*HOST_SCHEDULERS, *TORCH_SCHEDULERS)


def try_dataset(
    cls: type,
    data: Mapping,  # its section
    needed: Sequence[str],  # keys of an item that the model reads
    size: int | None,  # side of the generator's images
    where: str,
) -> tuple[list[GPENError], int]:
    """Make a data set and read its first item. Returns the problems, and the number of items."""
    opened: list[tuple[int, object]] = []
    problems = [*schema.try_call(lambda: opened.append(_open(cls, data)), where)]
    if problems:
        return problems, 0
    (count, item), *_ = opened
    if not count:
        roots = ", ".join(f"{key}: {value}" for key, value in data.items() if key.startswith("dataroot"))
        hint = f"Check {roots or 'its keys'}."
        return [DataError(where, f"{cls.__name__} has no images", "at least one", hint)], 0
    return [*schema.try_call(lambda: _check_item(item, needed, size), where)], count


def _open(cls: type, data: Mapping) -> tuple[int, object]:
    """The length of a set and its first item, None if it is empty. OptionError: a key that the set reads is missing."""
    try:
        dataset = cls(deepcopy(dict(data)))
        return len(dataset), dataset[0] if len(dataset) else None
    except KeyError as error:
        if not error.args or error.args[0] in data:
            raise
        raise OptionError(str(error.args[0]), "missing", f"a key that {cls.__name__} reads", "Add it.") from error


def _check_item(item: object, needed: Sequence[str], size: int | None) -> None:
    """Raise an OptionError unless an item has the needed images, of the generator's size."""
    if not isinstance(item, Mapping):
        raise OptionError("type", f"its items are {type(item).__name__}", "dictionaries with gt, and lq of pairs")
    for key in needed:
        if key not in item:
            found = ", ".join(map(str, item)) or "nothing"
            raise OptionError("type", f"its items have {found}", f"{key}, a tensor (3, H, W)", "See docs/EXTENDING.md.")
    side = tuple(item["gt"].shape[1:]) if "gt" in item else None
    if size and side not in (None, (size, size)):
        got, hint = f"gives ground truth of {side[1]} x {side[0]} px", "Resize the images, or set gt_size."
        raise OptionError("gt", got, f"network_g:out_size, {size}", hint)


def try_scheduler(section: Mapping, total_iter: int, where: str) -> Iterator[GPENError]:
    """Problems of a scheduler's options: keys, types, and exceptions until the last iteration."""
    if "type" not in section:
        yield OptionError(f"{where}:type", "missing", "one of " + ", ".join(SCHEDULERS), "Add the key.")
        return
    if not isinstance(section["type"], str) or section["type"] not in SCHEDULERS:
        yield schema.unknown_name(section["type"], list(SCHEDULERS), f"{where}:type")
        return
    options = {key: value for key, value in section.items() if key != "type"}
    if section["type"] in TORCH_SCHEDULERS:
        scheduler = scheduler_class(section["type"])
        problems = schema.validate(partial(scheduler, None), options, where, typed=False)
        problems += schema.numbers_as_text(options, where)
    else:
        keys, scheduler = HOST_SCHEDULERS[section["type"]]
        problems = schema.validate(keys, options, where)
    yield from problems or _step_scheduler(scheduler, options, total_iter, where)


def try_optimizer(target: type, section: Mapping, where: str) -> Iterator[GPENError]:
    """Build an optimizer and let it step, on parameters of the shapes that networks have."""
    optim = target(**section)
    parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in ((2, 2, 1, 1), (2, 2), (2,), (1,))]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    problems = [*schema.numbers_as_text(optim.arguments, where)]
    build = partial(optimizer_class(optim.type), parameters, lr=optim.lr, **optim.arguments)
    yield from problems or schema.try_call(lambda: build().step(), where)


def _step_scheduler(scheduler: type, options: Mapping, total_iter: int, where: str) -> Iterator[GPENError]:
    """Step a scheduler around each of its milestones and at the last iteration."""
    periods = options.get("periods")
    if periods and sum(periods) < total_iter - 1:  # its first step is at iteration 2
        got = f"add up to {sum(periods)}, and train:total_iter is {total_iter}"
        yield OptionError(f"{where}:periods", got, "at least train:total_iter", "Raise the last period.")
        return
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    iteration = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is stepped without its optimizer
            trial = scheduler(optimizer, **options)
            for iteration in _turning_points(options, total_iter):
                trial.last_epoch = iteration - 1
                trial.step()
    except Exception as error:  # of any kind: BasicSR checks nothing
        got = f"raises {schema.one_line(error)}" + (f" at iteration {iteration + 1}" if iteration else "")
        yield OptionError(where, got, "values with which it reaches train:total_iter")


def _turning_points(options: Mapping, total_iter: int) -> list[int]:
    lists = [value for value in options.values() if isinstance(value, Sequence)]
    named = [number for value in lists for number in (*value, *accumulate(value))]
    around = {int(number) + step for number in named for step in (-1, 0, 1)} | {1, total_iter - 1}
    return sorted(point for point in around if 1 <= point < total_iter)


def try_loss(opt: Mapping, entry: LossEntry) -> Iterator[GPENError]:
    """Build a loss as the model will, and call it if it is one of BasicSR's plain ones."""
    options, where = entry.options, entry.where
    cls = resolve("loss", options["type"])
    arguments = {key: value for key, value in options.items() if key != "type"}
    perceptual = inspect.isclass(cls) and issubclass(cls, PerceptualLoss)
    if perceptual and entry.on != "pixel":
        yield OptionError(f"{where}:type", "got PerceptualLoss, which returns two losses", "a loss that returns one")
    elif perceptual:
        low = (entry.value_range or opt["network_g"].get("value_range") or (-1, 1))[0]
        # without ImageNet's normalization images may enter in any range
        if options.get("use_input_norm", True) and bool(options.get("range_norm")) != (low < 0):
            expected = f"{str(low < 0).lower()}, for images from {low:g} to 1"
            yield OptionError(f"{where}:range_norm", f"got {options.get('range_norm', False)}", expected)
        else:
            yield from _perceptual(cls, options, arguments, where)
    elif cls.__module__ in LOSS_MODULES:
        problems = [*schema.numbers_as_text(options, where)]
        yield from problems or schema.try_call(lambda: _call_loss(cls(**arguments), entry.on), where)
    else:  # weights that it does not find, for example
        with preserve_rng_state():
            yield from schema.try_call(lambda: cls(**arguments), where)


def _perceptual(cls: type, options: Mapping, arguments: Mapping, where: str) -> Iterator[GPENError]:
    """Build BasicSR's PerceptualLoss; it is not called, because its layers need larger images than 4 px."""
    try:
        with vgg19_of(options, where):
            yield from schema.try_call(lambda: cls(**arguments), where)
    except GPENError as error:
        yield error


def _call_loss(loss: torch.nn.Module, on: str) -> None:
    given = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    more = {"logits": (True, False), "output": ()}.get(on, (torch.zeros(2, 3, 4, 4),))
    value = loss(given, *more)
    if not isinstance(value, torch.Tensor) or value.ndim:
        shape = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise OptionError("reduction", f"the loss has the shape {shape}", "one number", "Set reduction to mean.")
