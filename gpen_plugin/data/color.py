"""The luminance of images: what grey photographs keep of the colours, and colorisation has to leave as it is."""

import cv2
import numpy as np


def luminance(image: np.ndarray) -> np.ndarray:
    """Y of ITU-R BT.601, the grey of JPEG and of most converters: 0.299 R + 0.587 G + 0.114 B.

    Args:
        image: (H, W, 3) BGR float32 in [0, 1].
    Returns:
        (H, W) float32 in [0, 1].
    """
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def to_gray(image: np.ndarray) -> np.ndarray:
    """The image without its colours, of the same shape: its luminance in all three channels."""
    return cv2.cvtColor(luminance(image), cv2.COLOR_GRAY2BGR)


def set_luma(image: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Give an image another luminance, exactly: its chroma (Cb and Cr) stays, where the gamut has room for it.

    Elsewhere the colour becomes paler, of the same hue, until it fits. Clipping it would change the luminance.

    Args:
        image: (H, W, 3) BGR float32 in [0, 1]: its chroma is taken.
        wanted: (H, W) float32 in [0, 1].
    Returns:
        (H, W, 3) BGR float32 in [0, 1], whose `luminance` is `wanted`.
    """
    chroma = image - luminance(image)[:, :, None]  # the same for all colours of the same Cb and Cr
    room = np.where(chroma > 0, 1 - wanted[:, :, None], wanted[:, :, None])
    share = np.minimum(1, room / np.maximum(np.abs(chroma), 1e-6)).min(axis=2, keepdims=True)  # (H, W, 1)
    return np.clip(wanted[:, :, None] + share * chroma, 0, 1)
