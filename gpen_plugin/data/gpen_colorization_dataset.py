"""Pairs of a grey face and its ground truth in colour."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpen_plugin.data.degradation import DegradationRanges, degrade, resize_bilinear, sample_recipe
from gpen_plugin.data.gpen_face_dataset import caught
from gpen_plugin.data.gpen_pair_dataset import GPENPairDataset, PairOptions
from gpen_plugin.data.luminance import grey
from gpen_plugin.errors import GPENError
from gpen_plugin.host import register


@dataclass(frozen=True)
class ColorizationOptions(PairOptions):
    """The keys of a `GPENColorizationDataset` in an option file: those of `PairOptions`, and this.

    Args:
        degradation: the keys of `DegradationRanges`: old photographs, which are restored and colored at once. None, the
            default, leaves the grey pictures as sharp as the faces.
    """

    degradation: Mapping | None = None

    def value_problems(self, where: str) -> list[GPENError]:
        """See `FaceOptions`."""
        problems = super().value_problems(where)
        return problems if self.degradation is None else [*problems, *caught(lambda: self.ranges(where))]

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
        return {"lq": self._tensor(grey(lq))}
