"""What a benchmark finds: two ways to the same result, held against each other."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Two ways to the same result.

    Attributes:
        what: "GPEN 256 px, released width, fp32".
        baseline: what costs more, in words.
        ours: what stands against it, in words.
        baseline_seconds: of one call, one per round; empty where time was not measured.
        our_seconds: the same, of the same rounds.
        target: the ratio wanted; ``None`` shows it for information.
        limit: the seconds that one call of ours may take at most; ``None`` sets none.
        items: images, faces or steps of one call.
        flop: of one call of ours, a multiply-add counted as two.
        dtype: whose peak `flop` is held against: ``fp32`` or ``bf16``.
        peak: that peak, FLOP/s, measured in the same run; 0 where there is none.
        error: how the results of both were held together: "largest difference 3e-6 of the range".
        memory: peak bytes of the baseline and of ours.
        memory_target: the ratio of these wanted.
        note: what limits it, what was tried.
    """

    what: str
    baseline: str
    ours: str
    baseline_seconds: Sequence[float]
    our_seconds: Sequence[float]
    target: float | None = None
    limit: float | None = None
    items: int = 1
    flop: float | None = None
    dtype: str = "fp32"
    peak: float = 0
    error: str = ""
    memory: tuple[int, int] | None = None
    memory_target: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many times as long the baseline takes: the median over the rounds' pairs; nan without any."""
        pairs = zip(self.baseline_seconds, self.our_seconds, strict=True)
        return statistics.median([base / own for base, own in pairs] or [math.nan])

    @property
    def memory_ratio(self) -> float:
        """How many times the memory the baseline takes; nan where it was not measured."""
        return self.memory[0] / self.memory[1] if self.memory else math.nan

    @property
    def met(self) -> bool | None:
        """Whether all that is wanted was reached; ``None`` where nothing is wanted, or nothing was measured."""
        held = []
        if self.our_seconds:
            held += [self.ratio >= self.target] if self.target is not None else []
            held += [statistics.median(self.our_seconds) <= self.limit] if self.limit is not None else []
        if self.memory and self.memory_target is not None:
            held.append(self.memory_ratio >= self.memory_target)
        return all(held) if held else None


@dataclass(frozen=True)
class Plot:
    """An image of how cost grows, and the line under it.

    Attributes:
        file: path from the folder of the benchmarks, with forward slashes.
        line: where it bends and why.
    """

    file: str
    line: str
