"""Files on disk, images above all, written whole or not at all."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from gpen_plugin.errors import DataError


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image under a temporary name, then rename it.

    Args:
        path: target; its suffix chooses the format, its folder is made.
        image: uint8, (H, W, 3) in BGR order, or (H, W).
    Raises:
        DataError: the image could not be encoded or written.
    """
    write_whole(path, encode_image(path, image))


def encode_image(path: str | os.PathLike, image: np.ndarray) -> bytes:
    """The contents of the file that `write_image` writes; nothing is written. DataError if it cannot be encoded."""
    path = Path(path)
    try:
        encoded, data = cv2.imencode(path.suffix, image)
    except cv2.error as error:
        raise _not_written(path, error) from error
    if not encoded:
        raise _not_written(path, f"OpenCV does not write {path.suffix}")
    return data.tobytes()


def write_whole(path: str | os.PathLike, data: bytes) -> None:
    """Write a file under a temporary name, then rename it. The temporary file never stays.

    Args:
        path: target; its folder is made.
        data: all of its contents.
    Raises:
        DataError: the file could not be written; what was there before is as it was.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(path, error) from error
    with whole_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file to write to, in a folder that is there. It gets its name when the block has ended without an error.

    Raises:
        DataError: the file could not be written; what was there before is as it was.
    """
    # Not after the image, whose name may be as long as the disk allows.
    temporary = path.with_name(f".{os.getpid()}.{threading.get_ident()}.part")
    try:
        with temporary.open("w+b") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _not_written(path: Path, reason: object) -> DataError:
    return DataError(str(path), f"cannot be written ({reason})", "a writable folder with space left")
