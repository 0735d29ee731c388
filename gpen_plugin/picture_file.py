"""Pictures on disk, written whole or not at all."""

import contextlib
import os
import threading
from pathlib import Path

import cv2
import numpy as np

from gpen_plugin.errors import DataError


def write_picture(path: str | os.PathLike, picture: np.ndarray) -> None:
    """Write a picture under a temporary name, then rename it.

    Args:
        path: target; its suffix chooses the format, its folder is made.
        picture: uint8, (H, W, 3) in BGR order, or (H, W).
    Raises:
        DataError: the picture could not be encoded or written.
    """
    path = Path(path)
    # Not after the picture, whose name may be as long as the disk allows.
    temporary = path.with_name(f".{os.getpid()}.{threading.get_ident()}.part")
    try:
        encoded, data = cv2.imencode(path.suffix, picture)
        if not encoded:
            raise OSError(f"OpenCV does not write {path.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data.tobytes())
        os.replace(temporary, path)
    except (OSError, cv2.error) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise DataError(str(path), f"cannot be written ({error})", "a writable folder with space left") from error
