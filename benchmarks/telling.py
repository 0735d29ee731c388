"""What a benchmark says: lines for a person, a JSON file for the page of results.

Medians stand with the lowest and the highest of the rounds, everywhere.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from comparison import Comparison, Plot
from machine import facts

VERDICTS = {True: "met", False: "NOT met", None: "not measured"}


def report(
    title: str,
    comparisons: Sequence[Comparison],
    options: argparse.Namespace,
    *,
    left_out: Sequence[str] = (),
    plots: Sequence[Plot] = (),
) -> None:
    """Print what was found, and write it to ``options.json`` if that is given.

    Args:
        title: of the script's part of the results.
        comparisons: its rows.
        options: of `parser`.
        left_out: what was tried and did not pay, a sentence with the figure each.
        plots: images, and their lines.
    """
    print(title)
    for name, fact in facts().items():
        print(f"  {name}: {fact}")
    settings = f"device {options.device}, threads {options.threads}, rounds {options.rounds}"
    print(f"  {settings}; medians (lowest to highest)")
    for comparison in comparisons:
        print("\n" + "\n".join(told(comparison)))
    for line in [*(plot.line for plot in plots), *(f"Left out: {line}" for line in left_out)]:
        print(f"\n{line}")
    if options.json:
        found = {
            "title": title,
            "machine": facts(),
            "settings": settings,
            "comparisons": [asdict(comparison) for comparison in comparisons],
            "left_out": list(left_out),
            "plots": [asdict(plot) for plot in plots],
        }
        write_whole(options.json, json.dumps(found, indent=1))


def told(comparison: Comparison) -> list[str]:
    """The lines that a person reads of one comparison."""
    lines = [comparison.what]
    if comparison.our_seconds:
        lines.append(f"  {spread(comparison.baseline_seconds):>34}  {comparison.baseline}")
        lines.append(f"  {spread(comparison.our_seconds):>34}  {comparison.ours}")
        lines.append(f"  ratio {comparison.ratio:.2f}")
    below = [throughput(comparison), arithmetic(comparison), memory(comparison), wanted(comparison)]
    return lines + [f"  {fact}" for fact in [*below, comparison.error, comparison.note] if fact]


def wanted(comparison: Comparison) -> str:
    """The targets and whether they were met, or nothing where there is none."""
    targets = [f"{comparison.target:g}x"] if comparison.target is not None else []
    targets += [f"{duration(comparison.limit)} at most"] if comparison.limit is not None else []
    targets += [f"{comparison.memory_target:g}x in memory"] if comparison.memory_target is not None else []
    return f"target {' and '.join(targets)}: {VERDICTS[comparison.met]}" if targets else ""


def duration(seconds: float) -> str:
    """Seconds as a person writes them: ``1.25 s``, ``3.10 ms``."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def spread(seconds: Sequence[float]) -> str:
    """The median, and the lowest and the highest."""
    low, high = duration(min(seconds)), duration(max(seconds))
    return f"{duration(statistics.median(seconds))} ({low} to {high})"


def throughput(comparison: Comparison) -> str:
    """Items per second of both arms, where a call has more than one."""
    if comparison.items == 1 or not comparison.our_seconds:
        return ""
    arms = (comparison.baseline_seconds, comparison.our_seconds)
    base, own = (comparison.items / statistics.median(seconds) for seconds in arms)
    return f"{base:.4g} against {own:.4g} a second"


def arithmetic(comparison: Comparison) -> str:
    """FLOP/s of ours, and its share of the measured peak."""
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


def write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
