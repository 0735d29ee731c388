"""Tables of an evaluation as Markdown and LaTeX, in the paper's layout."""

import re
from collections.abc import Iterator

from gpen_plugin.evaluate.report.summary import Head, Summary
from gpen_plugin.evaluate.results import Row

_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$])")
_LATEX = {
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
    "[": "{[}",  # a line that begins so would be taken for the length of the break before it
    "]": "{]}",
    "*": "{*}",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "†": r"$^\dagger$",
    "≈": r"$\approx$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "°": r"$^\circ$",
}


def markdown(summary: Summary) -> str:
    """The table as Markdown: best bold, second underlined; below it, the notes and what the methods are.

    Where there are several conditions, a column's head holds the metric and the condition: Markdown has no groups.
    """
    results = summary.results
    heads = ["Method", *(_markdown(_title(head)) for head in summary.heads)]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row in results.rows:
        lines.append([_markdown(row.name), *(_markdown_cell(summary, row, head) for head in summary.heads)])
    if not summary.by_scale:
        lines[0].append("Images")
        lines[1].append("---:")
        for line, row in zip(lines[2:], results.rows, strict=True):
            line.append(summary.images_of(row))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "\n".join(f"- {_markdown(note)}" for note in summary.notes())
    methods = "\n".join(f"- {_markdown(row.name)}: {_markdown(row.description)}" for row in _described(summary))
    parts = [f"# {_markdown(results.title)}", table, notes, f"Methods:\n\n{methods}" if methods else ""]
    return "\n\n".join(part for part in parts if part) + "\n"


def latex(summary: Summary) -> str:
    r"""The table as a LaTeX float; it needs the packages booktabs, and graphicx if it is wider than a page.

    Where there are several conditions, they stand below their metric, as in Table 3 of the paper.
    """
    results = summary.results
    body = [_line([_latex(row.name), *_latex_cells(summary, row)]) for row in results.rows]
    lines = [
        r"% Needs \usepackage{booktabs,graphicx}; \usepackage[utf8]{inputenc} with an old LaTeX.",
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{_latex(results.title)}}}",
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
        *(rf"{_latex(note)}\par" for note in summary.notes()),
        r"\end{minipage}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _described(summary: Summary) -> Iterator[Row]:
    return (row for row in summary.results.rows if row.description)


def _title(head: Head) -> str:
    return f"{head.column.head} {head.condition}".rstrip()


def _markdown(text: str) -> str:
    """Text that no Markdown reader takes for a mark, nor for a tag."""
    escaped = _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _markdown_cell(summary: Summary, row: Row, head: Head) -> str:
    cell = summary.cell(row, head)
    text = {"best": f"**{cell.text}**", "second": f"<u>{cell.text}</u>"}.get(cell.mark, cell.text)
    return f"{text}{_signs(summary, row, head)}"


def _signs(summary: Summary, row: Row, head: Head) -> str:
    """What stands behind a number."""
    return ("†" if summary.is_short(row, head) else "") + (" ≈" if summary.is_near_best(row, head) else "")


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cells(summary: Summary, row: Row) -> list[str]:
    cells = []
    for head in summary.heads:
        cell = summary.cell(row, head)
        text = {"best": rf"\textbf{{{cell.text}}}", "second": rf"\underline{{{cell.text}}}"}.get(cell.mark, cell.text)
        cells.append(text + _latex(_signs(summary, row, head)))
    return cells if summary.by_scale else [*cells, _latex(summary.images_of(row))]


def _latex_heads(summary: Summary) -> list[str]:
    columns, conditions = summary.results.columns, summary.results.conditions
    if not summary.by_scale:
        return [_line(["Method", *(_latex(column.head) for column in columns), "Images"])]
    width = len(conditions)
    groups = [rf"\multicolumn{{{width}}}{{c}}{{{_latex(column.head)}}}" for column in columns]
    starts = [2 + width * place for place in range(len(columns))]
    rules = " ".join(rf"\cmidrule(lr){{{start}-{start + width - 1}}}" for start in starts)
    return [_line(["", *groups]), rules, _line(["Method", *(_latex(head.condition) for head in summary.heads)])]
