"""The breakdown by labels as Markdown and as CSV."""

import math

from gpen_plugin.evaluate.report.breakdown import Breakdown, Line, Part
from gpen_plugin.evaluate.report.escaping import markdown_text
from gpen_plugin.evaluate.report.summary import Head
from gpen_plugin.evaluate.report.table_data import csv_text, number_text
from gpen_plugin.evaluate.results import Column

SIGNS = {"better": "▲", "worse": "▼", "": ""}
NO_INTERVAL = (math.nan, math.nan)


def breakdown_markdown(breakdown: Breakdown) -> str:
    """Per metric and condition a table: groups as lines, methods as columns, means with their marks."""
    results = breakdown.summary.results
    parts = [f"# {markdown_text(results.title)}: by labels"]
    if breakdown.groups:
        for column in breakdown.columns:
            for condition in results.conditions:
                parts += [f"## {markdown_text(heading(column, condition))}", _table(breakdown, column, condition)]
    parts.append("\n".join(f"- {markdown_text(note)}" for note in breakdown.notes()))
    return "\n\n".join(parts) + "\n"


def heading(column: Column, condition: str) -> str:
    """Above the table of a metric in a condition."""
    return f"{column.head}, {condition}" if condition else column.head


def shown(part: Part, line: Line, column: Column) -> str:
    """A mean as it is printed; how many images it is over where the group has more."""
    if math.isnan(part.mean):
        return "-"
    text = f"{round(part.mean, column.decimals) + 0.0:.{column.decimals}f}"  # no -0.00
    return text if part.images == line.group.images else f"{text} (n = {part.images})"


def _table(breakdown: Breakdown, column: Column, condition: str) -> str:
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
        cells = [f"{shown(part, line, column)} {SIGNS[part.mark]}".rstrip() for part in line.parts]
        lines.append([markdown_text(group.column), markdown_text(group.name), str(group.images), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def breakdown_csv(breakdown: Breakdown) -> str:
    """One line per condition, label, group, method and metric; no value where there is none."""
    results = breakdown.summary.results
    lines = []
    for condition in results.conditions:
        for number, group in enumerate(breakdown.groups):
            for row in results.rows:
                for column in breakdown.columns:
                    part = breakdown.parts[row.name, condition, column.name][number]
                    place = [condition, group.column, group.name, group.images, row.name, column.name, part.images]
                    numbers = [part.mean, *(part.interval or NO_INTERVAL)]
                    numbers += [part.difference, *(part.difference_interval or NO_INTERVAL)]
                    lines.append([*place, *map(number_text, numbers), part.mark, results.fingerprint["digest"]])
    heads = ["condition", "label", "group", "images", "method", "metric", "n", "mean", "low", "high"]
    heads += ["difference", "difference_low", "difference_high", "mark", "fingerprint"]
    return csv_text(heads, lines)
