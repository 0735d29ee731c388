"""What a metric asks of its pictures before it looks at them."""

import numpy as np

from gpen_plugin.errors import OptionError, ShapeError


def check_picture(name: str, picture: np.ndarray, smallest: int = 1) -> None:
    """ShapeError if `picture` is no colour picture of 8 bits, or has a side below `smallest` pixels.

    Args:
        name: of the argument, for the error.
        picture: (H, W, 3) uint8.
        smallest: side in pixels.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ShapeError(name, f"got shape {picture.shape} of {picture.dtype}", "(H, W, 3) of uint8")
    if min(picture.shape[:2]) < smallest:
        raise ShapeError(name, f"got {_size(picture)} px", f"at least {smallest} px", "Remove this metric.")


def check_pair(img: np.ndarray, img2: np.ndarray, smallest: int = 1) -> None:
    """`check_picture` of both, and ShapeError if they differ in size."""
    check_picture("img", img, smallest)
    check_picture("img2", img2, smallest)
    if img.shape != img2.shape:
        came = f"got {_size(img)} px beside {_size(img2)} px of img2"
        raise ShapeError("img", came, "two pictures of one size", "Resize one of them.")


def check_better(given: str | None, right: str, why: str) -> None:
    """OptionError if the host was told to look for the worst value instead of the best; None leaves it untold."""
    if given not in (None, right):
        raise OptionError("better", f"got {given!r}", right, why)


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[0]} x {picture.shape[1]}"
