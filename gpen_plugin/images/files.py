"""Write files, images above all, completely or not at all."""

import contextlib
import glob
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from gpen_plugin.errors import DataError

MAX_STEM = 180  # bytes of a file's name in that of its temporary file, which has less than 255


def write_image(
    path: str | os.PathLike,  # its suffix determines the format, its folder is created
    image: np.ndarray,  # uint8, (H, W, 3) BGR, or (H, W)
) -> None:
    """Write an image under a temporary name, then rename it.

    Raises: DataError: the image cannot be encoded or written.
    """
    write_whole(path, encode_image(path, image))


def encode_image(path: str | os.PathLike, image: np.ndarray) -> bytes:
    """Contents of the file that `write_image` writes. DataError if it cannot be encoded."""
    path = Path(path)
    try:
        encoded, data = cv2.imencode(path.suffix, image)
    except cv2.error as error:
        raise _write_error(path, error) from error
    if not encoded:
        raise _write_error(path, f"OpenCV does not write {path.suffix}")
    return data.tobytes()


def write_whole(
    path: str | os.PathLike,  # its folder is created
    data: bytes,  # its contents
) -> None:
    """Write a file under a temporary name, then rename it. The temporary file is always removed.

    Raises: DataError: the file cannot be written; an existing one is unchanged.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _write_error(path, error) from error
    with whole_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file in an existing folder that gets its name at the end of the block. DataError as in `write_whole`."""
    temporary = path.with_name(f"{_temporary_stem(path.name)}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with temporary.open("w+b") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_temporary(folder: Path, name: str) -> None:
    """Remove the temporary files that killed processes have left for files whose names begin with `name`."""
    for path in folder.glob(f"{glob.escape(_temporary_stem(name))}*.part"):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _temporary_stem(name: str) -> str:
    while len(os.fsencode(name)) > MAX_STEM:  # the name may be as long as the disk allows
        name = name[:-1]
    return f".{name}"


def _write_error(path: Path, reason: object) -> DataError:
    return DataError(str(path), f"cannot be written ({reason})", "a writable folder with space left")
