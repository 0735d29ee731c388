"""Data sets of the authors' other tasks: colorization, inpainting, and faces from segmentation maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from gpen_plugin.data.degradation import DegradationRanges, degrade, resize_bilinear, sample_recipe
from gpen_plugin.data.free_form_masks import BrushRanges, brush_mask
from gpen_plugin.data.gpen_face_dataset import GPENPairDataset, PairOptions, check_pairs, collect_errors
from gpen_plugin.data.segmentation_labels import (
    PALETTE,
    check_palette,
    colorize_labels,
    hflip_labels,
    read_labels,
    resize_map,
)
from gpen_plugin.errors import GPENError
from gpen_plugin.host import register
from gpen_plugin.images.color import to_gray


@dataclass(frozen=True)
class ColorizationOptions(PairOptions):
    """The keys of a `GPENColorizationDataset` in an option file: those of `PairOptions`, and this."""

    # ranges of Eq. 4, see `DegradationRanges`, to restore and color old photographs at once; ~ for gray alone
    degradation: Mapping | None = None

    def value_problems(self, where: str) -> list[GPENError]:
        problems = super().value_problems(where)
        return problems if self.degradation is None else [*problems, *collect_errors(lambda: self.ranges(where))]

    def ranges(self, where: str) -> DegradationRanges:
        return DegradationRanges.from_options(self.degradation, f"{where}:degradation")


@register("dataset")
class GPENColorizationDataset(GPENPairDataset):
    """Faces in color, and their luma in all three channels. Items and errors as in `GPENPairDataset`."""

    options_class = ColorizationOptions

    def __init__(self, opt: Mapping):
        super().__init__(opt)
        where = f"datasets:{self.options.phase}"
        self.ranges = None if self.options.degradation is None else self.options.ranges(where)

    def _lq_entries(self, key: str, face: np.ndarray, mirrored: bool, rng: np.random.Generator) -> dict:
        if self.ranges is None:
            lq = resize_bilinear(face, self.in_size)
        else:
            lq = degrade(face, sample_recipe(self.ranges, rng), self.in_size)
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

    # folder or LMDB of segmentation maps, as label indices or in colors of `palette`, paired with the faces by key
    dataroot_lq: str
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

    def __init__(self, opt: Mapping):
        super().__init__(opt)
        self._lq = self.options.source("dataroot_lq", f"datasets:{self.options.phase}")

    def _lq_entries(self, key: str, face: np.ndarray, mirrored: bool, rng: np.random.Generator) -> dict:
        name = self._lq.name(key)
        labels = resize_map(read_labels(self._lq.read(key), name, self.options.palette), self.in_size)
        labels = hflip_labels(labels) if mirrored else labels
        return {"lq": self._tensor(colorize_labels(labels, self.options.palette)), "lq_path": name}
