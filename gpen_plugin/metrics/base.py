"""What the metrics share: accumulators for sets, checks of images and options, a cache, NaN if weights are missing."""

import functools
import hashlib
import inspect
import logging
import math
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from copy import copy
from typing import Generic, TypeVar

import numpy as np

from gpen_plugin.config import schema
from gpen_plugin.errors import CheckpointError, GPENError, MissingFileError, OptionError, ShapeError

FEATURE_METRICS = ("calculate_fid", "calculate_kid", "calculate_precision", "calculate_recall")
LOWER_IS_BETTER = tuple(f"calculate_{name}" for name in ("niqe", "swd", "lpips", "lmd", "rmse", "fid", "kid"))
HIGHER_IS_BETTER = tuple(f"calculate_{name}" for name in ("psnr", "ssim", "precision", "recall"))
BEST_DIRECTION = dict.fromkeys(LOWER_IS_BETTER, "lower") | dict.fromkeys(HIGHER_IS_BETTER, "higher")
NIQE_MIN_SIDE = 192  # pixels; the host's NIQE fits a Gaussian to blocks of 96 px, and one block has no covariance
MODEL_KEYS = {"type", "better"}  # keys of a metric that the host's model reads
TRIED_MODULES = ("basicsr.metrics.psnr_ssim", "basicsr.metrics.niqe")  # they compute with any value
IMAGE_ARGUMENTS = {"img", "img2", "landmarks"}  # of a metric; the host passes the first two, an evaluation the third


class SetAccumulator(ABC):
    """Sum over the pairs of a metric of whole sets; the host adds and divides it as it does a number.

    Its value does not depend on the order of pairs or ranks. It can be pickled, which a distributed validation does.
    """

    def __init__(
        self,
        key: bytes,  # digest of a pair's contents, by which `records` sorts
        record: object,  # what the formula needs of this pair
    ):
        self._records = [(key, record)]

    def __len__(self) -> int:
        return len(self._records)

    def __add__(self, other: "SetAccumulator | float") -> "SetAccumulator | float":
        total = copy(self)
        total._records = [*self._records]
        return total.__iadd__(other)

    __radd__ = __add__  # 0 + pair: the host's sum starts with 0

    def __iadd__(self, other: "SetAccumulator | float") -> "SetAccumulator | float":
        if isinstance(other, float) and math.isnan(other):  # one pair without a value: as in any sum, the total is NaN
            return other
        if isinstance(other, (int, float)) and other == 0:  # the sum of a rank without images
            return self
        if type(other) is not type(self):
            return NotImplemented
        self.check_fits(other)
        self._records += other._records
        return self

    def __truediv__(self, count: int) -> float:
        # the host divides by the number of pairs; another number means that some were lost or doubled
        assert count == len(self), f"{len(self)} pairs were added up, and {count} counted"
        return self.value()

    def records(self) -> list:
        """The record of each pair, in an order that depends only on the contents: sums are the same to the bit."""
        return [record for _, record in sorted(self._records, key=lambda pair: pair[0])]

    @abstractmethod
    def check_fits(self, other: "SetAccumulator") -> None:
        """Raise a GPENError if `other`, of the same class, cannot be added to this one."""

    @abstractmethod
    def value(self) -> float:
        """The metric over all pairs."""


def nan_if_weights_missing(metric: Callable) -> Callable:
    """Decorate a metric, below ``@register("metric")``: NaN and one line in the log if a file is missing or damaged."""
    # So a training does not end at its first validation for a file that it does not train with. When the file is there,
    # the next image has a value. `inspect.unwrap` gives the metric that raises.

    @functools.wraps(metric)
    def measured_or_nan(*images, **options):
        try:
            return metric(*images, **options)
        except (MissingFileError, CheckpointError) as error:
            _warn_once(f"{metric.__name__} gives no values. {error}")
            return math.nan

    return measured_or_nan


@functools.cache
def _warn_once(line: str) -> None:
    logging.getLogger("basicsr").warning(line)


def check_image(name: str, image: np.ndarray, min_side: int = 1) -> None:
    """ShapeError unless the argument `name` is (H, W, 3) uint8 with sides of at least `min_side` pixels."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(name, f"got shape {image.shape} of {image.dtype}", "(H, W, 3) of uint8")
    if min(image.shape[:2]) < min_side:
        raise ShapeError(name, f"got {_size(image)} px", f"at least {min_side} px", "Remove this metric.")


def check_pair(img: np.ndarray, img2: np.ndarray, min_side: int = 1) -> None:
    """`check_image` of both, and ShapeError if they differ in size."""
    check_image("img", img, min_side)
    check_image("img2", img2, min_side)
    if img.shape != img2.shape:
        got = f"got {_size(img)} px beside {_size(img2)} px of img2"
        raise ShapeError("img", got, "two images of one size", "Resize one of them.")


def check_better(given: str | None, right: str, reason: str) -> None:
    """OptionError if the option would make the host search for the worst value; None is not checked."""
    if given not in (None, right):
        raise OptionError("better", f"got {given!r}", right, reason)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


def check_metric_keys(function: object, metric: Mapping, where: str) -> Iterator[GPENError]:
    """Errors in the keys of a metric, by its signature; the host's metrics would ignore unknown keys."""
    if function.__module__.startswith("gpen_plugin."):
        images = dict.fromkeys(IMAGE_ARGUMENTS)
        problems = schema.validate(function, images | {k: v for k, v in metric.items() if k != "type"}, where)
        suffixes = tuple(f":{name}" for name in IMAGE_ARGUMENTS)
        yield from (problem for problem in problems if not problem.where.endswith(suffixes))
        return
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name not in IMAGE_ARGUMENTS]
    if function.__module__.startswith("basicsr."):
        names = [p.name for p in named]
        for key in metric:
            if key not in MODEL_KEYS and key not in names:
                yield schema.unknown_key(key, names, where)
    for p in named:
        if p.default is p.empty and p.name not in metric:
            hint = "Add crop_border: 0." if p.name == "crop_border" else "Add the key."
            yield OptionError(f"{where}:{p.name}", "missing", "this key in every use of the metric", hint)


def check_direction(kind: str, metric: Mapping, where: str) -> Iterator[GPENError]:
    """BasicSR records the validation with the highest value as the best, unless ``better`` is lower."""
    best = BEST_DIRECTION.get(kind)
    if kind == "calculate_identity":
        best = "lower" if metric.get("unit") == "degrees" else "higher"
    given = metric.get("better") or "higher"
    if best not in (None, given):
        got = f"got {given}" if metric.get("better") else "missing, which means higher"
        yield OptionError(f"{where}:better", got, best, "Otherwise the worst validation is recorded as the best.")


def try_metric(function: Callable, metric: Mapping, size: int, where: str) -> Iterator[GPENError]:
    """Compute a metric with valid keys on a pair of images of `size` px, unless it needs files or another package."""
    if function.__module__ in TRIED_MODULES:
        problems = [*schema.numbers_as_text(metric, where)]
        if problems:
            yield from problems
            return
    elif metric["type"] != "calculate_swd":
        return
    from basicsr.metrics import calculate_metric

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

    yield from schema.try_call(measure, where)


Value = TypeVar("Value")


class ContentCache(Generic[Value]):
    """Values by image and settings, at most `size` of them; the least recently used one is dropped."""

    def __init__(self, size: int):
        self._size, self._values = size, OrderedDict()

    def get_or_compute(self, image: np.ndarray, settings: Hashable, compute: Callable[[np.ndarray], Value]) -> Value:
        """``compute(image)``, or its earlier result for an equal image and equal settings."""
        key = (settings, image.shape, hashlib.sha256(np.ascontiguousarray(image)).digest())
        if key not in self._values:
            self._values[key] = compute(image)
            if len(self._values) > self._size:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]

    def __len__(self) -> int:
        return len(self._values)
