"""Pairs of a face that brush strokes hide in part, and the whole face."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from gpen_plugin.data.brush_strokes import BrushRanges, brush_mask
from gpen_plugin.data.degradation import resize_bilinear
from gpen_plugin.data.gpen_face_dataset import caught
from gpen_plugin.data.gpen_pair_dataset import GPENPairDataset, PairOptions
from gpen_plugin.errors import GPENError
from gpen_plugin.host import register


@dataclass(frozen=True)
class InpaintingOptions(PairOptions):
    """The keys of a `GPENInpaintingDataset` in an option file: those of `PairOptions`, and this.

    Args:
        brush: the keys of `BrushRanges`.
    """

    brush: Mapping = field(default_factory=dict)

    def value_problems(self, where: str) -> list[GPENError]:
        """See `FaceOptions`."""
        return [*super().value_problems(where), *caught(lambda: BrushRanges.from_options(self.brush, f"{where}:brush"))]


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
