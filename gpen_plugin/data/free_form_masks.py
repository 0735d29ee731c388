"""Brush strokes over a face, as somebody scribbles who wants a part of it away. Needs numpy and OpenCV alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise

import cv2
import numpy as np

from gpen_plugin.config.schema import build
from gpen_plugin.errors import OptionError


@dataclass(frozen=True)
class BrushRanges:
    """What brush strokes are drawn from, uniformly.

    A stroke is a zigzag of straight lines with round ends, all of one width. Nothing is published of the masks that the
    authors trained with; the numbers and widths here are those of their demo at 1024 px.

    Args:
        strokes: how many; more are added while less is covered than `covered` asks for.
        vertices: bends of a stroke.
        length: of the line between two bends, as a fraction of the image's side.
        width: of a stroke, as a fraction of the image's side; at least one pixel.
        turn: how far the next line turns away, radians, to the left and the right in turn.
        covered: least and largest share of the image that is covered; a line that would cover more ends the drawing.
    Raises:
        OptionError: names the key, what was given and what was expected.
    """

    strokes: tuple[int, int] = (1, 3)
    vertices: tuple[int, int] = (8, 27)
    length: tuple[float, float] = (0.05, 0.3)
    width: tuple[float, float] = (0.012, 0.078)
    turn: tuple[float, float] = (1.6, 2.8)
    covered: tuple[float, float] = (0.05, 0.5)

    def __post_init__(self):
        for key in fields(self):
            given = tuple(getattr(self, key.name))  # YAML brings lists
            object.__setattr__(self, key.name, given)
            lowest, highest = _BOUNDS[key.name]
            if given[0] > given[1]:
                hint = f"Write [{given[1]}, {given[0]}]."
                raise OptionError(key.name, f"got {list(given)}", "the smaller number first", hint)
            if not lowest <= given[0] <= given[1] <= highest:
                limits = f"numbers within {lowest:g} and {highest:.4g}"
                raise OptionError(key.name, f"got {list(given)}", limits)
        line = self.length[1] * self.width[1] + math.pi / 4 * self.width[1] ** 2
        if self.covered[1] - self.covered[0] < line:
            got = f"got {list(self.covered)}, and a single line may cover {line:.2g}"
            hint = "Spread it, or lower length or width."
            raise OptionError("covered", got, "bounds between which a line fits", hint)

    @classmethod
    def from_options(cls, given: Mapping, where: str) -> "BrushRanges":
        """Build the ranges from YAML; errors name the whole key path, ``where`` in front."""
        return build(cls, given, where)


_BOUNDS = {  # smallest and largest value that makes sense
    "strokes": (1, 100),
    "vertices": (1, 1000),
    "length": (0.001, 0.5),
    "width": (0.001, 0.5),
    "turn": (0, math.pi),
    "covered": (0, 1),
}


def brush_mask(ranges: BrushRanges, rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw strokes.

    Args:
        ranges: what they are drawn from.
        rng: the mask is a function of its state.
        size: side of the image, pixels.
    Returns:
        (size, size) uint8: 1 where a stroke covers the image, 0 elsewhere.
    """
    mask = np.zeros((size, size), np.uint8)
    wanted, drawn = int(rng.integers(ranges.strokes[0], ranges.strokes[1] + 1)), 0
    while drawn < wanted or mask.mean() < ranges.covered[0]:
        width = max(1, round(float(rng.uniform(*ranges.width)) * size))
        if not _draw(mask, _zigzag(ranges, rng), width, ranges.covered[1]):
            break
        drawn += 1
    return mask


def _zigzag(ranges: BrushRanges, rng: np.random.Generator) -> list[np.ndarray]:
    """The ends and bends of a stroke: points (x, y) in the unit square, from whose border the stroke bounces off."""
    points = [rng.uniform(0, 1, 2)]
    heading, side = rng.uniform(0, 2 * math.pi), 1 if rng.random() < 0.5 else -1
    for _ in range(int(rng.integers(ranges.vertices[0], ranges.vertices[1] + 1)) + 1):
        step = rng.uniform(*ranges.length) * np.array([math.cos(heading), math.sin(heading)])
        inside = (points[-1] + step >= 0) & (points[-1] + step <= 1)
        step = np.where(inside, step, -step)
        points.append(points[-1] + step)
        heading = math.atan2(step[1], step[0]) + side * rng.uniform(*ranges.turn)
        side = -side
    return points


def _draw(mask: np.ndarray, points: list[np.ndarray], width: int, most: float) -> bool:
    """Draw a stroke into a mask, line by line; False, with the rest left out, if it would cover more than `most`."""
    pixels = [tuple(int(value) for value in np.minimum(point * len(mask), len(mask) - 1)) for point in points]
    for start, end in pairwise(pixels):
        longer = cv2.line(mask.copy(), start, end, 1, width)  # OpenCV rounds the ends of thick lines
        if longer.mean() > most:
            return False
        mask[:] = longer
    return True
