"""Who is best and who is second in each column of a table, and who is not ranked because images are missing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from gpen_plugin.evaluate.results import Column, Results, Row


class Place(NamedTuple):
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


Cells = Mapping[Place, Cell]


def cells_of(results: Results) -> Cells:
    """Fill every place of a table, and rank what can be compared.

    Means over different images are not compared: a method that gave nothing for an image, or an image that a
    metric found no value for while another method's has one, would profit from what it lacks. Such a cell is
    incomplete, and unranked. Values that print alike share a mark.
    """
    cells = {}
    for condition in results.conditions:
        for column in results.columns:
            cells |= _ranked(_cells_of_column(results, condition, column), column)
    return cells


def _cells_of_column(results: Results, condition: str, column: Column) -> dict[Place, Cell]:
    measured = {row.name: _measured(results, row, condition, column) for row in results.rows}
    wanted = np.logical_or.reduce(list(measured.values()))
    cells = {}
    for row in results.rows:
        value = results.value(row.name, condition, column)
        text = f"{round(value, column.decimals) + 0.0:.{column.decimals}f}" if np.isfinite(value) else "-"  # no -0.00
        has = measured[row.name]
        complete = is_complete(results, row, condition) and bool((has == wanted).all())
        cells[Place(row.name, condition, column.name)] = Cell(value, text, int(has.sum()), complete)
    return cells


def _measured(results: Results, row: Row, condition: str, column: Column) -> np.ndarray:
    """Which images a value rests on, (N,) bool."""
    if not column.of_sets:
        return np.isfinite(results.of_images(row.name, condition, column.name))
    has_value = bool(np.isfinite(results.value(row.name, condition, column)))
    return np.array([has_value and results.has_image(row.name, condition, key) for key in results.keys])


def _ranked(cells: Mapping[Place, Cell], column: Column) -> dict[Place, Cell]:
    compared = [cell.text for cell in cells.values() if cell.complete and cell.text != "-"]
    order = sorted(set(compared), key=float, reverse=not column.lower_is_better) if len(compared) > 1 else []
    mark_of = dict(zip(order, ("best", "second"), strict=False))
    return {
        place: replace(cell, mark=mark_of.get(cell.text, "") if cell.complete else "") for place, cell in cells.items()
    }


def is_complete(results: Results, row: Row, condition: str) -> bool:
    """Whether the method gave an image for every image."""
    return not row.failure and results.restored(row.name, condition) == len(results.keys)


def was_tried(results: Results, row: Row, condition: str) -> bool:
    """Whether the method gave something for the condition, be it failures; the paper's tables show ``-`` if not."""
    return bool(row.failure or results.images.get(row.name, {}).get(condition))
