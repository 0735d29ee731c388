"""Small patches of a picture's Laplacian pyramid: what the sliced Wasserstein distance compares."""

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

COARSEST = 16  # pixels; the pyramid ends before it would go below
SIDE = 7  # pixels of a patch, at every level


def laplacian_pyramid(picture: np.ndarray) -> list[np.ndarray]:
    """Split a picture into bands of detail, each half as wide as the one before (Burt and Adelson 1983).

    Each level but the last is what blurring and halving takes away from the picture at that size; the last is the
    picture itself at `COARSEST` px, or up to twice that if halving does not lead there.

    Args:
        picture: (H, W, C), uint8 or float32, at least `COARSEST` px high and wide.
    Returns:
        (H, W, C), (H / 2, W / 2, C), ... float32, sides rounded up, in the units of `picture`.
    """
    levels, current = [], picture.astype(np.float32)
    while min(current.shape[:2]) // 2 >= COARSEST:
        smaller = cv2.pyrDown(current)
        levels.append(current - cv2.pyrUp(smaller, dstsize=current.shape[1::-1]))
        current = smaller
    return [*levels, current]


def draw_corners(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> np.ndarray:
    """Upper left corners of patches, drawn evenly from all that lie within a level of this shape: (2, count)."""
    return np.stack([rng.integers(side - SIDE + 1, size=count) for side in shape[:2]])


def patches_at(level: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Cut patches out of one level.

    Args:
        level: (H, W, C) float32.
        corners: (2, N), see `draw_corners`.
    Returns:
        (N, C, SIDE * SIDE) float16, which rounds by less than 0.05 % and halves what a validation has to hold.
    """
    windows = sliding_window_view(level, (SIDE, SIDE), axis=(0, 1))[corners[0], corners[1]]  # (N, C, SIDE, SIDE)
    return windows.reshape(*windows.shape[:2], SIDE * SIDE).astype(np.float16)  # (N, C, SIDE * SIDE)
