"""How far the runs of a method lie apart: what another training would give, which no interval over images tells."""

from typing import NamedTuple

import numpy as np

from gpen_plugin.evaluate.pooling import by_method
from gpen_plugin.evaluate.report.ranking import Place
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
