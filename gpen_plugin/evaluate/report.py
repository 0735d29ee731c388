"""The report of an evaluation: tables, sheets, curves and an offline report.html; equal results give equal bytes."""

import base64
import dataclasses
import importlib.util
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from gpen_plugin.data.image_source import decode_image
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate import figures, tables
from gpen_plugin.evaluate.groups import GroupMeans, read_labels
from gpen_plugin.evaluate.options import ReportOptions, check_reference
from gpen_plugin.evaluate.results import (
    NO_IMAGE,
    NO_REFERENCE,
    Column,
    Results,
    delete_file,
    input_path,
    restored_path,
    truth_path,
    write_text,
)
from gpen_plugin.evaluate.stats import Summary, average_runs, one_line
from gpen_plugin.images.files import write_image, write_whole

QUALITY = 90
LOSSLESS_SIDE = 128  # images up to this side stay as they are
EVENLY_ONE_IN = 3  # one image in three is evenly spaced, the others are extremes
HERE = Path(__file__).parent
OPTIONAL_FILES = (  # that only some reports have
    *(f"{name}.{suffix}" for name in ("breakdown", "against") for suffix in ("md", "tex", "csv")),
    *(f"curves.{suffix}" for suffix in ("png", *figures.VECTOR_FORMATS)),
)


class Card(NamedTuple):
    """An image in a condition, as the page shows it: input, methods, ground truth."""

    condition: str
    key: str


class EmbeddedImages(NamedTuple):
    """Images inside a page."""

    uris: dict[str, str]  # path below the evaluation's folder, with ``/`` -> data URI
    cards: int  # how many images they belong to; one counts once per condition


def choose_cards(results: Results, count: int) -> list[Card]:
    """Choose `count` images for the page: extremes of every metric, and some evenly spaced.

    The worst and the best image of each metric, condition and method come first, then the second worst and the second
    best, and so on; later methods precede earlier ones.
    """
    all_cards = [Card(condition, key) for condition in results.conditions for key in results.keys]
    if count >= len(all_cards):
        return all_cards
    evenly = count // EVENLY_ONE_IN
    spread = [all_cards[index] for index in np.linspace(0, len(all_cards) - 1, evenly).astype(int)]
    extremes = islice(_without_doubles(_extremes(results)), count - evenly)
    return list(islice(_without_doubles([*extremes, *spread, *all_cards]), count))


def _without_doubles(cards: Iterable[Card]) -> Iterator[Card]:
    seen = set()
    for card in cards:
        if card not in seen:
            seen.add(card)
            yield card


def _extremes(results: Results) -> Iterator[Card]:
    orders = []
    for column in results.columns:
        for condition in results.conditions:
            for row in reversed(results.rows):
                values = results.image_values(row.name, condition, column.name)
                known = np.flatnonzero(np.isfinite(values))
                worst_first = known[np.argsort(values[known] * (-1 if column.lower_is_better else 1), kind="stable")]
                orders.append([Card(condition, results.keys[index]) for index in worst_first])
    for depth in range(len(results.keys)):
        for order in orders:
            if depth < len(order):
                yield order[depth]
                yield order[-1 - depth]


def embed_cards(
    root: Path,
    results: Results,
    cards: Sequence[Card],
    size: int,  # larger images are reduced to this side, pixels
    limit: int,  # characters of all data URIs; the first card that exceeds it ends the list
) -> EmbeddedImages:
    """Encode the images of `cards` that exist."""
    packed: dict[str, str] = {}
    weight, done = 0, 0
    for card in cards:
        paths = [input_path(root, card.condition, card.key), truth_path(root, card.key)]
        restored = [row for row in results.rows if results.has_image(row.name, card.condition, card.key)]
        paths += [restored_path(root, row, card.condition, card.key) for row in restored]
        names = {path: path.relative_to(root).as_posix() for path in paths}
        new = {name: _encode_file(path, size) for path, name in names.items() if name not in packed}
        new = {name: uri for name, uri in new.items() if uri}
        weight += sum(map(len, new.values()))
        if weight > limit:
            break
        packed |= new
        done += 1
    return EmbeddedImages(packed, done)


def _encode_file(path: Path, size: int) -> str:
    try:
        return encode_image(decode_image(path.read_bytes(), str(path)), size)
    except (OSError, DataError):
        return ""


def encode_image(image: np.ndarray, size: int | None = None) -> str:
    """An image, (H, W, 3) BGR uint8, as a data URI: PNG if it is small, else JPEG."""
    longer = max(image.shape[:2])
    if size and longer > size:
        height, width = (max(1, round(length * size / longer)) for length in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if max(image.shape[:2]) <= LOSSLESS_SIDE:
        return lossless_uri(image)
    return _uri(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1], "jpeg")


def lossless_uri(image: np.ndarray) -> str:
    """An image, (H, W, 3) BGR uint8, as a data URI of a PNG file."""
    return _uri(cv2.imencode(".png", image)[1], "png")


def _uri(file: np.ndarray, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.tobytes()).decode()}"


class Figure(NamedTuple):
    """An image in the page: its caption, its file, and its data URI."""

    caption: str
    file: str
    uri: str
    vector_files: list[str]  # the same as PDF and SVG


def page(
    root: Path, summary: Summary, shown: Results, figures: list[Figure], options: ReportOptions, breakdown=None
) -> str:
    """Fill the template of the page; the HTML loads nothing from outside its folder."""
    results = shown  # a row per method, and the conditions of the images
    cards = choose_cards(results, options.embedded_images)
    limit = round(options.embedded_megabytes * 1e6)
    images = embed_cards(root, results, cards, options.embedded_size, limit)
    uris = [*images.uris.values(), *(figure.uri for figure in figures)]
    return _template().render(
        summary=summary,
        results=summary.results,
        figures=figures,
        breakdown=breakdown,
        heading=tables.table_heading,
        format_part=tables.format_part,
        signs=tables.SIGNS,
        embedded_size=options.embedded_size,
        inside=images.cards,
        wanted=len(results.keys) * len(results.conditions),
        megabytes=sum(map(len, uris)) / 1e6,
        style=_part("report.css"),
        script=_part("report.js"),
        data=_json_for_script({**_browser_data(results), "images": images.uris}),
    )


@cache
def _template():
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_part("report.html"))


def _part(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _browser_data(results: Results) -> dict:
    """The data of the image browser. Values are [row][condition][metric][image], null if missing."""
    columns = [column for column in results.columns if not column.of_sets]
    return {
        "keys": results.keys,
        "conditions": results.conditions,
        "truth": results.has_truth,
        "without_truth": [index for index, key in enumerate(results.keys) if not results.has_truth_of(key)],
        "metrics": [
            {"label": column.label, "head": column.head, "lower": column.lower_is_better, "decimals": column.decimals}
            for column in columns
        ],
        "methods": [{"name": row.name, "folder": row.folder, "failure": one_line(row.failure)} for row in results.rows],
        "values": [
            [[_values(results, row.name, condition, column) for column in columns] for condition in results.conditions]
            for row in results.rows
        ],
        "failures": [_failures(results, row.name) for row in results.rows],
        "nothing": NO_IMAGE,
        "skipped": NO_REFERENCE,
    }


def _values(results: Results, row: str, condition: str, column: Column) -> list[float | None]:
    """Values of the images with one digit more than a table shows: enough to rank by, and not heavy."""
    values = results.image_values(row, condition, column.name)
    return [round(value, column.decimals + 1) if np.isfinite(value) else None for value in values.tolist()]


def _failures(results: Results, row: str) -> list[dict[int, str]]:
    """Per condition: index of an image -> why the method failed on it."""
    return [
        {
            index: one_line(results.missing_reason(row, condition, key))
            for index, key in enumerate(results.keys)
            if not results.has_image(row, condition, key)
        }
        for condition in results.conditions
    ]


def _json_for_script(content: dict) -> str:
    """JSON that no browser takes for the end of its script element, or for a comment."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def check_report(options: ReportOptions) -> None:
    """Check before the long work whether the report can be written.

    OptionError: a package is not installed, or the labels lack a column. DataError: the labels cannot be read.
    """
    _require_packages()
    read_labels(options)


def _require_packages() -> None:
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        got = f"the report needs {' and '.join(missing)}, which cannot be imported"
        raise OptionError("report", got, hint='Run: pip install "gpen_plugin[evaluate]"')


def write_report(root: Path, results: Results, options: ReportOptions) -> list[Path]:
    """Write every table, figure and page of an evaluation below `root`, and return the files.

    These are table.md, .tex, .csv and .json, per_image.csv, breakdown.md, .tex and .csv with labels, against.md, .tex
    and .csv with a reference method, sheets, curves for several conditions, and report.html last.

    OptionError: a package is missing, or the options name an image, label or method that does not exist.
    DataError: a file cannot be written, or the labels cannot be read.
    """
    _require_packages()
    _check_keys(results, options)
    labels = read_labels(options)
    summary = Summary.of(results, options.bootstrap_resamples, options.bootstrap_seed)
    check_reference(options.against, [row.name for row in summary.results.rows])
    texts = {
        "table.md": tables.markdown(summary),
        "table.tex": tables.latex(summary),
        "table.csv": tables.wide_csv(summary),
        "table.json": tables.table_json(summary),
        "per_image.csv": tables.per_image_csv(results),
    }
    whole = dataclasses.replace(results, test_sets={})  # labels group the images of all test sets
    breakdown = GroupMeans.of(Summary.of(whole, summary.resamples, summary.seed), labels) if labels else None
    if breakdown:
        texts["breakdown.md"] = tables.groups_markdown(breakdown)
        texts["breakdown.tex"] = tables.groups_latex(breakdown)
        texts["breakdown.csv"] = tables.groups_csv(breakdown)
    if options.against:
        texts["against.md"] = tables.compare_markdown(summary, options.against)
        texts["against.tex"] = tables.compare_latex(summary, options.against)
        texts["against.csv"] = tables.compare_csv(summary, options.against)
    for name in OPTIONAL_FILES:
        delete_file(root / name)  # of an earlier report
    for name, text in texts.items():
        write_text(root / name, text)
    shown = average_runs(results)
    drawn = [*_curves(root, summary, options), *_sheets(root, shown, options)]
    write_text(root / "report.html", page(root, summary, shown, drawn, options, breakdown))
    images = [name for figure in drawn for name in (figure.file, *figure.vector_files)]
    return [root / name for name in (*texts, *images, "report.html")]


def _check_keys(results: Results, options: ReportOptions) -> None:
    if isinstance(options.sheet_images, int):
        return
    unknown = [key for key in options.sheet_images if key not in results.keys]
    if unknown:
        got = f"got {', '.join(unknown[:5])}, none of the {len(results.keys)} images"
        raise OptionError("report:sheet_images", got, f"keys such as {results.keys[0]}", "Or give a number of images.")


def _curves(root: Path, summary: Summary, options: ReportOptions) -> Iterator[Figure]:
    is_curve = summary.has_conditions and not summary.results.test_sets
    if not (options.curves and is_curve and figures.columns_with_values(summary)):
        return
    image, files = figures.curves(summary, options.vector_figures)
    write_image(root / "curves.png", image)
    caption = "Each metric over the conditions. Bars are 95 % intervals. Hollow marks lack images."
    yield Figure(caption, "curves.png", lossless_uri(image), _write_vectors(root, "curves", files))


def _write_vectors(root: Path, stem: str, files: dict[str, bytes]) -> list[str]:
    for suffix, content in files.items():
        write_whole(root / f"{stem}.{suffix}", content)
    return [f"{stem}.{suffix}" for suffix in files]


def _sheets(root: Path, results: Results, options: ReportOptions) -> Iterator[Figure]:
    choice = figures.choose_images(results, options.sheet_images)
    names = figures.column_names(results)
    for condition in results.conditions:
        rows = figures.sheet_images(root, results, condition, choice.keys, options.sheet_tile)
        image = figures.comparison_sheet(rows, names, options.sheet_tile)
        stem = f"sheets/{condition.replace('/', '_') or 'sheet'}"
        file = f"{stem}.png"
        write_image(root / file, image)
        vectors = _write_vectors(root, stem, figures.vector_sheet(rows, names, options.vector_figures))
        prefix = f"Condition {condition}. " if condition else ""
        caption = f"{prefix}{', '.join(names)}. Rows, {choice.how}: {', '.join(choice.keys)}."
        yield Figure(caption, file, encode_image(image), vectors)
