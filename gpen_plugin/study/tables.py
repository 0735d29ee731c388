"""The tally in writing: Markdown and LaTeX to read, CSV and JSON to go on with."""

import csv
import io
import json
import math

import numpy as np

from gpen_plugin.evaluate.report.escaping import latex_text, markdown_text
from gpen_plugin.study.key_file import StudyKey
from gpen_plugin.study.tally import DRAWS, Tally

HEADS = ("Method", "Rank 1 (%) ↑", "Mean rank ↓", "95 % interval")
SUSPICIOUS = 0.01  # p below which a reader is told that positions drew votes


def markdown(tally: Tally, key: StudyKey, told: list[str]) -> str:
    """The table with what a reader has to know below it.

    Args:
        tally: of the votes.
        key: of the study.
        told: files refused or left out, in words.
    """
    names = [markdown_text(name) for name in tally.methods]
    ranks = [f"Rank {rank + 1} (%)" for rank in range(1, len(names))]
    wins = [list(map(_percent, row)) for row in tally.wins]
    lines = _table([*HEADS, *ranks], names, _marked(tally, "**{}**", "<u>{}</u>"))
    lines += ["", "Rankings in which the row's method stands above the column's (%):", ""]
    lines += [*_table(["", *names], names, wins), ""]
    return "\n".join([*lines, *(f"- {note}" for note in [*notes(tally, key), *told])]) + "\n"


def latex(tally: Tally, key: StudyKey) -> str:
    """The table for a paper, with booktabs."""
    rows = zip(tally.methods, _marked(tally, r"\textbf{{{}}}", r"\underline{{{}}}"), strict=True)
    ranks = [rf"Rank {rank + 1} (\%)" for rank in range(1, len(tally.methods))]
    heads = [*map(latex_text, HEADS), *ranks]
    lines = [r"% Needs \usepackage{booktabs}; \usepackage[utf8]{inputenc} with an old LaTeX."]
    lines += [f"% {note}" for note in notes(tally, key)]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", r"\toprule", " & ".join(heads) + r" \\", r"\midrule"]
    lines += [" & ".join([latex_text(name), *cells]) + r" \\" for name, cells in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def comma_separated(tally: Tally) -> str:
    """One line per method, all digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ranks = [f"share_of_rank_{rank + 1}" for rank in range(len(tally.methods))]
    writer.writerow(["method", "mean_rank", "mean_rank_lower", "mean_rank_upper", *ranks])
    for name, mean, interval, shares in zip(*_columns(tally), strict=True):
        writer.writerow([name, *(repr(float(value)) for value in (mean, *interval, *shares))])
    return text.getvalue()


def as_json(tally: Tally, key: StudyKey, told: list[str]) -> str:
    """Everything, for programs."""
    methods = [
        {"method": name, "mean_rank": float(mean), "interval": ends.tolist(), "shares": shares.tolist()}
        for name, mean, ends, shares in zip(*_columns(tally), strict=True)
    ]
    content = {
        "study": key.study,
        "evaluation": key.evaluation,
        "fingerprint": key.fingerprint,
        "condition": key.condition,
        "voters": tally.voters,
        "images": tally.images,
        "rankings": tally.rankings,
        "methods": methods,
        "wins": [[_number(value) for value in row] for row in tally.wins],
        "kendall_w": _number(tally.kendall_w),
        "kendall_p": _number(tally.kendall_p),
        "spearman": _number(tally.spearman),
        "first_by_position": list(map(float, tally.first_by_position)),
        "position_p": _number(tally.position_p),
        "notes": [*notes(tally, key), *told],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def notes(tally: Tally, key: StudyKey) -> list[str]:
    """What a reader has to know about the numbers, one sentence each."""
    condition = f", {key.condition}" if key.condition else ""
    found = [
        f"Study {key.study} of {key.evaluation}{condition}, protocol {key.fingerprint['digest']}.",
        f"{tally.rankings} complete rankings by {tally.voters} voters on {tally.images} of {len(key.images)} images.",
        f"Intervals: bootstrap, voters and images both drawn with replacement, {DRAWS} times.",
    ]
    if math.isfinite(tally.kendall_w):
        w = f"Kendall's W {tally.kendall_w:.3f}, mean over images ({_p(tally.kendall_p)} against no agreement)"
        found.append(f"Agreement of voters: {w}; Spearman's correlation of two voters {tally.spearman:.3f}.")
    else:
        found.append("Agreement of voters: unknown, no image was ranked by two.")
    first = ", ".join(f"{'ABCDEFGHIJKL'[at]} {_percent(share)}" for at, share in enumerate(tally.first_by_position))
    doubt = " A position on the page drew votes by itself, or chance did." if tally.position_p < SUSPICIOUS else ""
    found.append(f"Rank-1 votes by position on the page (%): {first}; {_p(tally.position_p)} if alike.{doubt}")
    if key.allow_ties:
        found.append("Ties were allowed: those that tie share the ranks that they take up.")
    if key.left_out:
        lost = ", ".join(sorted({failure.key for failure in key.left_out}))
        found.append(f"Not shown, since a method gave nothing for them: {lost}.")
    return found


def _columns(tally: Tally) -> tuple:
    return tally.methods, tally.mean_rank, tally.interval, tally.shares


def _marked(tally: Tally, best: str, second: str) -> list[list[str]]:
    """The cells right of the names: shares of rank 1 and mean ranks marked where they are best and second."""
    first = _mark([_percent(share) for share in tally.shares[:, 0]], tally.shares[:, 0], best, second)
    mean = _mark([f"{rank:.2f}" for rank in tally.mean_rank], -tally.mean_rank, best, second)
    intervals = [f"{lower:.2f}–{upper:.2f}" for lower, upper in tally.interval]
    others = [[_percent(share) for share in shares[1:]] for shares in tally.shares]
    return [list(cells[:3]) + cells[3] for cells in zip(first, mean, intervals, others, strict=True)]


def _mark(texts: list[str], goodness: np.ndarray, best: str, second: str) -> list[str]:
    """Texts that read alike are marked alike."""
    order = list(dict.fromkeys(texts[place] for place in np.argsort(-goodness, kind="stable")))
    marks = {order[0]: best} | ({order[1]: second} if len(order) > 1 else {})
    return [marks.get(text, "{}").format(text) for text in texts]


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _table(heads: list[str], names: list[str], cells: list[list[str]]) -> list[str]:
    """The lines of a Markdown table: names on the left, numbers aligned on the right."""
    rows = [
        heads,
        ["---", *["---:"] * (len(heads) - 1)],
        *([name, *row] for name, row in zip(names, cells, strict=True)),
    ]
    return [f"| {' | '.join(row)} |" for row in rows]
