"""From the size of a degraded image to that of a network; the way back is `resize_square`, the ground truth's own."""

from typing import Literal

import cv2
import numpy as np

from gpen_plugin.data.degradation import resize_bilinear

Interpolation = Literal["bilinear", "bicubic"]


def resized(image: np.ndarray, size: int, how: Interpolation) -> np.ndarray:
    """Bring a degraded image to the size that a method works at.

    Args:
        image: (H, W, 3), uint8 or float in [0, 1].
        size: side of the result.
        how: ``bilinear`` is what GPEN is trained with; ``bicubic`` is Keys' kernel with a = -0.75, OpenCV's.
    Returns:
        (size, size, 3) float32 in [0, 1], not rounded.
    """
    if how == "bilinear":
        return resize_bilinear(image, size)
    unit = image.astype(np.float32) / 255 if image.dtype == np.uint8 else image
    return np.clip(cv2.resize(unit, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Round an image of [0, 1] to uint8."""
    return np.rint(image * 255).astype(np.uint8)
