"""Data sets of several roots: their entries in an option file, their images, and how often an epoch has each."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import PurePosixPath

import numpy as np

from gpen_plugin.config.schema import build
from gpen_plugin.data.image_source import ImageSource
from gpen_plugin.errors import OptionError

Dataroot = str | Sequence[str | Mapping]
MAX_REPEATS = 1000  # of an image in an epoch


@dataclass(frozen=True)
class Root:
    """An entry of a list of roots, such as ``dataroot_gt: [{path: ffhq, weight: 3}, {path: mine, weight: 1}]``."""

    path: str | Sequence[str]  # as a single dataroot; a list of tars with `io_backend: {type: tar}`
    weight: float | None = None  # part of an epoch's images that are of this root, relative to the other weights

    def __post_init__(self):
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise OptionError("weight", f"got {self.weight}", "a number above 0")


def read_roots(
    given: Dataroot,
    where: str,  # key path of the dataroot
    *,
    of_tars: bool,  # then a list of texts is one root: its tars
) -> list[Root]:
    """The roots of a data set; OptionError if there are none, or if an entry is wrong."""
    if isinstance(given, str):
        return [Root(given)]
    if not given:
        raise OptionError(where, "got an empty list", "a path, or a list of paths", "Add one.")
    if of_tars and all(isinstance(entry, str) for entry in given):
        return [Root(given)]
    entries = [entry if isinstance(entry, Mapping) else {"path": entry} for entry in given]
    roots = [build(Root, entry, f"{where}:{number}") for number, entry in enumerate(entries)]
    lists = [number for number, root in enumerate(roots) if not of_tars and not isinstance(root.path, str)]
    if lists:
        raise OptionError(f"{where}:{lists[0]}:path", "got a list", "one path; only tars may be listed here")
    without = [number for number, root in enumerate(roots) if root.weight is None]
    if 0 < len(without) < len(roots):
        got = "missing, and other roots have one"
        raise OptionError(f"{where}:{without[0]}:weight", got, "a weight for each root, or for none", "Add it.")
    return roots


class SeveralSources:
    """The images of several roots, in order. A key begins with the number of its root: ``1/00042``."""

    def __init__(self, sources: Sequence[ImageSource]):
        self.sources = sources
        self.keys = self.first_keys(None)

    def first_keys(self, number: int | None) -> list[str]:
        """The first keys of each root."""
        return [f"{index}/{key}" for index, source in enumerate(self.sources) for key in source.keys[:number]]

    def read(self, key: str) -> np.ndarray:
        index, _, inner = key.partition("/")
        return self.sources[int(index)].read(inner)

    def name(self, key: str) -> str:
        index, _, inner = key.partition("/")
        return key + PurePosixPath(self.sources[int(index)].name(inner)).suffix


def first_keys(source: ImageSource, number: int | None) -> list[str]:
    """The first keys of a source, or of each of several."""
    return source.first_keys(number) if isinstance(source, SeveralSources) else source.keys[:number]


@dataclass(frozen=True)
class WeightedGroup:
    """Images of one root or label."""

    where: str  # key path of the weight
    weight: float  # part of an epoch's images that are of this group, relative to the other weights
    images: Sequence[int]  # their indices in the keys of the data set
    name: str  # for the log


def groups_of_roots(keys: Sequence[str], weights: Sequence[float], where: str) -> list[WeightedGroup]:
    """The images of each root, whose number begins their keys."""
    counts = Counter(int(key.partition("/")[0]) for key in keys)
    ends = [*accumulate(counts[number] for number in range(len(weights)))]
    return [
        WeightedGroup(f"{where}:{number}:weight", weight, range(end - counts[number], end), "")
        for number, (weight, end) in enumerate(zip(weights, ends, strict=True))
    ]


class WeightedEpoch:
    """The images of an epoch in which each group, a root or a label, has its weight: which image is at which index.

    Every image is there at least once: the group with the most images per weight is passed through once, and others as
    often as their weights demand. Of a part of a pass, the next epoch takes the images that follow, so that all images
    of a group are used equally often. OptionError if an image would be there more than `MAX_REPEATS` times.
    """

    def __init__(self, groups: Sequence[WeightedGroup], by: str):  # by: root, or the column of the labels
        self._groups, self._by = groups, by
        per_weight = max(len(group.images) / group.weight for group in groups)
        self._entries = [round(group.weight * per_weight) for group in groups]
        for group, entries in zip(groups, self._entries, strict=True):
            if entries > MAX_REPEATS * len(group.images):
                times = f"{entries // len(group.images):,} times an epoch"
                got = f"got {group.weight:g}, which repeats each of {len(group.images)} images {times}"
                raise OptionError(group.where, got, f"at most {MAX_REPEATS:,} times", "Lower it.")
        self._ends = [*accumulate(self._entries)]

    def __len__(self) -> int:
        return self._ends[-1]

    def __str__(self) -> str:
        parts = (
            f"{group.name} {entries:,} from {len(group.images):,}".strip()
            for group, entries in zip(self._groups, self._entries, strict=True)
        )
        return f"an epoch of {len(self):,} images, by {self._by} {', '.join(parts)}"

    def image(self, index: int, epoch: int) -> int:
        """The image at an index of an epoch, as its index in the keys."""
        number = bisect_right(self._ends, index)
        images, entries = self._groups[number].images, self._entries[number]
        position = index - (self._ends[number] - entries) + epoch * (entries % len(images))
        return images[position % len(images)]
