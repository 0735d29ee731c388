"""Write the report of an evaluation: tables, sheets, curves, and one page that shows them all without a network.

Everything here is a function of the results and the images: the same twice gives the same bytes.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate.report import against, breakdown_tables, figures, table_data, tables
from gpen_plugin.evaluate.report.breakdown import Breakdown
from gpen_plugin.evaluate.report.embedded import lossless_uri, packed_image
from gpen_plugin.evaluate.report.labels import read_labels
from gpen_plugin.evaluate.report.options import ReportOptions, check_reference
from gpen_plugin.evaluate.report.page import Figure, page
from gpen_plugin.evaluate.report.summary import Summary
from gpen_plugin.evaluate.results import Results, delete_file, write_text
from gpen_plugin.images.files import write_image

__all__ = ["SOMETIMES", "ReportOptions", "check_report", "write_report"]

SOMETIMES = ("breakdown.md", "breakdown.csv", "against.md", "against.csv", "curves.png")
"""Files that not every report has."""


def check_report(options: ReportOptions) -> None:
    """Find out before the long work whether there will be a report.

    Raises:
        OptionError: a package that draws or fills it is not installed, or the labels lack a column.
        DataError: the labels cannot be read.
    """
    _require_packages()
    read_labels(options)


def _require_packages() -> None:
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        got = f"the report needs {' and '.join(missing)}, which cannot be imported"
        raise OptionError("report", got, hint='Run: pip install "gpen_plugin[evaluate]"')


def write_report(root: Path, results: Results, options: ReportOptions) -> list[Path]:
    """Write every table, figure and page of an evaluation below `root`.

    Args:
        root: the folder that holds ``inputs``, ``truth`` and ``methods``.
        results: what was measured.
        options: the section ``report:``.
    Returns:
        The files: table.md, .tex, .csv and .json, per_image.csv, breakdown.md and .csv where there are labels,
        against.md and .csv where a method is named, sheets/*.png, curves.png where there are several conditions, and
        report.html last.
    Raises:
        OptionError: a package is missing, an image of ``sheet_images`` is not one of the evaluation, or a column of
            ``label_columns`` is none of the labels, or ``against`` is none of the methods.
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
        "table.csv": table_data.wide_csv(summary),
        "table.json": table_data.table_json(summary),
        "per_image.csv": table_data.per_image_csv(results),
    }
    breakdown = Breakdown.of(summary, labels) if labels else None
    if breakdown:
        texts["breakdown.md"] = breakdown_tables.breakdown_markdown(breakdown)
        texts["breakdown.csv"] = breakdown_tables.breakdown_csv(breakdown)
    if options.against:
        texts["against.md"] = against.against_markdown(summary, options.against)
        texts["against.csv"] = against.against_csv(summary, options.against)
    for name in SOMETIMES:
        delete_file(root / name)  # of an earlier report: it would be taken for a part of this one
    for name, text in texts.items():
        write_text(root / name, text)
    shown = [*_curves(root, summary, options), *_sheets(root, summary.results, options)]
    write_text(root / "report.html", page(root, summary, shown, options, breakdown))
    return [root / name for name in (*texts, *(figure.file for figure in shown), "report.html")]


def _check_keys(results: Results, options: ReportOptions) -> None:
    if isinstance(options.sheet_images, int):
        return
    strangers = [key for key in options.sheet_images if key not in results.keys]
    if strangers:
        got = f"got {', '.join(strangers[:5])}, not among the {len(results.keys)} images"
        raise OptionError("report:sheet_images", got, f"keys such as {results.keys[0]}", "Or give a number of images.")


def _curves(root: Path, summary: Summary, options: ReportOptions) -> Iterator[Figure]:
    if not (options.curves and summary.by_scale and figures.columns_with_values(summary)):
        return
    image = figures.curves(summary)
    write_image(root / "curves.png", image)
    caption = "Each metric over the conditions. Bars are 95 % intervals; a hollow mark lacks images."
    yield Figure(caption, "curves.png", lossless_uri(image))


def _sheets(root: Path, results: Results, options: ReportOptions) -> Iterator[Figure]:
    choice = figures.choose_images(results, options.sheet_images)
    columns = ", ".join(figures.column_names(results))
    for condition in results.conditions:
        image = figures.comparison_sheet(root, results, condition, choice.keys, options.sheet_tile)
        file = f"sheets/{condition.replace('/', '_') or 'sheet'}.png"
        write_image(root / file, image)
        place = f"Condition {condition}. " if condition else ""
        yield Figure(f"{place}{columns}. Rows, {choice.how}: {', '.join(choice.keys)}.", file, packed_image(image))
