"""Tables of an evaluation as Markdown and LaTeX, in the paper's layout."""

import re
from collections.abc import Iterator

from gpen_plugin.evaluate.report.escaping import latex_text, markdown_text
from gpen_plugin.evaluate.report.summary import Head, Summary
from gpen_plugin.evaluate.results import Row


def markdown(summary: Summary) -> str:
    """The table as Markdown: best bold, second underlined; below it, the notes and what the methods are.

    Where there are several conditions, each metric has a table of its own: Markdown has no groups of columns.
    """
    results = summary.results
    tables = _tables_by_metric(summary) if summary.by_scale else [_table_of_one_condition(summary)]
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
    """A line of titles, then per method its name, its cells, and what ends its line."""
    lines = [[*map(markdown_text, titles)], ["---", *["---:"] * (len(titles) - 1)]]
    for row, end in zip(summary.results.rows, ends, strict=True):
        lines.append([markdown_text(row.name), *(_markdown_cell(summary, row, head) for head in heads), *end])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex(summary: Summary) -> str:
    r"""The table as a LaTeX float; it needs the packages booktabs, and graphicx if it is wider than a page.

    Where there are several conditions, they stand below their metric, as in Table 3 of the paper.
    """
    results = summary.results
    body = [_line([latex_text(row.name), *_latex_cells(summary, row)]) for row in results.rows]
    lines = [
        r"% Needs \usepackage{booktabs,graphicx}; \usepackage[utf8]{inputenc} with an old LaTeX.",
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{latex_text(results.title)}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', results.name)}}}",
        r"\resizebox{\ifdim\width>\linewidth \linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * len(summary.heads)}{'' if summary.by_scale else 'r'}}}",
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
    """What stands behind a number."""
    spread = summary.spread_text(row, head)
    signs = "†" if summary.is_short(row, head) else ""
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
    return cells if summary.by_scale else [*cells, latex_text(summary.images_of(row))]


def _latex_heads(summary: Summary) -> list[str]:
    columns, conditions = summary.results.columns, summary.results.conditions
    if not summary.by_scale:
        return [_line(["Method", *(latex_text(column.head) for column in columns), "Images"])]
    width = len(conditions)
    groups = [rf"\multicolumn{{{width}}}{{c}}{{{latex_text(column.head)}}}" for column in columns]
    starts = [2 + width * place for place in range(len(columns))]
    rules = " ".join(rf"\cmidrule(lr){{{start}-{start + width - 1}}}" for start in starts)
    return [_line(["", *groups]), rules, _line(["Method", *(latex_text(head.condition) for head in summary.heads)])]
