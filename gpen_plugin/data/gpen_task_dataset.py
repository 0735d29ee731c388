"""Data sets of the authors' other tasks: colorization, inpainting, and faces from segmentation maps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise

import cv2
import numpy as np
import torch

from gpen_plugin.config.schema import build
from gpen_plugin.data.degradation import resize_bilinear
from gpen_plugin.data.degradation_types import build_degradation, check_degradation
from gpen_plugin.data.gpen_face_dataset import GPENPairDataset, PairOptions, check_pairs, collect_errors
from gpen_plugin.data.roots import Dataroot
from gpen_plugin.data.segmentation_labels import (
    PALETTE,
    check_palette,
    colorize_labels,
    hflip_labels,
    read_labels,
    resize_map,
)
from gpen_plugin.errors import GPENError, OptionError
from gpen_plugin.host import register
from gpen_plugin.images.color import to_gray


@dataclass(frozen=True)
class BrushRanges:
    """Uniform distributions of brush strokes, both ends included; OptionError if wrong.

    A stroke is a zigzag of straight lines with round ends, all of one width. The masks of the authors' training are not
    published; the numbers and widths here are those of their demo at 1024 px.
    """

    strokes: tuple[int, int] = (1, 3)  # number of strokes; more are added until the lower bound of `covered` is reached
    vertices: tuple[int, int] = (8, 27)  # bends of a stroke
    length: tuple[float, float] = (0.05, 0.3)  # distance between two bends, fraction of the image's side
    width: tuple[float, float] = (0.012, 0.078)  # width of a stroke, fraction of the image's side; at least a pixel
    turn: tuple[float, float] = (1.6, 2.8)  # turn at a bend in radians, alternately to the left and the right
    # fraction of the image under strokes; a line that would exceed the upper bound ends the mask
    covered: tuple[float, float] = (0.05, 0.5)

    def __post_init__(self):
        for key in fields(self):
            given = tuple(getattr(self, key.name))  # YAML gives lists
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
            hint = "Widen it, or lower length or width."
            raise OptionError("covered", got, "bounds between which a line fits", hint)

    @classmethod
    def from_options(cls, given: Mapping, where: str) -> "BrushRanges":
        """Build the ranges from YAML; errors name the key path, which starts with `where`."""
        return build(cls, given, where)


_BOUNDS = {  # smallest and largest value allowed
    "strokes": (1, 100),
    "vertices": (1, 1000),
    "length": (0.001, 0.5),
    "width": (0.001, 0.5),
    "turn": (0, math.pi),
    "covered": (0, 1),
}


def brush_mask(ranges: BrushRanges, rng: np.random.Generator, size: int) -> np.ndarray:
    """Sample strokes and render them: (size, size) uint8, 1 under a stroke, else 0."""
    mask = np.zeros((size, size), np.uint8)
    count, rendered = int(rng.integers(ranges.strokes[0], ranges.strokes[1] + 1)), 0
    while rendered < count or mask.mean() < ranges.covered[0]:
        width = max(1, round(float(rng.uniform(*ranges.width)) * size))
        if not _render(mask, _sample_zigzag(ranges, rng), width, ranges.covered[1]):
            break
        rendered += 1
    return mask


def _sample_zigzag(ranges: BrushRanges, rng: np.random.Generator) -> list[np.ndarray]:
    """Ends and bends of a stroke: points (x, y) in the unit square, reflected at its border."""
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


def _render(mask: np.ndarray, points: list[np.ndarray], width: int, max_covered: float) -> bool:
    """Add a stroke to a mask line by line; False, without the rest, if it would cover more than `max_covered`."""
    pixels = [tuple(int(value) for value in np.minimum(point * len(mask), len(mask) - 1)) for point in points]
    for start, end in pairwise(pixels):
        longer = cv2.line(mask.copy(), start, end, 1, width)  # OpenCV rounds the ends of thick lines
        if longer.mean() > max_covered:
            return False
        mask[:] = longer
    return True


@dataclass(frozen=True)
class ColorizationOptions(PairOptions):
    """The keys of a `GPENColorizationDataset` in an option file: those of `PairOptions`, and this."""

    # as that of a `GPENDegradationDataset`, to restore and color old photographs at once; ~ for gray alone
    degradation: Mapping | None = None

    def value_problems(self, where: str) -> list[GPENError]:
        problems = super().value_problems(where)
        if self.degradation is not None:
            key = f"{where}:degradation"
            problems += collect_errors(lambda: check_degradation(self.degradation, key, self.out_size))
        return problems


@register("dataset")
class GPENColorizationDataset(GPENPairDataset):
    """Faces in color, and their luma in all three channels. Items and errors as in `GPENPairDataset`."""

    options_class = ColorizationOptions
    task = "colorize"

    def __init__(self, opt: Mapping):
        super().__init__(opt)
        where = f"datasets:{self.options.phase}"
        given = self.options.degradation
        self._degrade = None if given is None else build_degradation(given, f"{where}:degradation")

    def _lq_entries(self, key: str, face: np.ndarray, mirrored: bool, rng: np.random.Generator) -> dict:
        lq = resize_bilinear(face if self._degrade is None else self._degrade(face, rng), self.in_size)
        return {"lq": self._tensor(to_gray(lq))}


@dataclass(frozen=True)
class InpaintingOptions(PairOptions):
    """The keys of a `GPENInpaintingDataset` in an option file: those of `PairOptions`, and this."""

    brush: Mapping = field(default_factory=dict)  # ranges of the strokes, see `BrushRanges`

    def value_problems(self, where: str) -> list[GPENError]:
        brush_errors = collect_errors(lambda: BrushRanges.from_options(self.brush, f"{where}:brush"))
        return [*super().value_problems(where), *brush_errors]


@register("dataset")
class GPENInpaintingDataset(GPENPairDataset):
    """Faces, and the same faces under white brush strokes. Errors as in `GPENPairDataset`.

    An item also has ``mask`` (1, out_size, out_size), float32: 1 under a stroke, else 0.
    """

    options_class = InpaintingOptions
    task = "inpaint"

    def __init__(self, opt: Mapping):
        super().__init__(opt)
        self.ranges = BrushRanges.from_options(self.options.brush, f"datasets:{self.options.phase}:brush")

    def _lq_entries(self, key: str, face: np.ndarray, mirrored: bool, rng: np.random.Generator) -> dict:
        mask = brush_mask(self.ranges, rng, self.options.out_size)
        covered = np.where(mask[:, :, None] == 1, np.uint8(255), face)
        lq = resize_bilinear(covered, self.in_size)
        return {"lq": self._tensor(lq), "mask": torch.from_numpy(mask[None].astype(np.float32))}  # [1, H, W]


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions(PairOptions):
    """The keys of a `GPENSegmentationDataset` in an option file: those of `PairOptions`, and these."""

    # segmentation maps, as label indices or in colors of `palette`, paired with the faces by key; as many roots as
    # dataroot_gt has
    dataroot_lq: Dataroot
    palette: Sequence[Sequence[int]] = PALETTE  # RGB of the 19 labels, in the maps and in the network's input

    def value_problems(self, where: str) -> list[GPENError]:
        palette_errors = collect_errors(lambda: check_palette(self.palette, f"{where}:palette"))
        return [*super().value_problems(where), *palette_errors]

    def check_sources(self, where: str) -> None:
        check_pairs(self, where)


@register("dataset")
class GPENSegmentationDataset(GPENPairDataset):
    """Faces, and maps of their parts in the colors of a palette. Errors as in `GPENPairDataset`.

    ``lq`` is the map and ``lq_path`` its file or key. The map of a mirrored face has left and right labels exchanged.
    """

    options_class = SegmentationOptions
    task = "seg2face"

    def __init__(self, opt: Mapping):
        super().__init__(opt)
        self._lq = self.options.source("dataroot_lq", f"datasets:{self.options.phase}")

    def _lq_entries(self, key: str, face: np.ndarray, mirrored: bool, rng: np.random.Generator) -> dict:
        name = self._lq.name(key)
        labels = resize_map(read_labels(self._lq.read(key), name, self.options.palette), self.in_size)
        labels = hflip_labels(labels) if mirrored else labels
        return {"lq": self._tensor(colorize_labels(labels, self.options.palette)), "lq_path": name}
