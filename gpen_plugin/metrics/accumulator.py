"""How a metric that compares two sets of pictures fits the host's validation.

The host asks a metric about one pair of pictures at a time, adds the answers up from 0 and divides the sum by their
number. A metric of single pictures answers with a number. One of whole sets answers with a `SetAccumulator`, which
holds what the formula will need of the pair: adding brings the sets together, and the division at the end applies the
formula, which lives in a function of its own and knows nothing of all this.
"""

import math
from abc import ABC, abstractmethod
from copy import copy


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
        if isinstance(other, (int, float)) and other == 0:  # the share of a rank that saw no picture
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
