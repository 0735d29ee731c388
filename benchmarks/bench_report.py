"""The result of a benchmark: two methods compared, printed as text and written as JSON for `results.py`.

Medians are always given with the fastest and the slowest round.
"""

import argparse
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from machine import facts


@dataclass(frozen=True)
class Comparison:
    """Two methods with the same result."""

    what: str  # "GPEN 256 px, released width, fp32"
    baseline: str  # in words
    ours: str  # in words
    baseline_seconds: Sequence[float]  # of one call, per round; empty if time was not measured
    our_seconds: Sequence[float]
    target: float | None = None  # ratio of the times; None has none
    limit: float | None = None  # seconds of one call of ours, at most
    items: int = 1  # images, faces or steps of one call
    flop: float | None = None  # of one call of ours, a multiply-add counted as two
    dtype: str = "fp32"  # of `peak`: fp32 or bf16
    peak: float = 0  # FLOP/s of the machine, measured in the same run; 0 if there is none
    error: str = ""  # of the results: "largest difference 3e-6 of the range"
    memory: tuple[int, int] | None = None  # peak bytes of the baseline and of ours
    memory_target: float | None = None  # ratio of these
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many times as long the baseline takes: the median over the rounds' pairs; NaN without any."""
        pairs = zip(self.baseline_seconds, self.our_seconds, strict=True)
        return statistics.median([base / own for base, own in pairs] or [math.nan])

    @property
    def memory_ratio(self) -> float:
        """How many times the memory the baseline takes; NaN if it was not measured."""
        return self.memory[0] / self.memory[1] if self.memory else math.nan

    @property
    def met(self) -> bool | None:
        """Whether all targets are reached; None without a target or a measurement."""
        held = []
        if self.our_seconds:
            held += [self.ratio >= self.target] if self.target is not None else []
            held += [statistics.median(self.our_seconds) <= self.limit] if self.limit is not None else []
        if self.memory and self.memory_target is not None:
            held.append(self.memory_ratio >= self.memory_target)
        return all(held) if held else None


@dataclass(frozen=True)
class Plot:
    """A plot of how cost grows, and its caption."""

    file: str  # path from the folder of the benchmarks, with forward slashes
    line: str


OUTCOMES = {True: "met", False: "NOT met", None: "not measured"}


def report(
    title: str,
    comparisons: Sequence[Comparison],
    options: argparse.Namespace,
    *,
    left_out: Sequence[str] = (),  # attempts that were no faster, a sentence with the figure each
    plots: Sequence[Plot] = (),
) -> None:
    """Print the results, and write them to ``options.json`` if that is given; `options` are those of `parser`."""
    print(title)
    for name, fact in facts().items():
        print(f"  {name}: {fact}")
    print(f"  {settings(options)}; medians (lowest to highest)")
    for comparison in comparisons:
        print("\n" + "\n".join(describe(comparison)))
    for line in [*(plot.line for plot in plots), *(f"Tried without gain: {line}" for line in left_out)]:
        print(f"\n{line}")
    if options.json:
        save(title, comparisons, options, facts(), left_out=left_out, plots=plots)


def save(
    title: str,
    comparisons: Sequence[Comparison],
    options: argparse.Namespace,
    machine: Mapping[str, str],  # see `facts`
    *,
    left_out: Sequence[str] = (),
    plots: Sequence[Plot] = (),
) -> None:
    """Write the results to ``options.json``; see `report`."""
    results = {
        "title": title,
        "day": date.today().isoformat(),
        "machine": dict(machine),
        "settings": settings(options),
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "left_out": list(left_out),
        "plots": [asdict(plot) for plot in plots],
    }
    write_atomically(options.json, json.dumps(results, indent=1))


def settings(options: argparse.Namespace) -> str:
    """Device, threads and rounds in words."""
    return f"device {options.device}, threads {options.threads}, rounds {options.rounds}"


def describe(comparison: Comparison) -> list[str]:
    """A comparison as lines of text."""
    lines = [comparison.what]
    if comparison.our_seconds:
        lines.append(f"  {spread(comparison.baseline_seconds):>34}  {comparison.baseline}")
        lines.append(f"  {spread(comparison.our_seconds):>34}  {comparison.ours}")
        lines.append(f"  ratio {comparison.ratio:.2f}")
    below = [throughput(comparison), arithmetic(comparison), memory(comparison), target_line(comparison)]
    return lines + [f"  {fact}" for fact in [*below, comparison.error, comparison.note] if fact]


def target_line(comparison: Comparison) -> str:
    """The targets and whether they were met; empty without targets."""
    targets = [f"{comparison.target:g}x"] if comparison.target is not None else []
    targets += [f"{duration(comparison.limit)} at most"] if comparison.limit is not None else []
    targets += [f"{comparison.memory_target:g}x in memory"] if comparison.memory_target is not None else []
    return f"target {' and '.join(targets)}: {OUTCOMES[comparison.met]}" if targets else ""


def duration(seconds: float) -> str:
    """Seconds as text: ``1.25 s``, ``3.10 ms``."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def spread(seconds: Sequence[float]) -> str:
    """The median, the lowest and the highest."""
    low, high = duration(min(seconds)), duration(max(seconds))
    return f"{duration(statistics.median(seconds))} ({low} to {high})"


def throughput(comparison: Comparison) -> str:
    """Items per second of both; empty if a call has one item."""
    if comparison.items == 1 or not comparison.our_seconds:
        return ""
    arms = (comparison.baseline_seconds, comparison.our_seconds)
    base, own = (comparison.items / statistics.median(seconds) for seconds in arms)
    return f"{base:.4g} against {own:.4g} a second"


def arithmetic(comparison: Comparison) -> str:
    """FLOP/s of ours, and its fraction of the measured peak."""
    if not (comparison.flop and comparison.our_seconds):
        return ""
    rate = comparison.flop / statistics.median(comparison.our_seconds)
    share = f", {rate / comparison.peak:.0%} of the measured {comparison.dtype} peak" if comparison.peak else ""
    return f"{rate / 1e9:.4g} GFLOP/s{share}"


def memory(comparison: Comparison) -> str:
    """Peak memory of both arms."""
    if not comparison.memory:
        return ""
    base, own = (f"{size / 2**20:.0f} MiB" for size in comparison.memory)
    return f"peak memory {base} against {own}, ratio {comparison.memory_ratio:.2f}"


def write_atomically(path: Path, text: str) -> None:
    """Write a file; readers never see a part of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
