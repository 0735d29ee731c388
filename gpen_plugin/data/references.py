"""Reference faces: for a face, another image of the same person, which some methods restore it with."""

import csv
import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from gpen_plugin.data.image_source import ImageSource, resize_square, without_suffix
from gpen_plugin.errors import DataError, OptionError

COLUMNS = ("image", "identity")
THUMBNAIL = 16  # side at which two images are compared, pixels
MAX_DIFFERENCE = 4.0  # mean of two copies of an image, levels of 255; no two of 3,000 faces in the wild are within 12


@dataclass(frozen=True)
class ReferenceOptions:
    """The section ``references``."""

    # root of the reference faces, as the other dataroots; ~ for dataroot_gt, which needs `identities`
    dataroot: str | None = None
    # CSV file with the columns image and identity: the reference is another image of the same identity; ~: the image
    # of the same key
    identities: str | None = None
    required: bool = False  # leave out the faces without a reference, for all methods; a training always does

    def check(self, dataroot_gt: str | None, where: str) -> None:
        """Raise an OptionError if there is no root, or if each reference would be the ground truth."""
        if self.dataroot is None and dataroot_gt is None:
            raise OptionError(f"{where}:dataroot", "missing", "a folder of reference faces")
        if self.identities is None and self.of_truth(dataroot_gt):
            got = f"got {self.dataroot or dataroot_gt}, the ground truth: each image would be its own reference"
            raise OptionError(f"{where}:dataroot", got, "another root, or identities", "Add identities: FILE.csv.")

    def of_truth(self, dataroot_gt: str | None) -> bool:
        """Whether the references are images of ``dataroot_gt``."""
        return dataroot_gt is not None and _real(self.dataroot or dataroot_gt) == _real(dataroot_gt)


class References:
    """Finds the reference of a face: a function of its key and of the images that there are.

    DataError: the table of identities cannot be read, or no face has a reference.
    """

    def __init__(
        self,
        options: ReferenceOptions,
        source: ImageSource,  # of the references
        of_truth: bool,  # whether `source` is the ground truth itself
        where: str,  # key path of the section
    ):
        self._source, self._of_truth = source, of_truth
        self._identities = read_identities(options.identities, f"{where}:identities") if options.identities else None
        self.by = "key" if self._identities is None else "identity"
        self._members: dict[str, list[str]] = defaultdict(list)
        for key in source.keys if self._identities is not None else ():
            if key in self._identities:
                self._members[self._identities[key]].append(key)
        self._keys, self._where, self._warned = set(source.keys), where, set[str]()

    def select(self, keys: Sequence[str]) -> list[str]:
        """The keys that have a candidate; DataError if none has."""
        found = [key for key in keys if self.candidates(key)]
        if not found:
            what = "another image of its identity" if self.by == "identity" else "a reference of its name"
            raise DataError(self._where, f"none of {len(keys)} images has {what}", "names as in the dataroot")
        return found

    def candidates(self, key: str) -> list[str]:
        """Keys of the images that may be the reference of `key`, the preferred one first; never the image itself."""
        if self._identities is None:
            return [key] if key in self._keys else []
        members = self._members.get(self._identities.get(key, ""), [])
        others = [member for member in members if not (self._of_truth and member == key)]
        # by digest: the choice does not depend on the other identities, and hardly on images that are added
        return sorted(others, key=lambda other: hashlib.sha256(f"{key}\0{other}".encode("utf-8", "replace")).digest())

    def find(self, candidates: Sequence[str], truth: np.ndarray, size: int) -> np.ndarray | None:
        """The first of the candidates that can be read and is no copy of `truth`, (H, W, 3) BGR uint8.

        Returns (size, size, 3) BGR uint8, or None if there is none.
        """
        for candidate in candidates:
            try:
                image = self._source.read(candidate)
            except DataError as error:
                if candidate not in self._warned:
                    self._warned.add(candidate)
                    logging.getLogger("basicsr").warning(f"not used as a reference: {error}")
                continue
            if not is_copy(image, truth):
                return np.ascontiguousarray(resize_square(image, size))
        return None


def is_copy(image: np.ndarray, other: np.ndarray) -> bool:
    """Whether two images, (H, W, 3) uint8 of any size, are one: encoded or resized differently, or mirrored."""
    one, two = (
        cv2.resize(resize_square(each, min(each.shape[:2])), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        for each in (image, other)
    )
    return min(float(cv2.absdiff(one, each).mean()) for each in (two, cv2.flip(two, 1))) <= MAX_DIFFERENCE


def read_identities(path: str, where: str) -> Mapping[str, str]:
    """Read a table of identities: key of an image -> name of its identity.

    A CSV file with the columns ``image``, a key or a file name, and ``identity``. DataError: it cannot be read, lacks a
    column or a value, or names an image twice.
    """
    file = Path(path).expanduser()
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(where, f"{path} cannot be read ({error})", "a CSV file", "Check the path.") from error
    if not rows or not set(COLUMNS) <= rows[0].keys():
        got = f"{path} has the columns {', '.join(map(str, rows[0]))}" if rows else f"{path} has no lines"
        raise DataError(where, got, f"the columns {' and '.join(COLUMNS)}", "Write a first line: image,identity")
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        image, identity = ((row[name] or "").strip() for name in COLUMNS)
        key = without_suffix(image)
        if not image or not identity or key in found:
            got = f"{path}, line {number}: '{image}' is listed twice" if key in found else f"{path}, line {number}"
            raise DataError(where, got, "one image and its identity in each line, each image once")
        found[key] = identity
    return found


def _real(path: str) -> str:
    return os.path.realpath(os.path.expanduser(path))
