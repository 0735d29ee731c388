"""Several runs of a method as one row: what tables, figures and pages show."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate.results import Column, Results, Row


def pooled(results: Results) -> Results:
    """Results in which every method is one row.

    A value of an image, and of a set, is the mean over the runs; it is NaN where a run has none, so that it is over
    the same runs everywhere. An image that a run failed on, and a run that could not be built, are failures of the
    method. Its images are those of the first run.

    Args:
        results: with a row per run.
    Returns:
        New results; they share with `results` the rows of methods without runs.
    """
    everything = dataclasses.replace(results, rows=[], images={}, sets={})
    for name, rows in by_method(results.rows).items():
        if not rows[0].run_of:
            everything.rows += rows
            everything.images |= {name: results.images[name]} if name in results.images else {}
            everything.sets |= {name: results.sets[name]} if name in results.sets else {}
            continue
        row = _pooled_row(name, rows)
        everything.rows.append(row)
        if not row.failure:
            everything.images[name] = _pooled_images(results, rows)
            everything.sets[name] = _pooled_sets(results, rows)
    return everything


def by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each method: itself, or its runs. A method stands where its first run stands."""
    methods: dict[str, list[Row]] = {}
    for row in rows:
        methods.setdefault(row.run_of or row.name, []).append(row)
    return methods


def check_kinds(rows: Sequence[Row], where: str) -> None:
    """Raise an `OptionError` if a method is there both as one row and as runs."""
    for name, members in by_method(rows).items():
        if len({bool(row.run_of) for row in members}) > 1:
            got = f"'{name}' is one row in one folder, and runs in another"
            raise OptionError(where, got, "names of their own", "Rename the method in one of the option files.")


def _pooled_row(name: str, rows: Sequence[Row]) -> Row:
    failures = [f"{_run(row)}: {row.failure}" for row in rows if row.failure]
    return Row(name, rows[0].folder, _described(rows), "; ".join(failures))


def _described(rows: Sequence[Row]) -> str:
    """What the runs say of themselves, part by part: what is the same in all stands once."""
    parts = itertools.zip_longest(*(row.description.split("; ") for row in rows if row.description), fillvalue="")
    said = [", ".join(dict.fromkeys(filter(None, part))) for part in parts]
    counted = f"mean over {len(rows)} runs" if len(rows) > 1 else "1 run"
    return "; ".join([counted, *said]) if said else ""


def _run(row: Row) -> str:
    return row.name.removeprefix(f"{row.run_of}, ")


def _pooled_images(results: Results, rows: Sequence[Row]) -> dict:
    columns = [column for column in results.columns if not column.of_sets]
    return {
        condition: {key: _pooled_image(results, rows, condition, key, columns) for key in results.keys}
        for condition in results.conditions
        if all(condition in results.images.get(row.name, {}) for row in rows)
    }


def _pooled_image(results: Results, rows: Sequence[Row], condition: str, key: str, columns: Sequence[Column]) -> dict:
    entries = [results.images[row.name][condition].get(key, {}) for row in rows]
    failures = [
        f"{_run(row)}: {entry['failure']}" for row, entry in zip(rows, entries, strict=True) if "failure" in entry
    ]
    return {"failure": "; ".join(failures)} if failures else _means(entries, columns)


def _pooled_sets(results: Results, rows: Sequence[Row]) -> dict:
    columns = [column for column in results.columns if column.of_sets]
    return {
        condition: _means([results.sets.get(row.name, {}).get(condition, {}) for row in rows], columns)
        for condition in results.conditions
    }


def _means(entries: Sequence[dict], columns: Sequence[Column]) -> dict[str, float]:
    """The mean of each column that any run has; NaN unless all have it."""
    names = [column.name for column in columns if any(column.name in entry for entry in entries)]
    return {name: float(np.mean([entry.get(name, np.nan) for entry in entries])) for name in names}
