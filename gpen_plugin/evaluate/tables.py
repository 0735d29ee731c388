"""Tables of an evaluation as Markdown and LaTeX, in the paper's layout, and as CSV and JSON.

Tables by groups of images, and tables of every method against one reference, are here, too.
"""

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gpen_plugin.evaluate.groups import GroupMean, GroupMeans, GroupRow
from gpen_plugin.evaluate.results import Column, Results, Row, group_by_method
from gpen_plugin.evaluate.stats import CellIndex, Head, Interval, Summary, mean_ci

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
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
}
MAX_LATEX_COLUMNS = 24  # of numbers, side by side; further metrics stand below
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
    """The table as a LaTeX float. Metrics without any value are left out, and named in one note."""
    # With several conditions, they stand below their metric, as in Table 3 of the paper.
    heads, left_out = _latex_columns(summary)
    tabulars = [_latex_tabular(summary, part) for part in _side_by_side(heads, summary.has_conditions)]
    return _latex_float(summary.results, summary.results.title, "", tabulars, summary.notes(left_out))


def _latex_columns(summary: Summary) -> tuple[list[Head], list[Column]]:
    """The heads with a value, or all if there is none; and the metrics that are left out."""
    valued = [head for head in summary.heads if any(summary.cell(row, head).images for row in summary.results.rows)]
    if not valued:
        return summary.heads, []
    names = {head.column.name for head in valued}
    return valued, [column for column in summary.results.columns if column.name not in names]


def _side_by_side(heads: Sequence[Head], has_conditions: bool) -> Iterator[list[Head]]:
    """Split the heads into tabulars of at most `MAX_LATEX_COLUMNS`, each with whole metrics."""
    part: list[Head] = []
    for _, group in itertools.groupby(heads, lambda head: head.column.name):
        metric = list(group)
        if has_conditions and part and len(part) + len(metric) > MAX_LATEX_COLUMNS:
            yield part
            part = []
        part += metric
    yield part


def _latex_tabular(summary: Summary, heads: Sequence[Head]) -> list[str]:
    body = [_line([latex_text(row.name), *_latex_cells(summary, row, heads)]) for row in summary.results.rows]
    alignment = f"l{'r' * len(heads)}{'' if summary.has_conditions else 'r'}"
    return [*_tabular(alignment, _latex_heads(summary, heads), body)]


def _tabular(alignment: str, heads: Iterable[str], body: Iterable[str]) -> Iterator[str]:
    yield r"\resizebox{\ifdim\width>\linewidth \linewidth\else\width\fi}{!}{%"
    yield rf"\begin{{tabular}}{{{alignment}}}"
    yield from (r"\toprule", *heads, r"\midrule", *body, r"\bottomrule", r"\end{tabular}}")


def _latex_float(results: Results, caption: str, suffix: str, tabulars: Iterable[Iterable[str]], notes) -> str:
    """Tabulars below each other, with a caption, a label and notes."""
    label = "-".join(filter(None, (re.sub(r"[^A-Za-z0-9]+", "-", results.name), suffix)))
    below = r"\par\medskip"
    lines = [
        r"% Needs \usepackage{amssymb,booktabs,graphicx}; \usepackage[utf8]{inputenc} with an old LaTeX.",
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\label{{tab:{label}}}",
        *itertools.chain.from_iterable([*([below] if number else []), *each] for number, each in enumerate(tabulars)),
        r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize\raggedright",
        *(rf"{latex_text(note)}\par" for note in notes),
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


def _latex_number(text: str) -> str:
    """A number with a minus in place of the hyphen."""
    return f"$-${text[1:]}" if text.startswith("-") and len(text) > 1 else text


def _latex_cells(summary: Summary, row: Row, heads: Sequence[Head]) -> list[str]:
    cells = []
    for head in heads:
        cell = summary.cell(row, head)
        number = _latex_number(cell.text)
        text = {"best": rf"\textbf{{{number}}}", "second": rf"\underline{{{number}}}"}.get(cell.mark, number)
        signs = _signs(summary, row, head)
        cells.append(text + (" " if signs.startswith(" ") else "") + latex_text(signs))
    return cells if summary.has_conditions else [*cells, latex_text(summary.images_of(row))]


def _latex_heads(summary: Summary, heads: Sequence[Head]) -> list[str]:
    if not summary.has_conditions:
        return [_line(["Method", *(latex_text(head.column.head) for head in heads), "Images"])]
    groups, rules, start = [], [], 2
    for title, members in itertools.groupby(heads, lambda head: head.column.head):
        width = len(list(members))
        groups.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(title)}}}")
        rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    below = _line(["Method", *(latex_text(head.condition) for head in heads)])
    return [_line(["", *groups]), " ".join(rules), below]


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
            line = [row.name, condition, results.restored(row.name, condition), len(results.keys_of(condition))]
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


def _group_lines(breakdown: GroupMeans, column: Column, condition: str) -> Iterator[list[str]]:
    """The table of a metric as plain text: heads, all images, and a line per group."""
    summary = breakdown.summary
    rows = summary.results.rows
    yield ["Label", "Group", "Images", *(row.name for row in rows)]
    whole = [summary.cell(row, Head(column, condition)).text for row in rows]
    yield ["all", "", str(len(summary.results.keys)), *whole]
    for line in breakdown.lines(column, condition):
        cells = [f"{format_part(part, line, column)} {SIGNS[part.mark]}".rstrip() for part in line.parts]
        yield [line.group.column, line.group.name, str(line.group.images), *cells]


def _table(breakdown: GroupMeans, column: Column, condition: str) -> str:
    heads, *lines = (
        [*map(markdown_text, line[:2]), line[2], *(map(markdown_text, line[3:]) if number == 0 else line[3:])]
        for number, line in enumerate(_group_lines(breakdown, column, condition))
    )
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)], *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def groups_latex(breakdown: GroupMeans) -> str:
    """The tables of `groups_markdown` as LaTeX floats, one per metric and condition."""
    results, floats = breakdown.summary.results, []
    for column, condition in itertools.product(breakdown.columns if breakdown.groups else (), results.conditions):
        heads, *lines = _group_lines(breakdown, column, condition)
        body = [_line([*map(latex_text, line[:3]), *map(_latex_signed, line[3:])]) for line in lines]
        tabular = _tabular("ll" + "r" * (len(heads) - 2), [_line([*map(latex_text, heads)])], body)
        caption = f"{results.title}: {table_heading(column, condition)}, by labels"
        suffix = "-".join(filter(None, ("breakdown", column.name, condition)))
        floats.append(_latex_float(results, caption, re.sub(r"[^A-Za-z0-9-]+", "-", suffix), [tabular], []))
    notes = "\n".join(f"% {note}" for note in breakdown.notes())
    return "\n".join([*floats, notes]) + "\n"


def _latex_signed(text: str) -> str:
    """Text with numbers for LaTeX: a minus for each hyphen before a digit."""
    return re.sub(r"-(?=\d)", "$-$", latex_text(text))


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


@dataclass(frozen=True)
class Comparison:
    """How far a method is from the one that all are held against."""

    mean: float  # its value less the other's: of images, over those that both have a value for; NaN if there is none
    interval: Interval | None  # 95 %, over images; None for metrics of sets, and below two images
    # `mean` of each run, in the order of both lists of runs; empty unless one of the two has several, and the other
    # as many or a single one, or where nothing can be compared
    by_run: tuple[float, ...]
    # whether the method is better or worse. Neither, where the interval holds 0 or is missing, or the runs
    # disagree; for a metric of sets only the runs count
    mark: Literal["better", "worse", ""]


def compare(summary: Summary, row: Row, reference: str, head: Head) -> Comparison:
    """Compare a method with the method called `reference` in one metric and condition."""
    results, column = summary.results, head.column
    by_run = _by_run(summary, row.name, reference, head)
    if column.of_sets:
        mean = results.value(row.name, head.condition, column) - results.value(reference, head.condition, column)
        return Comparison(mean, None, by_run, _comparison_mark(mean, by_run, column.lower_is_better))
    both = [results.image_values(name, head.condition, column.name) for name in (row.name, reference)]
    differences = both[0] - both[1]
    mean = float(np.nanmean(differences)) if np.isfinite(differences).any() else math.nan
    (interval,) = mean_ci(differences[:, None], summary.resamples, summary.seed)
    evidence = [*interval, *by_run] if interval else []
    return Comparison(mean, interval, by_run, _comparison_mark(mean, evidence, column.lower_is_better))


def compare_markdown(summary: Summary, reference: str) -> str:
    """Per condition a table: methods as rows, metrics as columns; the difference, its interval, and the runs."""
    results, parts = summary.results, [f"# {markdown_text(summary.results.title)}: minus {markdown_text(reference)}"]
    columns = [column for column in results.columns if column.ranked]
    for condition in results.conditions:
        heads = ["Method", *(column.head for column in columns)]
        lines = [[*map(markdown_text, heads)], ["---", *["---:"] * len(columns)]]
        for name, cells in _comparisons(summary, reference, [Head(column, condition) for column in columns]):
            lines.append([markdown_text(name), *cells])
        parts += [f"## {markdown_text(condition)}"] if condition else []
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append("\n".join(f"- {markdown_text(note)}" for note in _comparison_notes(summary, reference)))
    return "\n\n".join(parts) + "\n"


def _comparisons(summary: Summary, reference: str, heads: Sequence[Head]) -> Iterator[tuple[str, list[str]]]:
    """Each other method, and its difference under each head as text."""
    for row in _others(summary, reference):
        cells = [_format_comparison(compare(summary, row, reference, head), head.column.decimals) for head in heads]
        yield row.name, cells


def compare_latex(summary: Summary, reference: str) -> str:
    """The tables of `compare_markdown` as one LaTeX float. Metrics without any value are left out."""
    results, tabulars = summary.results, []
    heads = [head for head in _latex_columns(summary)[0] if head.column.ranked]
    for condition, members in itertools.groupby(sorted(heads, key=_by_condition(results)), lambda head: head.condition):
        held = list(members)
        titles = [condition or "Method", *(head.column.head for head in held)]
        body = [
            _line([latex_text(name), *map(_latex_signed, cells)])
            for name, cells in _comparisons(summary, reference, held)
        ]
        tabulars.append(_tabular("l" + "r" * len(held), [_line([*map(latex_text, titles)])], body))
    caption = f"{results.title}: minus {reference}"
    return _latex_float(results, caption, "against", tabulars, _comparison_notes(summary, reference))


def _by_condition(results: Results) -> Callable[[Head], int]:
    return lambda head: results.conditions.index(head.condition)


def compare_csv(summary: Summary, reference: str) -> str:
    """One line per condition, method and metric."""
    lines = []
    for head in (head for head in summary.heads if head.column.ranked):
        for row in _others(summary, reference):
            found = compare(summary, row, reference, head)
            ends = found.interval or (math.nan, math.nan)
            runs = " ".join(map(number_text, found.by_run))
            index = [head.condition, row.name, reference, head.column.name]
            lines.append([*index, *map(number_text, (found.mean, *ends)), runs, found.mark])
    return csv_text(
        ["condition", "method", "against", "metric", "difference", "low", "high", "by_run", "mark"],
        lines,
    )


def _others(summary: Summary, reference: str) -> Iterator[Row]:
    return (row for row in summary.results.rows if row.name != reference)


def _by_run(summary: Summary, name: str, reference: str, head: Head) -> tuple[float, ...]:
    one, other = (_values_by_run(summary.unaveraged, method, head) for method in (name, reference))
    runs = max(len(one), len(other))
    if runs == 1 or any(len(each) not in (1, runs) for each in (one, other)):
        return ()
    differences = one - other  # (R, N)
    shared = np.isfinite(differences).all(axis=0)
    return tuple(differences[:, shared].mean(axis=1).tolist()) if shared.any() else ()


def _values_by_run(unaveraged: Results, method: str, head: Head) -> np.ndarray:
    """A row per run: the value of every image, (R, N), or of the set, (R, 1)."""
    rows, (column, condition) = group_by_method(unaveraged.rows)[method], head
    if column.of_sets:
        return np.array([[unaveraged.value(row.name, condition, column)] for row in rows])
    return np.stack([unaveraged.image_values(row.name, condition, column.name) for row in rows])


def _comparison_mark(mean: float, evidence: Sequence[float], lower_is_better: bool) -> Literal["better", "worse", ""]:
    """The direction, if all the evidence is on one side of 0."""
    if not evidence or not all(math.isfinite(each) and each * mean > 0 for each in evidence):
        return ""
    return "better" if (mean < 0) == lower_is_better else "worse"


def _format_comparison(found: Comparison, decimals: int) -> str:
    if math.isnan(found.mean):
        return "-"
    text = f"{SIGNS[found.mark] or '≈'} {_signed(found.mean, decimals)}"
    if found.interval:
        text += f" [{', '.join(_signed(end, decimals) for end in found.interval)}]"
    if found.by_run:
        agreeing = sum(each * found.mean > 0 for each in found.by_run)
        text += f", {agreeing}/{len(found.by_run)}"
    return text


def _signed(number: float, decimals: int) -> str:
    return f"{round(number, decimals) + 0.0:+.{decimals}f}"  # no -0.00


def _comparison_notes(summary: Summary, reference: str) -> Iterator[str]:
    yield f"Protocol: {summary.results.fingerprint['line']}"
    yield (
        f"Each value minus that of {reference}, with the 95 % interval of the paired difference over images "
        f"({summary.resamples} bootstrap resamples, seed {summary.seed}) and the number of runs in "
        "which the difference has this sign."
    )
    yield (
        f"▲ better and ▼ worse than {reference}: the interval excludes 0 and all runs agree (of a metric of sets, "
        "which has no interval, all runs agree). ≈ no clear difference."
    )
    yield "By chance alone, two runs agree in one of two cases, and three in one of four."
