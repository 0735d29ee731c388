"""Statistics of tables: means over runs, ranking, bootstrap intervals, paired differences."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from gpen_plugin.evaluate.results import Column, Results, Row, group_by_method


def average_runs(results: Results) -> Results:
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
    for name, rows in group_by_method(results.rows).items():
        if not rows[0].run_of:
            everything.rows += rows
            everything.images |= {name: results.images[name]} if name in results.images else {}
            everything.sets |= {name: results.sets[name]} if name in results.sets else {}
            continue
        row = _average_row(name, rows)
        everything.rows.append(row)
        if not row.failure:
            everything.images[name] = _average_images(results, rows)
            everything.sets[name] = _average_sets(results, rows)
    return everything


def _average_row(name: str, rows: Sequence[Row]) -> Row:
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


def _average_images(results: Results, rows: Sequence[Row]) -> dict:
    columns = [column for column in results.columns if not column.of_sets]
    return {
        condition: {key: _average_image(results, rows, condition, key, columns) for key in results.keys}
        for condition in results.conditions
        if all(condition in results.images.get(row.name, {}) for row in rows)
    }


def _average_image(results: Results, rows: Sequence[Row], condition: str, key: str, columns: Sequence[Column]) -> dict:
    entries = [results.images[row.name][condition].get(key, {}) for row in rows]
    failures = [
        f"{_run(row)}: {entry['failure']}" for row, entry in zip(rows, entries, strict=True) if "failure" in entry
    ]
    return {"failure": "; ".join(failures)} if failures else _means(entries, columns)


def _average_sets(results: Results, rows: Sequence[Row]) -> dict:
    columns = [column for column in results.columns if column.of_sets]
    return {
        condition: _means([results.sets.get(row.name, {}).get(condition, {}) for row in rows], columns)
        for condition in results.conditions
    }


def _means(entries: Sequence[dict], columns: Sequence[Column]) -> dict[str, float]:
    """The mean of each column that any run has; NaN unless all have it."""
    names = [column.name for column in columns if any(column.name in entry for entry in entries)]
    return {name: float(np.mean([entry.get(name, np.nan) for entry in entries])) for name in names}


class CellIndex(NamedTuple):
    """Where a cell stands: names of the row, the condition and the column."""

    row: str
    condition: str
    column: str


@dataclass(frozen=True)
class Cell:
    """A number in a table.

    Attributes:
        value: NaN where there is none.
        text: as it is printed; ``-`` where there is none.
        images: how many it is computed over.
        complete: whether these are all the images of the evaluation that any method has a value for.
        mark: ``best``, ``second`` or empty.
    """

    value: float
    text: str
    images: int
    complete: bool
    mark: Literal["best", "second", ""] = ""


Cells = Mapping[CellIndex, Cell]


def format_cells(results: Results) -> Cells:
    """Fill every place of a table, and rank what can be compared.

    Means over different images are not compared: a method that gave nothing for an image, or an image that a
    metric found no value for while another method's has one, would profit from what it lacks. Such a cell is
    incomplete, and unranked. Values that print alike share a mark.
    """
    cells = {}
    for condition in results.conditions:
        for column in results.columns:
            cells |= _ranked(_format_column(results, condition, column), column)
    return cells


def _format_column(results: Results, condition: str, column: Column) -> dict[CellIndex, Cell]:
    measured = {row.name: _measured(results, row, condition, column) for row in results.rows}
    wanted = np.logical_or.reduce(list(measured.values()))
    cells = {}
    for row in results.rows:
        value = results.value(row.name, condition, column)
        text = f"{round(value, column.decimals) + 0.0:.{column.decimals}f}" if np.isfinite(value) else "-"  # no -0.00
        has = measured[row.name]
        complete = is_complete(results, row, condition) and bool((has == wanted).all())
        cells[CellIndex(row.name, condition, column.name)] = Cell(value, text, int(has.sum()), complete)
    return cells


def _measured(results: Results, row: Row, condition: str, column: Column) -> np.ndarray:
    """Which images a value rests on, (N,) bool."""
    if not column.of_sets:
        return np.isfinite(results.image_values(row.name, condition, column.name))
    has_value = bool(np.isfinite(results.value(row.name, condition, column)))
    return np.array([has_value and results.has_image(row.name, condition, key) for key in results.keys])


def _ranked(cells: Mapping[CellIndex, Cell], column: Column) -> dict[CellIndex, Cell]:
    compared = [cell.text for cell in cells.values() if cell.complete and cell.text != "-"]
    order = sorted(set(compared), key=float, reverse=not column.lower_is_better) if len(compared) > 1 else []
    mark_of = dict(zip(order, ("best", "second"), strict=False))
    return {
        place: replace(cell, mark=mark_of.get(cell.text, "") if cell.complete else "") for place, cell in cells.items()
    }


def is_complete(results: Results, row: Row, condition: str) -> bool:
    """Whether the method gave an image for every image."""
    return not row.failure and results.restored(row.name, condition) == len(results.keys)


def attempted(results: Results, row: Row, condition: str) -> bool:
    """Whether the method gave something for the condition, be it failures; the paper's tables show ``-`` if not."""
    return bool(row.failure or results.images.get(row.name, {}).get(condition))


class Spread(NamedTuple):
    """The values of a method's runs.

    Attributes:
        values: one per run; their mean is the method's value.
        deviation: their standard deviation, with n - 1.
    """

    values: tuple[float, ...]
    deviation: float


def run_std(results: Results, table: Results) -> dict[CellIndex, Spread]:
    """The spread of every value that is a mean over runs; places with fewer than two runs or no value are left out.

    Args:
        results: with a row per run.
        table: the same, pooled.
    """
    found = {}
    for method, rows in group_by_method(results.rows).items():
        if len(rows) < 2:
            continue
        for condition in results.conditions:
            for column in results.columns:
                values = _values(results, table, method, rows, condition, column)
                if values and np.isfinite(values).all():
                    place = CellIndex(method, condition, column.name)
                    found[place] = Spread(tuple(values), float(np.std(values, ddof=1)))
    return found


def _values(
    results: Results, table: Results, method: str, rows: list[Row], condition: str, column: Column
) -> list[float]:
    """The value of each run, over the images that all runs have; empty if there is none."""
    if not np.isfinite(table.value(method, condition, column)):
        return []
    if column.of_sets:
        return [results.value(row.name, condition, column) for row in rows]
    shared = np.isfinite(table.image_values(method, condition, column.name))
    return [float(results.image_values(row.name, condition, column.name)[shared].mean()) for row in rows]


LEVEL = 0.95
CHUNK = 2_000_000  # so many drawn indices are held at once


class Interval(NamedTuple):
    """Where a mean lies with 95 % confidence."""

    low: float
    high: float


class Difference(NamedTuple):
    """How far a method is from the best one of its column, over the images that both have a value for.

    Attributes:
        mean: the method's value less the best one's.
        low: end of the 95 % interval of `mean`.
        high: the other end.
        images: how many both have.
    """

    mean: float
    low: float
    high: float
    images: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 0 out: the best one is better beyond the choice of images."""
        return self.low > 0 or self.high < 0


def mean_ci(values: np.ndarray, resamples: int, seed: int) -> list[Interval | None]:
    """Bootstrap percentile intervals of the mean of each column (Efron 1979).

    Every column is resampled alike. In a resample, a column's mean is over the drawn images that it has a value for.

    Args:
        values: one row per image, (N, C) float; NaN where an image has no value.
        resamples: how many means are drawn.
        seed: of the drawing; the same gives the same intervals.
    Returns:
        One per column; None where fewer than two images have a value.
    """
    known = np.isfinite(values)  # (N, C)
    enough = known.sum(axis=0) >= 2
    if not enough.any():
        return [None] * values.shape[1]
    found = iter(percentile_intervals(resampled_means(values[:, enough], resamples, seed)))
    return [next(found) if has else None for has in enough]


def resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of each column over images that are drawn with repetitions, each time as many as there are.

    Args:
        values: one row per image, (N, C) float; NaN where an image has no value, but not in all of a column.
        resamples: how often.
        seed: of the drawing; the same seed and number of images draw the same ones.
    Returns:
        (resamples, C) float64; NaN where none of the images that have a value was drawn.
    """
    known = np.isfinite(values)  # (N, C)
    # Counted from the first value, so that a constant column gives exactly 0.
    origin = values[known.argmax(axis=0), np.arange(values.shape[1])]
    return origin + _bootstrap_means(np.where(known, values - origin, 0.0), known, resamples, seed)


def percentile_intervals(means: np.ndarray) -> list[Interval]:
    """The interval of each column of resampled means, (resamples, C)."""
    tail = 50 * (1 - LEVEL)
    ends = np.nanpercentile(means, [tail, 100 - tail], axis=0)  # (2, C)
    return [Interval(*pair) for pair in ends.T.tolist()]


def _bootstrap_means(values: np.ndarray, known: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of resamples, (resamples, C). How often an image was drawn is its weight: a product of matrices."""
    rng = np.random.default_rng(seed)
    count = len(values)
    step = max(1, CHUNK // count)
    means = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, step):
        drawn = min(step, resamples - start)
        images = rng.integers(0, count, (drawn, count)) + count * np.arange(drawn)[:, None]
        weights = np.bincount(images.ravel(), minlength=drawn * count).reshape(drawn, count).astype(np.float64)
        with np.errstate(invalid="ignore"):  # 0 / 0: none of the few images that have a value was drawn
            means[start : start + drawn] = (weights @ values) / (weights @ known)
    return means


def bootstrap_ci(results: Results, resamples: int, seed: int) -> dict[CellIndex, Interval]:
    """The interval of every mean of a table; places without one are left out."""
    found = {}
    for condition in results.conditions:
        places = [
            CellIndex(row.name, condition, column.name)
            for column in results.columns
            if not column.of_sets
            for row in results.rows
        ]
        if not places:
            continue
        values = np.stack([results.image_values(*place) for place in places], axis=1)  # (N, C)
        intervals = mean_ci(values, resamples, seed)
        found |= {place: interval for place, interval in zip(places, intervals, strict=True) if interval}
    return found


def paired_difference_ci(results: Results, cells: Cells, resamples: int, seed: int) -> dict[CellIndex, Difference]:
    """How far each method is from the best one of its column; none where no method is ranked best."""
    found = {}
    for condition in results.conditions:
        compared = {}
        for column in results.columns:
            best = _best(results, cells, condition, column)
            if column.of_sets or best is None:
                continue
            values = results.image_values(best, condition, column.name)
            for row in results.rows:
                if row.name != best and cells[row.name, condition, column.name].images:
                    place = CellIndex(row.name, condition, column.name)
                    compared[place] = results.image_values(*place) - values
        if not compared:
            continue
        intervals = mean_ci(np.stack(list(compared.values()), axis=1), resamples, seed)
        for (place, values), interval in zip(compared.items(), intervals, strict=True):
            if interval:
                found[place] = Difference(float(np.nanmean(values)), *interval, int(np.isfinite(values).sum()))
    return found


def _best(results: Results, cells: Cells, condition: str, column: Column) -> str | None:
    """The best of the methods that are marked so: several share the mark if they print alike."""
    marked = [row.name for row in results.rows if cells[row.name, condition, column.name].mark == "best"]
    pick = min if column.lower_is_better else max
    return pick(marked, key=lambda name: cells[name, condition, column.name].value, default=None)
