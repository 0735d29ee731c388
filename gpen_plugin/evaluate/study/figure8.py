"""The paper's Figure 8 from files of votes: the chart and its tables."""

import csv
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.results import write_text
from gpen_plugin.evaluate.study.page import StudyKey, read_key
from gpen_plugin.evaluate.study.votes import RESAMPLES, Ballot, Tally, one_per_voter, read_ballot, tally
from gpen_plugin.evaluate.tables import latex_text, markdown_text
from gpen_plugin.images.files import write_image

LIGHT_TEXT_BELOW = 0.46  # luminance at which black and white text are equally legible
HEADS = ("Method", "Rank 1 (%) ↑", "Mean rank ↓", "95 % interval")
POSITION_BIAS_P = 0.01  # below this p-value a note warns of a bias of position


def chart(tally: Tally) -> np.ndarray:
    """Plot one bar per method, divided into the fractions of rank 1 (darkest, left) to rank k.

    Return (H, W, 3) BGR uint8, the same for the same votes. OptionError: matplotlib is not installed.
    """
    figure, canvas, colors = _canvas(len(tally.methods))
    axes = figure.add_subplot()
    left = np.zeros(len(tally.methods))
    positions = np.arange(len(tally.methods))
    for rank, color in enumerate(colors):
        width = 100 * tally.shares[:, rank]
        axes.barh(positions, width, left=left, height=0.72, color=color, edgecolor="white", label=f"{rank + 1}")
        for position in np.flatnonzero(width >= 5):
            ink = "white" if _lightness(color) < LIGHT_TEXT_BELOW else "black"
            weight = "bold" if rank == 0 else "normal"
            at = (left[position] + width[position] / 2, position)
            axes.text(*at, f"{width[position]:.0f}", ha="center", va="center", color=ink, fontsize=9, fontweight=weight)
        left += width
    axes.set_yticks(positions, tally.methods, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"share of votes in %  ({tally.voters} voters, {tally.images} images, {tally.rankings} rankings)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="rank", ncols=len(colors), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, 2::-1])


def _canvas(methods: int):
    """A figure that is independent of the user's settings and of other figures."""
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = 'Run: pip install "gpen_plugin[evaluate]"'
        raise OptionError(
            "study count", "matplotlib is not installed", "the package that plots the chart", hint
        ) from error
    figure = Figure(figsize=(8, 1.6 + 0.48 * methods), dpi=150, layout="constrained")
    return figure, FigureCanvasAgg(figure), colormaps["cividis"](np.linspace(0.0, 1.0, methods))


def _lightness(color: np.ndarray) -> float:
    """Relative luminance, which decides between black and white text."""
    return float(np.dot(color[:3], [0.2126, 0.7152, 0.0722]))


def markdown(tally: Tally, key: StudyKey, messages: list[str]) -> str:
    """The table with its notes; `messages` are about files that were refused or left out."""
    names = [markdown_text(name) for name in tally.methods]
    ranks = [f"Rank {rank + 1} (%)" for rank in range(1, len(names))]
    wins = [list(map(_percent, row)) for row in tally.wins]
    lines = _table([*HEADS, *ranks], names, _marked(tally, "**{}**", "<u>{}</u>"))
    lines += ["", "Rankings in which the row's method ranks above the column's (%):", ""]
    lines += [*_table(["", *names], names, wins), ""]
    return "\n".join([*lines, *(f"- {note}" for note in [*notes(tally, key), *messages])]) + "\n"


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


def to_csv(tally: Tally) -> str:
    """One line per method, all digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ranks = [f"share_of_rank_{rank + 1}" for rank in range(len(tally.methods))]
    writer.writerow(["method", "mean_rank", "mean_rank_lower", "mean_rank_upper", *ranks])
    for name, mean, interval, shares in zip(*_columns(tally), strict=True):
        writer.writerow([name, *(repr(float(value)) for value in (mean, *interval, *shares))])
    return text.getvalue()


def to_json(tally: Tally, key: StudyKey, messages: list[str]) -> str:
    """All numbers, for programs."""
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
        "notes": [*notes(tally, key), *messages],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def notes(tally: Tally, key: StudyKey) -> list[str]:
    """Notes on the numbers for the reader, one sentence each."""
    condition = f", {key.condition}" if key.condition else ""
    found = [
        f"Study {key.study} of {key.evaluation}{condition}, protocol {key.fingerprint['digest']}.",
        f"{tally.rankings} complete rankings by {tally.voters} voters on {tally.images} of {len(key.images)} images.",
        f"Intervals: bootstrap, {RESAMPLES} resamples of both voters and images.",
    ]
    if math.isfinite(tally.kendall_w):
        w = f"Kendall's W {tally.kendall_w:.3f}, mean over images ({_p(tally.kendall_p)} against no agreement)"
        found.append(f"Agreement of voters: {w}; Spearman's correlation of two voters {tally.spearman:.3f}.")
    else:
        found.append("Agreement of voters: unknown, because no image has two voters.")
    first = ", ".join(f"{'ABCDEFGHIJKL'[at]} {_percent(share)}" for at, share in enumerate(tally.first_by_position))
    doubt = (
        " The position on the page affected the votes, or this is chance." if tally.position_p < POSITION_BIAS_P else ""
    )
    found.append(
        f"Rank-1 votes by position on the page (%): {first}; {_p(tally.position_p)} if all positions are alike.{doubt}"
    )
    if key.allow_ties:
        found.append("Ties were allowed: tied images share their ranks.")
    if key.left_out:
        lost = ", ".join(sorted({failure.key for failure in key.left_out}))
        found.append(f"Not shown, because a method failed on them: {lost}.")
    return found


def _columns(tally: Tally) -> tuple:
    return tally.methods, tally.mean_rank, tally.interval, tally.shares


def _marked(tally: Tally, best: str, second: str) -> list[list[str]]:
    """The cells right of the names: fractions of rank 1 and mean ranks, with the best and second marked."""
    first = _mark([_percent(share) for share in tally.shares[:, 0]], tally.shares[:, 0], best, second)
    mean = _mark([f"{rank:.2f}" for rank in tally.mean_rank], -tally.mean_rank, best, second)
    intervals = [f"{lower:.2f}–{upper:.2f}" for lower, upper in tally.interval]
    others = [[_percent(share) for share in shares[1:]] for shares in tally.shares]
    return [list(cells[:3]) + cells[3] for cells in zip(first, mean, intervals, others, strict=True)]


def _mark(texts: list[str], goodness: np.ndarray, best: str, second: str) -> list[str]:
    """Texts that print alike are marked alike."""
    order = list(dict.fromkeys(texts[position] for position in np.argsort(-goodness, kind="stable")))
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


def count(files: Sequence[Path], key_file: Path, output: Path) -> int:
    """Count votes and write ``figure8.png`` and ``table.md``, ``.csv``, ``.tex``, ``.json``; skip invalid files.

    Return 1 if a file was refused, else 0. DataError: no key, no complete ranking, or `output` is not writable.
    """
    key = read_key(key_file)
    ballots, refused = [], []
    for file in files:
        try:
            ballots.append(read_ballot(file, key))
        except DataError as error:
            refused.append(str(error))
    counted, messages = one_per_voter(ballots)
    messages = [
        *refused,
        *messages,
        *(_unfinished(ballot, len(key.images)) for ballot in counted if _is_unfinished(ballot, key)),
    ]
    for message in messages:
        print(f"gpen_plugin: {message}", file=sys.stderr)
    found = tally(counted, key)
    table = markdown(found, key, messages)
    write_image(output / "figure8.png", chart(found))
    write_text(output / "table.md", table)
    write_text(output / "table.csv", to_csv(found))
    write_text(output / "table.tex", latex(found, key))
    write_text(output / "table.json", to_json(found, key, messages))
    print(table)
    return 1 if refused else 0


def _is_unfinished(ballot: Ballot, key: StudyKey) -> bool:
    return len(ballot.rankings) < len(key.images)


def _unfinished(ballot: Ballot, images: int) -> str:
    begun = f", {ballot.begun} incomplete and not counted" if ballot.begun else ""
    return f"{ballot.file}: {len(ballot.rankings)} of {images} images ranked{begun}"
