"""The page of an evaluation: everything in one file that opens from the disk, without a network."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpen_plugin.evaluate.report.breakdown import Breakdown
from gpen_plugin.evaluate.report.breakdown_tables import SIGNS, heading, shown
from gpen_plugin.evaluate.report.embedded import choose_cards, embedded_cards
from gpen_plugin.evaluate.report.options import ReportOptions
from gpen_plugin.evaluate.report.summary import Summary, one_line
from gpen_plugin.evaluate.results import Column, Results

HERE = Path(__file__).parent
NOTHING = "has nothing for this image"


class Figure(NamedTuple):
    """An image in the page: what it shows, the file that it is also in, and its data URI."""

    caption: str
    file: str
    uri: str


def page(
    root: Path, summary: Summary, figures: list[Figure], options: ReportOptions, breakdown: Breakdown | None = None
) -> str:
    """Fill the page.

    Args:
        root: folder of the evaluation, which the page will lie in.
        summary: the tables.
        figures: curves and sheets.
        options: how many images are put inside.
        breakdown: by labels, where there are any.
    Returns:
        HTML that names no address outside of its folder.
    """
    import jinja2

    results = summary.results
    cards = choose_cards(results, options.embedded_images)
    limit = round(options.embedded_megabytes * 1e6)
    images = embedded_cards(root, results, cards, options.embedded_size, limit)
    uris = [*images.uris.values(), *(figure.uri for figure in figures)]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(_part("report.html"))
    return template.render(
        summary=summary,
        results=results,
        figures=figures,
        breakdown=breakdown,
        heading=heading,
        shown=shown,
        signs=SIGNS,
        embedded_size=options.embedded_size,
        inside=images.cards,
        wanted=len(results.keys) * len(results.conditions),
        megabytes=sum(map(len, uris)) / 1e6,
        style=_part("report.css"),
        script=_part("report.js"),
        data=_as_script({**_browsed(results), "images": images.uris}),
    )


def _part(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _browsed(results: Results) -> dict:
    """What the image browser knows. Values are [row][condition][metric][image], null where there is none."""
    columns = [column for column in results.columns if not column.of_sets]
    return {
        "keys": results.keys,
        "conditions": results.conditions,
        "truth": results.has_truth,
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
        "nothing": NOTHING,
    }


def _values(results: Results, row: str, condition: str, column: Column) -> list[float | None]:
    """Values of the images with one digit more than a table shows: enough to rank by, and not heavy."""
    values = results.of_images(row, condition, column.name)
    return [round(value, column.decimals + 1) if np.isfinite(value) else None for value in values.tolist()]


def _failures(results: Results, row: str) -> list[dict[int, str]]:
    """Per condition: place of an image -> why the method gave nothing for it."""
    return [
        {
            place: one_line(results.images.get(row, {}).get(condition, {}).get(key, {}).get("failure", NOTHING))
            for place, key in enumerate(results.keys)
            if not results.has_image(row, condition, key)
        }
        for condition in results.conditions
    ]


def _as_script(content: dict) -> str:
    """JSON that no browser takes for the end of its script element, or for a comment."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
