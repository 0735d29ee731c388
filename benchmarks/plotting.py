"""Draw how a cost grows: one small PNG per plot, with units on its axes."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent / "plots"
COLOURS = {"reference ops": "tab:gray"}  # as everywhere: grey is what is compared with


def draw(
    name: str,
    title: str,
    x: tuple[str, Sequence[float]],
    y: str,
    lines: Mapping[str, Sequence[float]],
    *,
    octaves: str = "xy",
) -> str:
    """Draw one plot and write it to the folder of plots.

    Args:
        name: of its file, without the ending.
        title: above it.
        x: what the horizontal axis is, with its unit, and its values.
        y: what the vertical axis is, with its unit.
        lines: heights by the name of the line; a shorter line ends early.
        octaves: the axes that go by doublings, of ``xy``; the others are plain, and start at 0.
    Returns:
        The file's path from the folder of the benchmarks.
    """
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(5.6, 3.4), dpi=100, layout="constrained")
        axes = figure.add_subplot()
        for line, heights in lines.items():
            axes.plot(x[1][: len(heights)], heights, marker="o", label=line, color=COLOURS.get(line))
        axes.set(title=title, xlabel=x[0], ylabel=y)
        if "x" in octaves:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
        if "y" in octaves:
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter("{x:g}")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xticks(x[1])
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend()
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", metadata={"Software": None})
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.png"
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(drawn.getvalue())
    temporary.replace(path)
    return f"{FOLDER.name}/{path.name}"
