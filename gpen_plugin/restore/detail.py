"""How much detail a network adds to a face: the rule that decides which faces are restored.

A network can improve a face that is blurred at the size at which it is shown, however many pixels it has. It can only
spoil a face that is sharper than its own result. So both are compared at the size of the face in the result, by the
contrast of their finest detail without noise.
"""

import cv2
import numpy as np

from gpen_plugin.images.color import luminance

OCTAVES = (1, 2)  # finest octaves that count as detail; JPEG's blocks hide what is missing in one or in the other
MIN_SIDE = 32  # pixels: in smaller faces eyes and mouth are detail
ELLIPSE = (0.38, 0.45)  # half axes of the ellipse in which a face is measured, of the side: no hair and background
WINDOW = 0.015  # of the side: standard deviation of the window in which detail is measured locally, plus one pixel
# Noise is what smooth skin has: the local contrast at its 15th percentile over the face. Gaussian noise has up to 1.2
# times that over the whole face.
NOISE_PERCENTILE, NOISE_FACTOR = 15, 1.2
MIN_CONTRAST = 1 / 1024  # a quarter of a gray level: less cannot be measured in 8 bits
# Ratio of detail up to which a face is left unchanged, and from which it is restored. Sharp faces have up to 1.2, as a
# network strengthens contours; docs/EVIDENCE.md has the weights of faces with known degradation.
NONE_BELOW, ALL_FROM = 1.2, 1.4


def detail_contrast(
    gray: np.ndarray,  # (S, S) float32 in [0, 1]
    octaves: int = 1,  # how many; one holds the finest pixels, two reach down to four times their size
) -> float:
    """Root mean square of the finest octaves of a face, less noise; at least `MIN_CONTRAST`."""
    side = len(gray)
    coarse = cv2.resize(gray, (max(1, side >> octaves),) * 2, interpolation=cv2.INTER_AREA)
    energy = (gray - cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)) ** 2
    inside = _ellipse(side)
    local = np.sqrt(cv2.GaussianBlur(energy, (0, 0), WINDOW * side + 1))
    noise = NOISE_FACTOR * np.percentile(local[inside], NOISE_PERCENTILE)
    return float(np.sqrt(max(energy[inside].mean() - noise**2, MIN_CONTRAST**2)))


def added_detail(
    crop: np.ndarray,  # (S, S, 3) BGR float32 in [0, 1]: the face before
    restored: np.ndarray,  # (T, T, 3) BGR float32 in [0, 1]: the same face after
    side: float,  # of the face in the result, in pixels; both are compared at this size, or T if that is less
) -> float:
    """Contrast of the restored face's detail in units of the input's: above 1 if the network adds detail."""
    side = max(MIN_SIDE, min(round(side), len(restored)))
    after, before = (_at_size(luminance(face), side) for face in (restored, crop))
    return max(detail_contrast(after, octaves) / detail_contrast(before, octaves) for octaves in OCTAVES)


def weight_of(ratio: float) -> float:
    """Weight of a restored face, 0 to 1, for what `added_detail` returns: 0 leaves the face unchanged."""
    return float(np.clip((ratio - NONE_BELOW) / (ALL_FROM - NONE_BELOW), 0, 1))


def _at_size(gray: np.ndarray, side: int) -> np.ndarray:
    interpolation = cv2.INTER_AREA if len(gray) > side else cv2.INTER_CUBIC
    return cv2.resize(gray, (side, side), interpolation=interpolation)


def _ellipse(side: int) -> np.ndarray:
    along = (np.arange(side) + 0.5) / side - 0.5
    return (along / ELLIPSE[0]) ** 2 + (along[:, None] / ELLIPSE[1]) ** 2 < 1
