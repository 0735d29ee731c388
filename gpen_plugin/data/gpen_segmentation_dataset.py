"""Pairs of a map of a face's parts and the face."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpen_plugin.data.face_labels import PALETTE, check_palette, labels_of, mirrored, painted, resize_map
from gpen_plugin.data.gpen_face_dataset import caught
from gpen_plugin.data.gpen_pair_dataset import GPENPairDataset, PairOptions, check_partners
from gpen_plugin.errors import GPENError
from gpen_plugin.host import register


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions(PairOptions):
    """The keys of a `GPENSegmentationDataset` in an option file: those of `PairOptions`, and these.

    Args:
        dataroot_lq: folder or LMDB of maps, paired with the faces by key: see `labels_of`.
        palette: RGB colours of the 19 labels of `LABELS`, for the network and in colored maps; CelebAMask-HQ's if left
            out.
    """

    dataroot_lq: str
    palette: Sequence[Sequence[int]] = PALETTE

    def value_problems(self, where: str) -> list[GPENError]:
        """See `FaceOptions`."""
        return [*super().value_problems(where), *caught(lambda: check_palette(self.palette, f"{where}:palette"))]

    def check_sources(self, where: str) -> None:
        """See `FaceOptions`; each face needs its map, too."""
        check_partners(self, where)


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
        labels = resize_map(labels_of(self._lq.read(key), name, self.options.palette), self.in_size)
        labels = mirrored(labels) if mirrored_too else labels
        return {"lq": self._tensor(painted(labels, self.options.palette)), "lq_path": name}
