"""The paper's Figure 8: how often each method came at which rank."""

import numpy as np

from gpen_plugin.errors import OptionError
from gpen_plugin.study.tally import Tally

EVEN = 0.46  # a grey on which black and white letters stand out alike


def chart(tally: Tally) -> np.ndarray:
    """Draw one bar per method, divided into the shares of rank 1 (darkest, left) to rank k.

    The colours are those of cividis, whose lightness grows evenly: told apart without colour too.

    Args:
        tally: of the votes.
    Returns:
        (H, W, 3) BGR uint8, the same for the same votes.
    Raises:
        OptionError: matplotlib is not installed.
    """
    figure, canvas, colours = _canvas(len(tally.methods))
    axes = figure.add_subplot()
    left = np.zeros(len(tally.methods))
    places = np.arange(len(tally.methods))
    for rank, colour in enumerate(colours):
        width = 100 * tally.shares[:, rank]
        axes.barh(places, width, left=left, height=0.72, color=colour, edgecolor="white", label=f"{rank + 1}")
        for place in np.flatnonzero(width >= 5):
            ink = "white" if _lightness(colour) < EVEN else "black"
            weight = "bold" if rank == 0 else "normal"
            at = (left[place] + width[place] / 2, place)
            axes.text(*at, f"{width[place]:.0f}", ha="center", va="center", color=ink, fontsize=9, fontweight=weight)
        left += width
    axes.set_yticks(places, tally.methods, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"share of votes in %  ({tally.voters} voters, {tally.images} images, {tally.rankings} rankings)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="rank", ncols=len(colours), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, 2::-1])


def _canvas(methods: int):
    """A figure of its own, so that neither a user's settings for windows nor other figures matter."""
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = 'Run: pip install "gpen_plugin[evaluate]"'
        raise OptionError("study count", "matplotlib is not installed", "what draws the chart", hint) from error
    figure = Figure(figsize=(8, 1.6 + 0.48 * methods), dpi=150, layout="constrained")
    return figure, FigureCanvasAgg(figure), colormaps["cividis"](np.linspace(0.0, 1.0, methods))


def _lightness(colour: np.ndarray) -> float:
    """Relative luminance, near enough to choose between black and white letters."""
    return float(np.dot(colour[:3], [0.2126, 0.7152, 0.0722]))
