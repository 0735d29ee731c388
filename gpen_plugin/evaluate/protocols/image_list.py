"""The list of images of a protocol: whose order and number everything else goes by."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from gpen_plugin.data.image_source import ImageSource, open_source
from gpen_plugin.errors import DataError, GPENError, OptionError

MOST_LISTED = 20  # keys in a message


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """The keys that every protocol has.

    Args:
        out_size: side of the ground truth and of the results, in pixels.
        num_images: use only this many images, the first in order of their keys; ~ for all.
    """

    out_size: int | None
    num_images: int | None = None

    def value_problems(self, where: str) -> list[GPENError]:
        """What is wrong with the values, by key path; nothing is opened."""
        given = {"out_size": self.out_size, "num_images": self.num_images}
        return [
            OptionError(f"{where}:{name}", f"got {value}", "a number above 0")
            for name, value in given.items()
            if value is not None and value < 1
        ]


def open_root(path: str, where: str) -> ImageSource:
    """Open a folder, zip file or LMDB, whose keys name files that an evaluation writes.

    Raises:
        DataError: it cannot be opened, is empty, or has a key that leads out of any folder or is no text.
    """
    source = open_source(path, where)
    for key in source.keys:
        if key.startswith("/") or ".." in PurePosixPath(key).parts:
            raise DataError(where, f"{path} has an image called '{key}'", "names below one folder", "Rename it.")
        shown = key.encode("utf-8", "backslashreplace").decode()
        if shown != key:
            raise DataError(where, f"{path} has an image called '{shown}'", "names that are text", "Rename it.")
    return source


def first_keys(keys: Sequence[str], number: int | None) -> tuple[list[str], list[str]]:
    """The images to use, and a note for the reader where there are fewer than asked for."""
    notes = [f"{number} images are asked for, {len(keys)} are there"] if number and number > len(keys) else []
    return list(keys[:number]), notes


def listed(keys: Iterable[str], most: int = MOST_LISTED) -> str:
    """Keys in words, cut where there are many: ``a, b and 7 more``."""
    keys = list(keys)
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + rest
