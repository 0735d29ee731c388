"""Statistics of tables: spread over runs, bootstrap intervals, paired differences."""

from typing import NamedTuple

import numpy as np

from gpen_plugin.evaluate.pooling import by_method
from gpen_plugin.evaluate.report.ranking import Cells, Place
from gpen_plugin.evaluate.results import Column, Results, Row


class Spread(NamedTuple):
    """The values of a method's runs.

    Attributes:
        values: one per run; their mean is the method's value.
        deviation: their standard deviation, with n - 1.
    """

    values: tuple[float, ...]
    deviation: float


def spreads_of(results: Results, table: Results) -> dict[Place, Spread]:
    """The spread of every value that is a mean over runs; places with fewer than two runs or no value are left out.

    Args:
        results: with a row per run.
        table: the same, pooled.
    """
    found = {}
    for method, rows in by_method(results.rows).items():
        if len(rows) < 2:
            continue
        for condition in results.conditions:
            for column in results.columns:
                values = _values(results, table, method, rows, condition, column)
                if values and np.isfinite(values).all():
                    place = Place(method, condition, column.name)
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
    shared = np.isfinite(table.of_images(method, condition, column.name))
    return [float(results.of_images(row.name, condition, column.name)[shared].mean()) for row in rows]


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


def mean_intervals(values: np.ndarray, resamples: int, seed: int) -> list[Interval | None]:
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
    return origin + _drawn_means(np.where(known, values - origin, 0.0), known, resamples, seed)


def percentile_intervals(means: np.ndarray) -> list[Interval]:
    """The interval of each column of resampled means, (resamples, C)."""
    tail = 50 * (1 - LEVEL)
    ends = np.nanpercentile(means, [tail, 100 - tail], axis=0)  # (2, C)
    return [Interval(*pair) for pair in ends.T.tolist()]


def _drawn_means(values: np.ndarray, known: np.ndarray, resamples: int, seed: int) -> np.ndarray:
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


def intervals_of(results: Results, resamples: int, seed: int) -> dict[Place, Interval]:
    """The interval of every mean of a table; places without one are left out."""
    found = {}
    for condition in results.conditions:
        places = [
            Place(row.name, condition, column.name)
            for column in results.columns
            if not column.of_sets
            for row in results.rows
        ]
        if not places:
            continue
        values = np.stack([results.of_images(*place) for place in places], axis=1)  # (N, C)
        intervals = mean_intervals(values, resamples, seed)
        found |= {place: interval for place, interval in zip(places, intervals, strict=True) if interval}
    return found


def differences_of(results: Results, cells: Cells, resamples: int, seed: int) -> dict[Place, Difference]:
    """How far each method is from the best one of its column; none where no method is ranked best."""
    found = {}
    for condition in results.conditions:
        compared = {}
        for column in results.columns:
            best = _best(results, cells, condition, column)
            if column.of_sets or best is None:
                continue
            values = results.of_images(best, condition, column.name)
            for row in results.rows:
                if row.name != best and cells[row.name, condition, column.name].images:
                    place = Place(row.name, condition, column.name)
                    compared[place] = results.of_images(*place) - values
        if not compared:
            continue
        intervals = mean_intervals(np.stack(list(compared.values()), axis=1), resamples, seed)
        for (place, values), interval in zip(compared.items(), intervals, strict=True):
            if interval:
                found[place] = Difference(float(np.nanmean(values)), *interval, int(np.isfinite(values).sum()))
    return found


def _best(results: Results, cells: Cells, condition: str, column: Column) -> str | None:
    """The best of the methods that are marked so: several share the mark if they print alike."""
    marked = [row.name for row in results.rows if cells[row.name, condition, column.name].mark == "best"]
    pick = min if column.lower_is_better else max
    return pick(marked, key=lambda name: cells[name, condition, column.name].value, default=None)
