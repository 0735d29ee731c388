"""Pairs of a degraded face and its ground truth, for the host's training and validation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gpen_plugin.data.degradation import DegradationRanges, degrade_small, sample_recipe
from gpen_plugin.data.gpen_face_dataset import caught
from gpen_plugin.data.gpen_pair_dataset import GPENPairDataset, PairOptions, check_partners
from gpen_plugin.data.image_source import fit_square
from gpen_plugin.errors import GPENError, OptionError
from gpen_plugin.host import register


@dataclass(frozen=True)
class DegradationOptions(PairOptions):
    """The keys of a `GPENDegradationDataset` in an option file: those of `PairOptions`, and these.

    Args:
        dataroot_lq: folder or LMDB of pictures that are degraded already, paired by key; none are made then.
        degradation: the keys of `DegradationRanges`.
    """

    dataroot_lq: str | None = None
    degradation: Mapping = field(default_factory=dict)

    def value_problems(self, where: str) -> list[GPENError]:
        """See `FaceOptions`."""
        problems: list[GPENError] = []
        if self.dataroot_lq and self.degradation:
            came = f"given together with dataroot_lq {self.dataroot_lq}, whose pictures are degraded already"
            problems.append(OptionError(f"{where}:degradation", came, "one of the two", "Remove one of them."))
        problems += caught(lambda: DegradationRanges.from_options(self.degradation, f"{where}:degradation"))
        return [*super().value_problems(where), *problems]

    def check_sources(self, where: str) -> None:
        """See `FaceOptions`; each face needs its partner, too."""
        if self.dataroot_lq:
            check_partners(self, where)
        else:
            super().check_sources(where)


@register("dataset")
class GPENDegradationDataset(GPENPairDataset):
    """Ground truth faces, and the degraded versions that Eq. 4 makes of them.

    An item is that of a `GPENPairDataset`.

    Args:
        opt: the options of one data set as the host passes them; see `DegradationOptions`.
    Raises:
        GPENError: an option is wrong, or the data are not there.
    """

    options_class = DegradationOptions

    def __init__(self, opt: Mapping):
        super().__init__(opt)
        where = f"datasets:{self.options.phase}"
        self.ranges = DegradationRanges.from_options(self.options.degradation, f"{where}:degradation")
        self._lq = self.options.source("dataroot_lq", where) if self.options.dataroot_lq else None

    def _partner(self, key: str, face: np.ndarray, mirrored: bool, rng: np.random.Generator) -> dict:
        """See `GPENPairDataset`."""
        if self._lq is None:
            return {"lq": self._tensor(degrade_small(face, sample_recipe(self.ranges, rng)), self.in_size)}
        lq = self._lq.read(key)[:, :: -1 if mirrored else 1]
        return {"lq": self._tensor(fit_square(lq, min(lq.shape[:2])), self.in_size), "lq_path": self._lq.name(key)}
