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
    """One line per method and condition; per metric its value, ends of the 95 % interval, and number of images."""
    results = summary.results
    heads = ["method", "condition", "restored", "images"]
    for column in results.columns:
        heads += [column.name, *(f"{column.name}_{part}" for part in ("low", "high", "n"))]
    lines = []
    for row in results.rows:
        for condition in results.conditions:
            line = [row.name, condition, results.restored(row.name, condition), len(results.keys)]
            for column in results.columns:
                cell = summary.cell(row, Head(column, condition))
                interval = summary.intervals.get(Place(row.name, condition, column.name), (math.nan, math.nan))
                line += [_number(cell.value), *map(_number, interval), cell.images]
            lines.append([*line, results.fingerprint["digest"]])
    return _csv([*heads, "fingerprint"], lines)


def per_image_csv(results: Results) -> str:
    """One line per method, condition, image and metric; no value where a metric has none or the method failed."""
    columns = [column for column in results.columns if not column.of_sets]
    lines = []
    for row in results.rows:
        for condition in results.conditions:
            for column in columns:
                values = results.of_images(row.name, condition, column.name)
                lines += [
                    [row.name, condition, key, column.name, _number(value)]
                    for key, value in zip(results.keys, values, strict=True)
                ]
    return _csv(["method", "condition", "image", "metric", "value"], lines)


def table_json(summary: Summary) -> str:
    """Every cell with its mark, interval and difference from the best, and the notes."""
    results = summary.results
    cells = []
    for place, cell in summary.cells.items():
        interval, difference = summary.intervals.get(place), summary.differences.get(place)
        cells.append(
            {
                **place._asdict(),
                "value": _rounded(cell.value),
                "printed": cell.text,
                "mark": cell.mark,
                "images": cell.images,
                "complete": cell.complete,
                "interval": interval and [*map(_rounded, interval)],
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


def _number(value: float) -> str:
    """Ten digits: more than any metric means, and fewer than the order of a sum decides."""
    return f"{value:.10g}" if math.isfinite(value) else ""


def _rounded(value: float) -> float | None:
    return float(_number(value)) if math.isfinite(value) else None


def _csv(heads: Sequence[str], lines: Iterable[Sequence]) -> str:
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(lines)
    return page.getvalue()
