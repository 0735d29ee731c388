"""What a metric has worked out about the ground truth, kept for the next method or validation that meets it again."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """A bounded store of values by picture and settings; the value that was longest unused goes first.

    Args:
        most: how many values are kept.
    """

    def __init__(self, most: int):
        self._most, self._values = most, OrderedDict()

    def of(self, picture: np.ndarray, settings: Hashable, work_out: Callable[[np.ndarray], Value]) -> Value:
        """The value of a picture: looked up by its pixels, or worked out.

        Args:
            picture: any array.
            settings: whatever else the value depends on.
            work_out: makes the value of a picture.
        """
        key = (settings, picture.shape, hashlib.sha256(np.ascontiguousarray(picture)).digest())
        if key not in self._values:
            self._values[key] = work_out(picture)
            if len(self._values) > self._most:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]

    def __len__(self) -> int:
        return len(self._values)
