"""Base of the metrics: accumulators for sets, checks of images, caching, NaN where weights are missing."""

import functools
import hashlib
import logging
import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable
from copy import copy
from typing import Generic, TypeVar

import numpy as np

from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError, ShapeError


class SetAccumulator(ABC):
    """What a metric of whole sets keeps of the pairs seen so far.

    It can be pickled, so that each rank of a distributed validation may count its share and send it to the others. The
    value does not depend on the order in which pairs came or ranks were added.

    Args:
        key: a digest of a pair's contents: decides its place among the others, wherever and whenever it was seen.
        record: what the formula needs of this pair.
    """

    def __init__(self, key: bytes, record: object):
        self._records = [(key, record)]

    def __len__(self) -> int:
        """How many pairs were added up."""
        return len(self._records)

    def __add__(self, other: "SetAccumulator | float") -> "SetAccumulator | float":
        total = copy(self)
        total._records = [*self._records]
        return total.__iadd__(other)

    __radd__ = __add__  # 0 + pair: where the host's sum begins

    def __iadd__(self, other: "SetAccumulator | float") -> "SetAccumulator | float":
        if isinstance(other, float) and math.isnan(
            other
        ):  # a pair without a value: its set has none, as sums have none
            return other
        if isinstance(other, (int, float)) and other == 0:  # the share of a rank that saw no image
            return self
        if type(other) is not type(self):
            return NotImplemented
        self.check_fits(other)
        self._records += other._records
        return self

    def __truediv__(self, count: int) -> float:
        """The value. The host divides by the number of pairs; another number means that some were lost or doubled."""
        assert count == len(self), f"{len(self)} pairs were added up, and {count} counted"
        return self.value()

    def records(self) -> list:
        """The record of each pair, in an order that only the contents decide: sums come out the same to the bit."""
        return [record for _, record in sorted(self._records, key=lambda pair: pair[0])]

    @abstractmethod
    def check_fits(self, other: "SetAccumulator") -> None:
        """Raise an error of ours if `other`, of the same class, cannot be added to this one."""

    @abstractmethod
    def value(self) -> float:
        """The metric over all pairs that were added up."""


def nan_if_weights_missing(metric: Callable) -> Callable:
    """Decorator of a metric, below ``@register("metric")``: where a file is missing or damaged, its value is NaN.

    Else a training would end at its first validation for want of a file that it does not train with. The log says once
    which file it is and where to get it; once it is there, the next image has a value. ``inspect.unwrap`` gives the
    metric that raises.
    """

    @functools.wraps(metric)
    def measured_or_nan(*images, **options):
        try:
            return metric(*images, **options)
        except (MissingFileError, CheckpointError) as error:
            _tell_once(f"{metric.__name__} gives no values. {error}")
            return math.nan

    return measured_or_nan


@functools.cache
def _tell_once(line: str) -> None:
    logging.getLogger("basicsr").warning(line)


def check_image(name: str, image: np.ndarray, smallest: int = 1) -> None:
    """ShapeError if `image` is no colour image of 8 bits, or has a side below `smallest` pixels.

    Args:
        name: of the argument, for the error.
        image: (H, W, 3) uint8.
        smallest: side in pixels.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(name, f"got shape {image.shape} of {image.dtype}", "(H, W, 3) of uint8")
    if min(image.shape[:2]) < smallest:
        raise ShapeError(name, f"got {_size(image)} px", f"at least {smallest} px", "Remove this metric.")


def check_pair(img: np.ndarray, img2: np.ndarray, smallest: int = 1) -> None:
    """`check_image` of both, and ShapeError if they differ in size."""
    check_image("img", img, smallest)
    check_image("img2", img2, smallest)
    if img.shape != img2.shape:
        got = f"got {_size(img)} px beside {_size(img2)} px of img2"
        raise ShapeError("img", got, "two images of one size", "Resize one of them.")


def check_better(given: str | None, right: str, why: str) -> None:
    """OptionError if the host was told to look for the worst value instead of the best; None leaves it untold."""
    if given not in (None, right):
        raise OptionError("better", f"got {given!r}", right, why)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


Value = TypeVar("Value")


class ContentCache(Generic[Value]):
    """A bounded store of values by image and settings; the value that was longest unused goes first.

    Args:
        most: how many values are kept.
    """

    def __init__(self, most: int):
        self._most, self._values = most, OrderedDict()

    def of(self, image: np.ndarray, settings: Hashable, work_out: Callable[[np.ndarray], Value]) -> Value:
        """The value of an image: looked up by its pixels, or worked out.

        Args:
            image: any array.
            settings: whatever else the value depends on.
            work_out: makes the value of an image.
        """
        key = (settings, image.shape, hashlib.sha256(np.ascontiguousarray(image)).digest())
        if key not in self._values:
            self._values[key] = work_out(image)
            if len(self._values) > self._most:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]

    def __len__(self) -> int:
        return len(self._values)
