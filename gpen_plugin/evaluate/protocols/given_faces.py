"""The protocols whose faces come degraded: ``pairs``, which have a ground truth, and ``wild``, which have none."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from gpen_plugin.data.image_source import ImageSource, resize_square
from gpen_plugin.errors import DataError, join_errors
from gpen_plugin.evaluate.case import Case
from gpen_plugin.evaluate.protocols.image_list import ListOptions, first_keys, listed, open_root


@dataclass(frozen=True, kw_only=True)
class WildOptions(ListOptions):
    """The keys of ``wild``: those of `ListOptions`, and this.

    Args:
        dataroot_lq: folder, zip file or LMDB of degraded faces of any size.
        out_size: side of the results, in pixels.
    """

    dataroot_lq: str
    out_size: int


@dataclass(frozen=True, kw_only=True)
class PairsOptions(ListOptions):
    """The keys of ``pairs``: those of `ListOptions`, and these.

    Args:
        dataroot_lq: folder, zip file or LMDB of degraded faces of any size.
        dataroot_gt: the same faces, undegraded, under the same names.
        out_size: side that the ground truth is brought to; ~ leaves it as it is, one size for all.
    """

    dataroot_lq: str
    dataroot_gt: str
    out_size: int | None = None


class _GivenFaces(ABC):
    """What both protocols do with the degraded faces; see `gpen_plugin.evaluate.protocols.Protocol`."""

    size: int
    _lq: ImageSource

    def options(self) -> dict:
        """See `Protocol`."""
        return {"out_size": self.size}

    def degradation(self, key: str, condition: str) -> str:
        """See `Protocol`."""
        return "as it came"

    def case(self, key: str, condition: str) -> Case:
        """See `Protocol`."""
        truth, degraded = self.originals(key)
        return Case(key, condition, degraded, truth, self.size)

    @abstractmethod
    def originals(self, key: str) -> tuple[np.ndarray | None, np.ndarray]:
        """See `Protocol`."""

    def _degraded(self, key: str) -> np.ndarray:
        """The central square of a degraded face at its own size, which is all of it as a rule."""
        image = self._lq.read(key)
        return np.ascontiguousarray(resize_square(image, min(image.shape[:2])))


class Wild(_GivenFaces):
    """``wild``: degraded faces of which nobody knows the truth.

    Args:
        options: checked.
        where: their key path.
    """

    kind = "wild"
    options_class = WildOptions
    has_truth = False

    def __init__(self, options: WildOptions, where: str):
        self._lq = open_root(options.dataroot_lq, f"{where}:dataroot_lq")
        self.conditions = [""]
        self.size = options.out_size
        self.keys, self.notes = first_keys(self._lq.keys, options.num_images)

    def originals(self, key: str) -> tuple[None, np.ndarray]:
        """See `Protocol`."""
        return None, self._degraded(key)


class Pairs(_GivenFaces):
    """``pairs``: degraded faces and their ground truth, paired by name.

    Args:
        options: checked.
        where: their key path.
    Raises:
        DataError: an image has no partner; lists them.
    """

    kind = "pairs"
    options_class = PairsOptions
    has_truth = True

    def __init__(self, options: PairsOptions, where: str):
        self._lq = open_root(options.dataroot_lq, f"{where}:dataroot_lq")
        self._gt = open_root(options.dataroot_gt, f"{where}:dataroot_gt")
        _check_partners(self._lq, self._gt, where)
        self.conditions = [""]
        self.keys, self.notes = first_keys(self._gt.keys, options.num_images)
        self._where = where
        self._resized = options.out_size is not None
        self.size = options.out_size or self._side_of_truth(where)

    def originals(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """See `Protocol`."""
        truth = self._gt.read(key)
        if not self._resized and truth.shape[:2] != (self.size, self.size):
            got = f"has {truth.shape[1]} x {truth.shape[0]} px"
            expected = f"{self.size} x {self.size} as the first image"
            raise DataError(self._gt.name(key), got, expected, f"Set {self._where}:out_size to resize all of them.")
        return np.ascontiguousarray(resize_square(truth, self.size)), self._degraded(key)

    def _side_of_truth(self, where: str) -> int:
        """The side of the first image that can be read."""
        for key in self.keys:
            try:
                height, width = self._gt.read(key).shape[:2]
            except DataError:
                continue
            if height == width:
                return height
            got, hint = (
                f"{self._gt.name(key)} has {width} x {height} px",
                f"Set {where}:out_size to crop and resize.",
            )
            raise DataError(f"{where}:dataroot_gt", got, "square images where out_size is left out", hint)
        raise DataError(f"{where}:dataroot_gt", f"none of {len(self.keys)} images can be read", "at least one")


def _check_partners(lq: ImageSource, gt: ImageSource, where: str) -> None:
    """Raise a `DataError` that lists the images which are on one side only."""
    sides = {"dataroot_lq": set(lq.keys), "dataroot_gt": set(gt.keys)}
    problems = []
    for (name, keys), (other, others) in zip(sides.items(), reversed(sides.items()), strict=True):
        missing = sorted(others - keys)
        if missing:
            got = f"lacks {len(missing)} of the {len(others)} images of {other}: {listed(missing)}"
            expected = "a partner of the same name for every image"
            problems.append(DataError(f"{where}:{name}", got, expected, f"Add them, or remove them from {other}."))
    if problems:
        raise join_errors(problems)
