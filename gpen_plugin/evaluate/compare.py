"""Every method against one reference: the paired difference of each metric, its interval, and its sign in each run."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gpen_plugin.evaluate.results import Results, Row, group_by_method
from gpen_plugin.evaluate.stats import Interval, mean_ci
from gpen_plugin.evaluate.summary import Head, Summary
from gpen_plugin.evaluate.tables import csv_text, markdown_text, number_text

SIGNS = {"better": "▲", "worse": "▼", "": "≈"}


@dataclass(frozen=True)
class Comparison:
    """How far a method is from the one that all are held against."""

    mean: float  # its value less the other's: of images, over those that both have a value for; NaN if there is none
    interval: Interval | None  # 95 %, over images; None for metrics of sets, and below two images
    # `mean` of each run, in the order of both lists of runs; empty unless one of the two has several, and the other
    # as many or a single one, or where nothing can be compared
    by_run: tuple[float, ...]
    # whether the method is better or worse. Neither, where the interval holds 0 or is missing, or the runs
    # disagree; for a metric of sets only the runs count
    mark: Literal["better", "worse", ""]


def compare(summary: Summary, row: Row, reference: str, head: Head) -> Comparison:
    """Compare a method with the method called `reference` in one metric and condition."""
    results, column = summary.results, head.column
    by_run = _by_run(summary, row.name, reference, head)
    if column.of_sets:
        mean = results.value(row.name, head.condition, column) - results.value(reference, head.condition, column)
        return Comparison(mean, None, by_run, _mark(mean, by_run, column.lower_is_better))
    both = [results.image_values(name, head.condition, column.name) for name in (row.name, reference)]
    differences = both[0] - both[1]
    mean = float(np.nanmean(differences)) if np.isfinite(differences).any() else math.nan
    (interval,) = mean_ci(differences[:, None], summary.resamples, summary.seed)
    evidence = [*interval, *by_run] if interval else []
    return Comparison(mean, interval, by_run, _mark(mean, evidence, column.lower_is_better))


def compare_markdown(summary: Summary, reference: str) -> str:
    """Per condition a table: methods as rows, metrics as columns; the difference, its interval, and the runs."""
    results, parts = summary.results, [f"# {markdown_text(summary.results.title)}: minus {markdown_text(reference)}"]
    heads = ["Method", *(column.head for column in results.columns)]
    for condition in results.conditions:
        lines = [[*map(markdown_text, heads)], ["---", *["---:"] * len(results.columns)]]
        for row in _others(summary, reference):
            steps = (
                (Head(column, condition), compare(summary, row, reference, Head(column, condition)))
                for column in results.columns
            )
            lines.append([markdown_text(row.name), *(_format(each, head.column.decimals) for head, each in steps)])
        parts += [f"## {markdown_text(condition)}"] if condition else []
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append("\n".join(f"- {markdown_text(note)}" for note in _notes(summary, reference)))
    return "\n\n".join(parts) + "\n"


def compare_csv(summary: Summary, reference: str) -> str:
    """One line per condition, method and metric."""
    lines = []
    for head in summary.heads:
        for row in _others(summary, reference):
            found = compare(summary, row, reference, head)
            ends = found.interval or (math.nan, math.nan)
            runs = " ".join(map(number_text, found.by_run))
            index = [head.condition, row.name, reference, head.column.name]
            lines.append([*index, *map(number_text, (found.mean, *ends)), runs, found.mark])
    return csv_text(
        ["condition", "method", "against", "metric", "difference", "low", "high", "by_run", "mark"],
        lines,
    )


def _others(summary: Summary, reference: str) -> Iterator[Row]:
    return (row for row in summary.results.rows if row.name != reference)


def _by_run(summary: Summary, name: str, reference: str, head: Head) -> tuple[float, ...]:
    one, other = (_values_by_run(summary.measured, method, head) for method in (name, reference))
    runs = max(len(one), len(other))
    if runs == 1 or any(len(each) not in (1, runs) for each in (one, other)):
        return ()
    differences = one - other  # (R, N)
    shared = np.isfinite(differences).all(axis=0)
    return tuple(differences[:, shared].mean(axis=1).tolist()) if shared.any() else ()


def _values_by_run(measured: Results, method: str, head: Head) -> np.ndarray:
    """A row per run: the value of every image, (R, N), or of the set, (R, 1)."""
    rows, (column, condition) = group_by_method(measured.rows)[method], head
    if column.of_sets:
        return np.array([[measured.value(row.name, condition, column)] for row in rows])
    return np.stack([measured.image_values(row.name, condition, column.name) for row in rows])


def _mark(mean: float, evidence: Sequence[float], lower_is_better: bool) -> Literal["better", "worse", ""]:
    """The direction, if all the evidence is on one side of 0."""
    if not evidence or not all(math.isfinite(each) and each * mean > 0 for each in evidence):
        return ""
    return "better" if (mean < 0) == lower_is_better else "worse"


def _format(found: Comparison, decimals: int) -> str:
    if math.isnan(found.mean):
        return "-"
    text = f"{SIGNS[found.mark]} {_signed(found.mean, decimals)}"
    if found.interval:
        text += f" [{', '.join(_signed(end, decimals) for end in found.interval)}]"
    if found.by_run:
        agreeing = sum(each * found.mean > 0 for each in found.by_run)
        text += f", {agreeing}/{len(found.by_run)}"
    return text


def _signed(number: float, decimals: int) -> str:
    return f"{round(number, decimals) + 0.0:+.{decimals}f}"  # no -0.00


def _notes(summary: Summary, reference: str) -> Iterator[str]:
    yield f"Protocol: {summary.results.fingerprint['line']}"
    yield (
        f"Each value minus that of {reference}, with the 95 % interval of the paired difference over images "
        f"({summary.resamples} bootstrap resamples, seed {summary.seed}) and the number of runs in "
        "which the difference has this sign."
    )
    yield (
        f"▲ better and ▼ worse than {reference}: the interval excludes 0 and all runs agree (of a metric of sets, "
        "which has no interval, all runs agree). ≈ no clear difference."
    )
    yield "By chance alone, two runs agree in one of two cases, and three in one of four."
