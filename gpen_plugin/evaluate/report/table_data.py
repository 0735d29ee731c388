"""Tables of an evaluation for programs: CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence

from gpen_plugin.evaluate.report.ranking import Place
from gpen_plugin.evaluate.report.summary import Head, Summary
from gpen_plugin.evaluate.results import Results


def wide_csv(summary: Summary) -> str:
    """One line per method and condition.

    Per metric its value, the ends of the 95 % interval, the standard deviation between runs, and how many images.
    """
    results = summary.results
    heads = ["method", "condition", "restored", "images"]
    for column in results.columns:
        heads += [column.name, *(f"{column.name}_{part}" for part in ("low", "high", "sd", "n"))]
    lines = []
    for row in results.rows:
        for condition in results.conditions:
            line = [row.name, condition, results.restored(row.name, condition), len(results.keys)]
            for column in results.columns:
                cell = summary.cell(row, Head(column, condition))
                interval = summary.intervals.get(Place(row.name, condition, column.name), (math.nan, math.nan))
                spread = summary.spreads.get(Place(row.name, condition, column.name))
                line += [number_text(cell.value), *map(number_text, interval)]
                line += [number_text(spread.deviation if spread else math.nan), cell.images]
            lines.append([*line, results.fingerprint["digest"]])
    return csv_text([*heads, "fingerprint"], lines)


def per_image_csv(results: Results) -> str:
    """One line per row, condition, image and metric; no value where a metric has none or the method failed.

    A method that was trained several times has a row per run here.
    """
    columns = [column for column in results.columns if not column.of_sets]
    lines = []
    for row in results.rows:
        for condition in results.conditions:
            for column in columns:
                values = results.of_images(row.name, condition, column.name)
                lines += [
                    [row.name, condition, key, column.name, number_text(value)]
                    for key, value in zip(results.keys, values, strict=True)
                ]
    return csv_text(["method", "condition", "image", "metric", "value"], lines)


def table_json(summary: Summary) -> str:
    """Every cell with its mark, interval, runs and difference from the best, and the notes."""
    results = summary.results
    cells = []
    for place, cell in summary.cells.items():
        interval, difference = summary.intervals.get(place), summary.differences.get(place)
        spread = summary.spreads.get(place)
        cells.append(
            {
                **place._asdict(),
                "value": _rounded(cell.value),
                "printed": cell.text,
                "mark": cell.mark,
                "images": cell.images,
                "complete": cell.complete,
                "interval": interval and [*map(_rounded, interval)],
                "runs": spread and {"values": [*map(_rounded, spread.values)], "deviation": _rounded(spread.deviation)},
                "difference_from_best": difference
                and {
                    "mean": _rounded(difference.mean),
                    "interval": [_rounded(difference.low), _rounded(difference.high)],
                    "images": difference.images,
                    "clear": difference.is_clear,
                },
            }
        )
    content = {
        "name": results.name,
        "title": results.title,
        "fingerprint": results.fingerprint,
        "images": len(results.keys),
        "bootstrap": {"resamples": summary.resamples, "seed": summary.seed, "level": 0.95},
        "cells": cells,
        "notes": summary.notes(),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def number_text(value: float) -> str:
    """Ten digits: more than any metric means, and fewer than the order of a sum decides."""
    return f"{value:.10g}" if math.isfinite(value) else ""


def _rounded(value: float) -> float | None:
    return float(number_text(value)) if math.isfinite(value) else None


def csv_text(heads: Sequence[str], lines: Iterable[Sequence]) -> str:
    """A head line and others as CSV."""
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(lines)
    return page.getvalue()
