"""Faces and, for each of them, the image that a network is to make it of: what all sets of pairs share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from gpen_plugin.data.gpen_face_dataset import FaceOptions, GPENFaceDataset
from gpen_plugin.errors import DataError, GPENError, OptionError


@dataclass(frozen=True)
class PairOptions(FaceOptions):
    """The keys of every set of pairs in an option file: those of `FaceOptions`, and this.

    Args:
        in_size: side of the image that the network is shown; `out_size` if left out.
    """

    in_size: int | None = None

    def value_problems(self, where: str) -> list[GPENError]:
        """See `FaceOptions`."""
        problems: list[GPENError] = []
        if self.in_size is not None and self.in_size < 1:
            problems.append(OptionError(f"{where}:in_size", f"got {self.in_size}", "a number above 0"))
        if self.in_size and self.in_size > self.out_size:
            got, hint = f"got {self.in_size}, above out_size {self.out_size}", "Lower in_size or raise out_size."
            problems.append(OptionError(f"{where}:in_size", got, "at most out_size", hint))
        return [*super().value_problems(where), *problems]


class GPENPairDataset(GPENFaceDataset, ABC):
    """Base of the sets of pairs; a subclass says in `_partner` what is made of a face.

    An item is that of a `GPENFaceDataset` and ``lq`` (3, in_size, in_size), RGB in `value_range`; ``lq_path`` is the
    file or key that it came from: the face's own, unless `_partner` says otherwise.

    Args:
        opt: the options of one data set as the host passes them; see `options_class`.
    Raises:
        GPENError: an option is wrong, or the data are not there.
    """

    options_class = PairOptions

    @property
    def in_size(self) -> int:
        """Side of the image that the network is shown."""
        return self.options.in_size or self.options.out_size

    def _item(self, key: str, rng: np.random.Generator) -> dict:
        mirrored = self._mirrored(rng)
        face = self._face(key, mirrored, rng)
        return {"lq_path": self._gt.name(key), **self._partner(key, face, mirrored, rng), **self._shown(key, face)}

    @abstractmethod
    def _partner(self, key: str, face: np.ndarray, mirrored: bool, rng: np.random.Generator) -> dict:
        """What goes with a face.

        Args:
            key: the face's.
            face: (out_size, out_size, 3) BGR uint8, mirrored already where it is.
            mirrored: whether it is.
            rng: of all that is drawn for it.
        Returns:
            ``lq``, and what else the item is to hold.
        """


def check_pairs(options: PairOptions, where: str) -> None:
    """Raise a `DataError` unless each face of ``dataroot_gt`` has an image of its key in ``dataroot_lq``."""
    truth = options.source("dataroot_gt", where)
    partners = set(options.source("dataroot_lq", where).keys)
    lonely = [key for key in truth.keys[: options.num_images] if key not in partners]
    if lonely:
        got = f"{options.dataroot_lq} has no '{lonely[0]}'" + (f" and {len(lonely) - 1} more" * (len(lonely) > 1))
        expected = "a partner of the same name for each image of dataroot_gt"
        raise DataError(f"{where}:dataroot_lq", got, expected)
