"""Pairs of a degraded face and its ground truth, for the host's training and validation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gpen_plugin.data.degradation import DegradationRanges, degrade, resize_bilinear, sample_recipe
from gpen_plugin.data.gpen_face_dataset import FaceOptions, GPENFaceDataset, caught
from gpen_plugin.data.image_source import fit_square
from gpen_plugin.errors import DataError, GPENError, OptionError
from gpen_plugin.host import register


@dataclass(frozen=True)
class DegradationOptions(FaceOptions):
    """The keys of a `GPENDegradationDataset` in an option file: those of `FaceOptions`, and these.

    Args:
        in_size: side of the degraded picture; `out_size` if left out.
        dataroot_lq: folder or LMDB of pictures that are degraded already, paired by key; none are made then.
        degradation: the keys of `DegradationRanges`.
    """

    in_size: int | None = None
    dataroot_lq: str | None = None
    degradation: Mapping = field(default_factory=dict)

    def value_problems(self, where: str) -> list[GPENError]:
        """See `FaceOptions`."""
        problems: list[GPENError] = []
        if self.in_size is not None and self.in_size < 1:
            problems.append(OptionError(f"{where}:in_size", f"got {self.in_size}", "a number above 0"))
        if self.in_size and self.in_size > self.out_size:
            came, way_out = f"got {self.in_size}, above out_size {self.out_size}", "Lower in_size or raise out_size."
            problems.append(OptionError(f"{where}:in_size", came, "at most out_size", way_out))
        if self.dataroot_lq and self.degradation:
            came = f"given together with dataroot_lq {self.dataroot_lq}, whose pictures are degraded already"
            problems.append(OptionError(f"{where}:degradation", came, "one of the two", "Remove one of them."))
        problems += caught(lambda: DegradationRanges.from_options(self.degradation, f"{where}:degradation"))
        return [*super().value_problems(where), *problems]

    def check_sources(self, where: str) -> None:
        """See `FaceOptions`; each face needs its partner, too."""
        truth = self.source("dataroot_gt", where)
        if self.dataroot_lq:
            partners = set(self.source("dataroot_lq", where).keys)
            lonely = [key for key in truth.keys[: self.num_images] if key not in partners]
            if lonely:
                came = f"{self.dataroot_lq} has no '{lonely[0]}'" + (f" and {len(lonely) - 1} more" * (len(lonely) > 1))
                expected = "a partner of the same name for each picture of dataroot_gt"
                raise DataError(f"{where}:dataroot_lq", came, expected)


@register("dataset")
class GPENDegradationDataset(GPENFaceDataset):
    """Ground truth faces, and the degraded versions that Eq. 4 makes of them.

    An item is that of a `GPENFaceDataset` and, in the same range and order of channels, ``lq`` (3, in_size, in_size);
    ``lq_path`` is the file or key of the degraded picture, or of the face where it is made of that.

    Args:
        opt: the options of one data set as the host passes them; see `DegradationOptions`.
    Raises:
        GPENError: an option is wrong, or the data are not there.
    """

    options_class = DegradationOptions

    def __init__(self, opt: Mapping):
        super().__init__(opt)
        where = f"datasets:{self.options.phase}"
        self.in_size = self.options.in_size or self.options.out_size
        self.ranges = DegradationRanges.from_options(self.options.degradation, f"{where}:degradation")
        self._lq = self.options.source("dataroot_lq", where) if self.options.dataroot_lq else None

    def _item(self, key: str, rng: np.random.Generator) -> dict:
        mirrored = self._mirrored(rng)
        face = self._face(key, mirrored)
        if self._lq is None:
            lq = degrade(face, sample_recipe(self.ranges, rng), self.in_size)
        else:
            lq = self._lq.read(key)[:, :: -1 if mirrored else 1]
            lq = resize_bilinear(fit_square(lq, min(lq.shape[:2])), self.in_size)
        lq_path = (self._lq or self._gt).name(key)
        return {"lq": self._tensor(lq), "lq_path": lq_path, **self._shown(key, face)}
