"""Comparison sheets, as in Figures 4 to 7 of the paper, and the curve of each metric over the conditions."""

import contextlib
import io
import itertools
import math
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from gpen_plugin.data.image_source import decode_image
from gpen_plugin.errors import DataError
from gpen_plugin.evaluate.options import VECTOR_FORMATS
from gpen_plugin.evaluate.results import NO_REFERENCE, Column, Results, Row, input_path, restored_path, truth_path
from gpen_plugin.evaluate.stats import CellIndex, Summary, attempted
from gpen_plugin.images.grid import sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, distinct for color-blind readers.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
MARKERS = "osD^vP*X"
LINES = ("-", "--", ":")  # for further rounds of the colors
MAX_TITLE = 18
PANEL = (4.2, 3.2)  # inches
LEGEND_WIDTH = 30  # characters that fit below a panel
SHEET_TILE = 1.1  # inches
SHEET_GAP, SHEET_HEADER = 0.03, 0.2  # inches
# nothing in a file depends on its time; fonts in PDF are TrueType, as publishers ask
METADATA = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None}, "svg": {"Date": None, "Creator": None}}
STYLE = {"text.parse_math": False, "pdf.fonttype": 42, "svg.hashsalt": "gpen_plugin"}


class Choice(NamedTuple):
    """Images that are shown, and how they were chosen, for a caption."""

    keys: list[str]
    how: str


def choose_images(results: Results, wanted: int | Sequence[str]) -> Choice:
    """Choose the images of a sheet: the named ones, or `wanted` images from the best to the worst.

    The order is that of the first per-image metric of the last method that has one, averaged over the conditions; ties
    stay in the order of `Results.keys`. Every condition shows the same images.
    """
    if not isinstance(wanted, int):
        return Choice(list(wanted), "images named in the option file")
    for row, column in itertools.product(reversed(results.rows), results.columns):
        values = np.stack([results.image_values(row.name, condition, column.name) for condition in results.conditions])
        known = np.isfinite(values)  # (conditions, N)
        if not known.any():
            continue
        means = np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        order = np.argsort(means if column.lower_is_better else -means, kind="stable")
        keys = [results.keys[index] for index in order if known[:, index].any()]
        return Choice(_spread(keys, wanted), f"from the best to the worst {column.label} of {row.name}, evenly spaced")
    return Choice(_spread(results.keys, wanted), "evenly spaced over the images")


def _spread(keys: Sequence[str], wanted: int) -> list[str]:
    indices = np.linspace(0, len(keys) - 1, min(wanted, len(keys))).round().astype(int)
    return [keys[index] for index in indices]


def column_names(results: Results) -> list[str]:
    """Titles of a sheet's columns, left to right, with the letters of the paper's figures: ``(a) input``."""
    names = ["input", *(row.name for row in results.rows), *(["ground truth"] if results.has_truth else [])]
    return [f"({_letter(index)}) {name}" for index, name in enumerate(names)]


def _letter(index: int) -> str:
    """a ... z, aa, ab ..."""
    more, last = divmod(index, 26)
    return (_letter(more - 1) if more else "") + string.ascii_lowercase[last]


def sheet_images(
    root: Path, results: Results, condition: str, keys: Sequence[str], tile: int
) -> list[list[np.ndarray]]:
    """One row per image, BGR uint8: the input at its own pixels, every method, and the ground truth if there is one.

    A gray tile with a cross, `tile` pixels wide, stands for a missing image.
    """
    rows = []
    for key in keys:
        images = [read_or_missing_tile(input_path(root, condition, key), tile, "missing")]
        images += [_restored(root, results, row, condition, key, tile) for row in results.rows]
        if results.has_truth:
            word = "missing" if results.has_truth_of(key) else "none"
            images.append(read_or_missing_tile(truth_path(root, key), tile, word))
        rows.append(images)
    return rows


def comparison_sheet(rows: Sequence[Sequence[np.ndarray]], names: Sequence[str], tile: int) -> np.ndarray:
    """The images of `sheet_images` with a title per column, BGR uint8."""
    return sheet(rows, [_short(name) for name in names], tile)


def vector_sheet(
    rows: Sequence[Sequence[np.ndarray]], names: Sequence[str], formats: Sequence[str]
) -> dict[str, bytes]:
    """The same sheet as files by format: titles are text, images have all their pixels."""
    if not formats:
        return {}
    from matplotlib.figure import Figure

    pitch = SHEET_TILE + SHEET_GAP
    width, height = len(names) * pitch, len(rows) * pitch + SHEET_HEADER
    with _plain_style():
        figure = Figure(figsize=(width, height))
        for column, name in enumerate(names):
            title = _fitting_text(name)
            figure.text(
                (column * pitch + SHEET_TILE / 2) / width, 1 - 0.06 / height, title, ha="center", va="top", size=7
            )
            for number, images in enumerate(rows):
                bottom = height - SHEET_HEADER - (number + 1) * pitch + SHEET_GAP
                box = column * pitch / width, bottom / height, SHEET_TILE / width, SHEET_TILE / height
                axes = figure.add_axes(box)
                axes.imshow(cv2.cvtColor(images[column], cv2.COLOR_BGR2RGB), interpolation="none")
                axes.set_axis_off()
        return _saved(figure, formats)


def _fitting_text(name: str) -> str:
    return name if len(name) <= MAX_TITLE else f"{name[: MAX_TITLE - 1]}…"


@contextlib.contextmanager
def _plain_style() -> Iterator[None]:
    """matplotlib's own style, whatever the user's files say."""
    import matplotlib

    plain = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
    with matplotlib.rc_context({**plain, **STYLE}):
        yield


def _saved(figure: "Figure", formats: Sequence[str]) -> dict[str, bytes]:
    """The figure as files by format; the same figure gives the same bytes."""
    files = {}
    for name in formats:
        file = io.BytesIO()
        figure.savefig(file, format=name, metadata=METADATA[name])
        files[name] = file.getvalue()
    return files


def _restored(root: Path, results: Results, row: Row, condition: str, key: str, tile: int) -> np.ndarray:
    """The restored image, or a tile in its place; files that are not in the results are not shown."""
    if not attempted(results, row, condition):
        return missing_tile(tile, "none")
    if reason := results.missing_reason(row.name, condition, key):
        return missing_tile(tile, "skipped" if reason == NO_REFERENCE else "failed")
    return read_or_missing_tile(restored_path(root, row, condition, key), tile, "missing")


def _short(name: str) -> str:
    """A title that is short enough for its tile; OpenCV draws ASCII only."""
    plain = name.encode("ascii", "replace").decode()
    return plain if len(plain) <= MAX_TITLE else f"{plain[: MAX_TITLE - 2]}.."


def read_or_missing_tile(path: Path, tile: int, word: str) -> np.ndarray:
    """Read an image file, or return a gray tile with a cross and `word`, (tile, tile, 3) BGR uint8."""
    try:
        return decode_image(path.read_bytes(), str(path))
    except (OSError, DataError):
        return missing_tile(tile, word)


def missing_tile(tile: int, word: str) -> np.ndarray:
    """A gray tile with a cross and a word, (tile, tile, 3) BGR uint8."""
    image = np.full((tile, tile, 3), 176, np.uint8)
    cv2.line(image, (0, 0), (tile - 1, tile - 1), (120, 120, 120), 1, cv2.LINE_AA)
    cv2.line(image, (0, tile - 1), (tile - 1, 0), (120, 120, 120), 1, cv2.LINE_AA)
    (width, height), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, 1, 1)
    scale = 0.6 * tile / width
    left, bottom = round((tile - scale * width) / 2), round((tile + scale * height) / 2)
    gap = max(1, tile // 32)
    top, right = round(bottom - scale * height), tile - left
    cv2.rectangle(image, (left - gap, top - gap), (right + gap, bottom + gap), (176, 176, 176), -1)
    cv2.putText(image, word, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), 1, cv2.LINE_AA)
    return image


def curves(summary: Summary, formats: Sequence[str] = VECTOR_FORMATS) -> tuple[np.ndarray, dict[str, bytes]]:
    """Plot each metric over the conditions, with 95 % intervals, one panel per metric.

    Return (H, W, 3) BGR uint8, and files by format. The axis is logarithmic if conditions are factors (``8x``). A
    hollow mark is a value that lacks images. The same summary gives the same pixels and bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    results = summary.results
    plotted = columns_with_values(summary)
    across = min(3, len(plotted))
    down = math.ceil(len(plotted) / across)
    names = [_legend_name(row.name) for row in results.rows]
    legend_columns = across if max(map(len, names)) < LEGEND_WIDTH else 1
    legend_height = 0.24 * math.ceil(len(names) / legend_columns) + 0.2
    height = PANEL[1] * down + legend_height
    with _plain_style():
        figure = Figure(figsize=(PANEL[0] * across, height), dpi=120)
        canvas = FigureCanvasAgg(figure)
        for index, column in enumerate(plotted):
            axes = figure.add_subplot(down, across, index + 1)
            handles = [_curve(axes, summary, number, column.name) for number in range(len(results.rows))]
            _dress(axes, column.head, results.conditions)
        figure.tight_layout(rect=(0, legend_height / height, 1, 1))
        figure.legend(handles, names, loc="lower left", frameon=False, ncols=legend_columns)
        canvas.draw()
        image = cv2.cvtColor(np.asarray(canvas.buffer_rgba()), cv2.COLOR_RGBA2BGR)
        return image, _saved(figure, formats)


def columns_with_values(summary: Summary) -> list[Column]:
    """The metrics that have a value to plot."""
    valued = {index.column for index, cell in summary.cells.items() if np.isfinite(cell.value)}
    return [column for column in summary.results.columns if column.name in valued and column.ranked]


def _curve(axes, summary: Summary, number: int, column: str):
    """Plot one method into a panel, and return its legend handle."""
    row, conditions = summary.results.rows[number], summary.results.conditions
    style = line_style(number)
    positions = _positions(conditions)
    cells = [summary.cells[row.name, condition, column] for condition in conditions]
    (line,) = axes.plot(positions, [cell.value for cell in cells], linewidth=1.5, **style)
    intervals = [summary.intervals.get(CellIndex(row.name, condition, column)) for condition in conditions]
    for position, cell, interval in zip(positions, cells, intervals, strict=True):
        if interval:
            axes.plot([position, position], interval, color=style["color"], linewidth=1)
        if not cell.complete and np.isfinite(cell.value):
            axes.plot([position], [cell.value], markerfacecolor="white", **style)
    return line


def line_style(number: int) -> dict[str, str]:
    """Color, marker and line of the method of this number, from 0; the first 24 all differ."""
    turn, index = divmod(number, len(COLORS))
    return {"color": COLORS[index], "marker": MARKERS[index], "linestyle": LINES[turn % len(LINES)]}


def _positions(conditions: Sequence[str]) -> list[float]:
    """Positions of the conditions on the axis: factors by their logarithm, others one after the other."""
    factors = [condition.removesuffix("x") for condition in conditions]
    if all(factor.isdigit() and int(factor) > 0 for factor in factors):
        return [math.log2(int(factor)) for factor in factors]
    return list(map(float, range(len(conditions))))


def _dress(axes, head: str, conditions: Sequence[str]) -> None:
    axes.set_title(head)
    axes.set_xticks(_positions(conditions), conditions)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend_name(name: str) -> str:
    """A name for the legend: matplotlib omits names that begin with an underscore, and does not break lines."""
    short = name if len(name) <= 60 else f"{name[:59]}…"
    return f" {short}"
