"""Data sets of the authors' other tasks: colorization, inpainting, and faces from segmentation maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from gpen_plugin.data.degradation import DegradationRanges, degrade, resize_bilinear, sample_recipe
from gpen_plugin.data.free_form_masks import BrushRanges, brush_mask
from gpen_plugin.data.gpen_face_dataset import collect_errors
from gpen_plugin.data.gpen_pair_dataset import GPENPairDataset, PairOptions, check_pairs
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
    """The keys of a `GPENColorizationDataset` in an option file: those of `PairOptions`, and this.

    Args:
        degradation: the keys of `DegradationRanges`: old photographs, which are restored and colored at once. None, the
            default, leaves the grey images as sharp as the faces.
    """

    degradation: Mapping | None = None

    def value_problems(self, where: str) -> list[GPENError]:
        """See `FaceOptions`."""
        problems = super().value_problems(where)
        return problems if self.degradation is None else [*problems, *collect_errors(lambda: self.ranges(where))]

    def ranges(self, where: str) -> DegradationRanges:
        """What the degradations are drawn from."""
        return DegradationRanges.from_options(self.degradation, f"{where}:degradation")


@register("dataset")
class GPENColorizationDataset(GPENPairDataset):
    """Faces in colour, and their luminance (see `luminance`) in all three channels.

    An item is that of a `GPENPairDataset`.

    Args:
        opt: the options of one data set as the host passes them; see `ColorizationOptions`.
    Raises:
        GPENError: an option is wrong, or the data are not there.
    """

    options_class = ColorizationOptions

    def __init__(self, opt: Mapping):
        super().__init__(opt)
        where = f"datasets:{self.options.phase}"
        self.ranges = None if self.options.degradation is None else self.options.ranges(where)

    def _partner(self, key: str, face: np.ndarray, mirrored: bool, rng: np.random.Generator) -> dict:
        """See `GPENPairDataset`."""
        if self.ranges is None:
            lq = resize_bilinear(face, self.in_size)
        else:
            lq = degrade(face, sample_recipe(self.ranges, rng), self.in_size)
        return {"lq": self._tensor(to_gray(lq))}


@dataclass(frozen=True)
class InpaintingOptions(PairOptions):
    """The keys of a `GPENInpaintingDataset` in an option file: those of `PairOptions`, and this.

    Args:
        brush: the keys of `BrushRanges`.
    """

    brush: Mapping = field(default_factory=dict)

    def value_problems(self, where: str) -> list[GPENError]:
        """See `FaceOptions`."""
        return [
            *super().value_problems(where),
            *collect_errors(lambda: BrushRanges.from_options(self.brush, f"{where}:brush")),
        ]


@register("dataset")
class GPENInpaintingDataset(GPENPairDataset):
    """Whole faces, and the same faces with white brush strokes over them.

    An item is that of a `GPENPairDataset` and ``mask`` (1, out_size, out_size), float32: 1 where a stroke covers the
    face, 0 elsewhere.

    Args:
        opt: the options of one data set as the host passes them; see `InpaintingOptions`.
    Raises:
        GPENError: an option is wrong, or the data are not there.
    """

    options_class = InpaintingOptions

    def __init__(self, opt: Mapping):
        super().__init__(opt)
        self.ranges = BrushRanges.from_options(self.options.brush, f"datasets:{self.options.phase}:brush")

    def _partner(self, key: str, face: np.ndarray, mirrored: bool, rng: np.random.Generator) -> dict:
        """See `GPENPairDataset`."""
        mask = brush_mask(self.ranges, rng, self.options.out_size)
        covered = np.where(mask[:, :, None] == 1, np.uint8(255), face)
        lq = resize_bilinear(covered, self.in_size)
        return {"lq": self._tensor(lq), "mask": torch.from_numpy(mask[None].astype(np.float32))}  # (1, H, W)


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions(PairOptions):
    """The keys of a `GPENSegmentationDataset` in an option file: those of `PairOptions`, and these.

    Args:
        dataroot_lq: folder or LMDB of maps, paired with the faces by key: see `read_labels`.
        palette: RGB colours of the 19 labels of `LABELS`, for the network and in colored maps; CelebAMask-HQ's if left
            out.
    """

    dataroot_lq: str
    palette: Sequence[Sequence[int]] = PALETTE

    def value_problems(self, where: str) -> list[GPENError]:
        """See `FaceOptions`."""
        return [
            *super().value_problems(where),
            *collect_errors(lambda: check_palette(self.palette, f"{where}:palette")),
        ]

    def check_sources(self, where: str) -> None:
        """See `FaceOptions`; each face needs its map, too."""
        check_pairs(self, where)


@register("dataset")
class GPENSegmentationDataset(GPENPairDataset):
    """Faces, and maps of their parts, painted in the colours of a palette.

    An item is that of a `GPENPairDataset`; ``lq`` is the map, ``lq_path`` its file or key. The map of a mirrored face
    has the left labels where the right ones were.

    Args:
        opt: the options of one data set as the host passes them; see `SegmentationOptions`.
    Raises:
        GPENError: an option is wrong, or the data are not there.
    """

    options_class = SegmentationOptions

    def __init__(self, opt: Mapping):
        super().__init__(opt)
        self._lq = self.options.source("dataroot_lq", f"datasets:{self.options.phase}")

    def _partner(self, key: str, face: np.ndarray, mirrored_too: bool, rng: np.random.Generator) -> dict:
        """See `GPENPairDataset`."""
        name = self._lq.name(key)
        labels = resize_map(read_labels(self._lq.read(key), name, self.options.palette), self.in_size)
        labels = hflip_labels(labels) if mirrored_too else labels
        return {"lq": self._tensor(colorize_labels(labels, self.options.palette)), "lq_path": name}
