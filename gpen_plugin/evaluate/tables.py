"""Tables of an evaluation as Markdown and LaTeX, in the paper's layout, and as CSV and JSON."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from gpen_plugin.evaluate.groups import GroupMean, GroupMeans, GroupRow
from gpen_plugin.evaluate.results import Column, Results, Row
from gpen_plugin.evaluate.stats import CellIndex
from gpen_plugin.evaluate.summary import Head, Summary

MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$])")
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': "''",
    "[": "{[}",  # at the start of a line, LaTeX would read an option of the break before it
    "]": "{]}",
    "*": "{*}",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "†": r"$^\dagger$",
    "≈": r"$\approx$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "…": r"\dots{}",
    "°": r"$^\circ$",
}
SIGNS = {"better": "▲", "worse": "▼", "": ""}
NO_INTERVAL = (math.nan, math.nan)


def markdown_text(text: str) -> str:
    """Escape text for Markdown and HTML."""
    escaped = MARKDOWN.sub(r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex_text(text: str) -> str:
    """Escape text for LaTeX, also as an option of the command before it."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def markdown(summary: Summary) -> str:
    """The table as Markdown: best bold, second underlined; then the notes and the descriptions of the methods."""
    # With several conditions each metric has a table of its own, because Markdown has no groups of columns.
    results = summary.results
    tables = _tables_by_metric(summary) if summary.has_conditions else [_table_of_one_condition(summary)]
    notes = "\n".join(f"- {markdown_text(note)}" for note in summary.notes())
    methods = "\n".join(f"- {markdown_text(row.name)}: {markdown_text(row.description)}" for row in _described(summary))
    parts = [f"# {markdown_text(results.title)}", *tables, notes, f"Methods:\n\n{methods}" if methods else ""]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table_of_one_condition(summary: Summary) -> str:
    heads = ["Method", *(column.head for column in summary.results.columns), "Images"]
    return _markdown_table(summary, heads, summary.heads, [[summary.images_of(row)] for row in summary.results.rows])


def _tables_by_metric(summary: Summary) -> Iterator[str]:
    results = summary.results
    for column in results.columns:
        heads = [Head(column, condition) for condition in results.conditions]
        yield _markdown_table(summary, [column.head, *results.conditions], heads, [[] for _ in results.rows])


def _markdown_table(summary: Summary, titles: list[str], heads: list[Head], ends: list[list[str]]) -> str:
    """A line of titles, then per method its name, its cells, and the end of its line."""
    lines = [[*map(markdown_text, titles)], ["---", *["---:"] * (len(titles) - 1)]]
    for row, end in zip(summary.results.rows, ends, strict=True):
        lines.append([markdown_text(row.name), *(_markdown_cell(summary, row, head) for head in heads), *end])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex(summary: Summary) -> str:
    """The table as a LaTeX float; it needs the package booktabs, and graphicx if it is wider than a page."""
    # With several conditions, they stand below their metric, as in Table 3 of the paper.
    results = summary.results
    body = [_line([latex_text(row.name), *_latex_cells(summary, row)]) for row in results.rows]
    lines = [
        r"% Needs \usepackage{booktabs,graphicx}; \usepackage[utf8]{inputenc} with an old LaTeX.",
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{latex_text(results.title)}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', results.name)}}}",
        r"\resizebox{\ifdim\width>\linewidth \linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * len(summary.heads)}{'' if summary.has_conditions else 'r'}}}",
        r"\toprule",
        *_latex_heads(summary),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize\raggedright",
        *(rf"{latex_text(note)}\par" for note in summary.notes()),
        r"\end{minipage}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _described(summary: Summary) -> Iterator[Row]:
    return (row for row in summary.results.rows if row.description)


def _markdown_cell(summary: Summary, row: Row, head: Head) -> str:
    cell = summary.cell(row, head)
    text = {"best": f"**{cell.text}**", "second": f"<u>{cell.text}</u>"}.get(cell.mark, cell.text)
    return f"{text}{_signs(summary, row, head)}"


def _signs(summary: Summary, row: Row, head: Head) -> str:
    """The signs behind a number."""
    spread = summary.spread_text(row, head)
    signs = "†" if summary.is_incomplete(row, head) else ""
    return signs + (f" {spread}" if spread else "") + (" ≈" if summary.is_near_best(row, head) else "")


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cells(summary: Summary, row: Row) -> list[str]:
    cells = []
    for head in summary.heads:
        cell = summary.cell(row, head)
        text = {"best": rf"\textbf{{{cell.text}}}", "second": rf"\underline{{{cell.text}}}"}.get(cell.mark, cell.text)
        signs = _signs(summary, row, head)
        cells.append(text + (" " if signs.startswith(" ") else "") + latex_text(signs))
    return cells if summary.has_conditions else [*cells, latex_text(summary.images_of(row))]


def _latex_heads(summary: Summary) -> list[str]:
    columns, conditions = summary.results.columns, summary.results.conditions
    if not summary.has_conditions:
        return [_line(["Method", *(latex_text(column.head) for column in columns), "Images"])]
    width = len(conditions)
    groups = [rf"\multicolumn{{{width}}}{{c}}{{{latex_text(column.head)}}}" for column in columns]
    starts = [2 + width * index for index in range(len(columns))]
    rules = " ".join(rf"\cmidrule(lr){{{start}-{start + width - 1}}}" for start in starts)
    return [_line(["", *groups]), rules, _line(["Method", *(latex_text(head.condition) for head in summary.heads)])]


def wide_csv(summary: Summary) -> str:
    """One line per method and condition."""
    # Per metric: value, ends of the 95 % interval, standard deviation between runs, number of images.
    results = summary.results
    heads = ["method", "condition", "restored", "images"]
    for column in results.columns:
        heads += [column.name, *(f"{column.name}_{part}" for part in ("low", "high", "sd", "n"))]
    lines = []
    for row in results.rows:
        for condition in results.conditions:
            line = [row.name, condition, results.restored(row.name, condition), len(results.keys)]
            for column in results.columns:
                cell = summary.cell(row, Head(column, condition))
                interval = summary.intervals.get(CellIndex(row.name, condition, column.name), (math.nan, math.nan))
                spread = summary.spreads.get(CellIndex(row.name, condition, column.name))
                line += [number_text(cell.value), *map(number_text, interval)]
                line += [number_text(spread.deviation if spread else math.nan), cell.images]
            lines.append([*line, results.fingerprint["digest"]])
    return csv_text([*heads, "fingerprint"], lines)


def per_image_csv(results: Results) -> str:
    """One line per row (or run), condition, image and metric; empty if there is no value."""
    columns = [column for column in results.columns if not column.of_sets]
    lines = []
    for row in results.rows:
        for condition in results.conditions:
            for column in columns:
                values = results.image_values(row.name, condition, column.name)
                lines += [
                    [row.name, condition, key, column.name, number_text(value)]
                    for key, value in zip(results.keys, values, strict=True)
                ]
    return csv_text(["method", "condition", "image", "metric", "value"], lines)


def table_json(summary: Summary) -> str:
    """Every cell with its mark, interval, runs and difference from the best, and the notes."""
    results = summary.results
    cells = []
    for index, cell in summary.cells.items():
        interval, difference = summary.intervals.get(index), summary.differences.get(index)
        spread = summary.spreads.get(index)
        cells.append(
            {
                **index._asdict(),
                "value": _rounded(cell.value),
                "printed": cell.text,
                "mark": cell.mark,
                "images": cell.images,
                "complete": cell.complete,
                "interval": interval and [*map(_rounded, interval)],
                "runs": spread and {"values": [*map(_rounded, spread.values)], "deviation": _rounded(spread.deviation)},
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


def number_text(value: float) -> str:
    """Ten digits: more than a metric needs, and fewer than depend on the order of a sum."""
    return f"{value:.10g}" if math.isfinite(value) else ""


def _rounded(value: float) -> float | None:
    return float(number_text(value)) if math.isfinite(value) else None


def csv_text(heads: Sequence[str], lines: Iterable[Sequence]) -> str:
    """Lines as CSV."""
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(lines)
    return page.getvalue()


def groups_markdown(breakdown: GroupMeans) -> str:
    """Per metric and condition a table: groups as rows, methods as columns, means with their marks."""
    results = breakdown.summary.results
    parts = [f"# {markdown_text(results.title)}: by labels"]
    if breakdown.groups:
        for column in breakdown.columns:
            for condition in results.conditions:
                parts += [f"## {markdown_text(table_heading(column, condition))}", _table(breakdown, column, condition)]
    parts.append("\n".join(f"- {markdown_text(note)}" for note in breakdown.notes()))
    return "\n\n".join(parts) + "\n"


def table_heading(column: Column, condition: str) -> str:
    """The heading of the table of a metric in a condition."""
    return f"{column.head}, {condition}" if condition else column.head


def format_part(part: GroupMean, line: GroupRow, column: Column) -> str:
    """A mean as text, with its number of images if some have no value."""
    if math.isnan(part.mean):
        return "-"
    text = f"{round(part.mean, column.decimals) + 0.0:.{column.decimals}f}"  # no -0.00
    return text if part.images == line.group.images else f"{text} (n = {part.images})"


def _table(breakdown: GroupMeans, column: Column, condition: str) -> str:
    summary = breakdown.summary
    rows = summary.results.rows
    whole = [summary.cell(row, Head(column, condition)).text for row in rows]
    lines = [
        ["Label", "Group", "Images", *(markdown_text(row.name) for row in rows)],
        ["---", "---", *["---:"] * (1 + len(rows))],
        ["all", "", str(len(summary.results.keys)), *whole],
    ]
    for line in breakdown.lines(column, condition):
        group = line.group
        cells = [f"{format_part(part, line, column)} {SIGNS[part.mark]}".rstrip() for part in line.parts]
        lines.append([markdown_text(group.column), markdown_text(group.name), str(group.images), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def groups_csv(breakdown: GroupMeans) -> str:
    """One line per condition, label, group, method and metric."""
    results = breakdown.summary.results
    lines = []
    for condition in results.conditions:
        for number, group in enumerate(breakdown.groups):
            for row in results.rows:
                for column in breakdown.columns:
                    part = breakdown.parts[row.name, condition, column.name][number]
                    index = [condition, group.column, group.name, group.images, row.name, column.name, part.images]
                    numbers = [part.mean, *(part.interval or NO_INTERVAL)]
                    numbers += [part.difference, *(part.difference_interval or NO_INTERVAL)]
                    lines.append([*index, *map(number_text, numbers), part.mark, results.fingerprint["digest"]])
    heads = ["condition", "label", "group", "images", "method", "metric", "n", "mean", "low", "high"]
    heads += ["difference", "difference_low", "difference_high", "mark", "fingerprint"]
    return csv_text(heads, lines)
