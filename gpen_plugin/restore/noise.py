"""Noise of a face: its level, and its removal before the network, which turns strong noise into dark spots."""

import cv2
import numpy as np

from gpen_plugin.images.color import from_float, to_float

# Standard deviations, in units of 1/255: up to the first one noise stays (clean faces have up to 6, see
# docs/EVIDENCE.md), from the second one it is removed, and between both in part, so that a video does not flicker.
LEAST, FULL = 7.0, 9.0
STRENGTH = 0.6  # of the filter, in units of the noise: more takes wrinkles and beards, less leaves spots
CENTER = 0.2  # of the side, on each side: where the level is not measured
PATCH, SEARCH = 3, 15  # pixels: sides of the patches that are compared, and of the window in which
# The response of this filter to a plane is 0; to noise of deviation 1 its deviation is 6 (Immerkaer, CVIU 1996).
_LAPLACIAN = np.float32([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
_DEVIATION, _MEDIAN = 6, 0.6745  # median of the absolute values of a normal distribution of deviation 1


def noise_level(
    face: np.ndarray,  # (H, W, 3) float32 in [0, 1], at a size at which its pixels are not interpolated
) -> float:
    """Standard deviation of the noise, in units of 1/255, in the middle of the face: backgrounds may be clipped."""
    height, width = (round(CENTER * side) for side in face.shape[:2])
    response = np.abs(cv2.filter2D(face, -1, _LAPLACIAN))[height : len(face) - height, width : face.shape[1] - width]
    # the median hides what few pixels have, such as contours
    return float(np.median(response) * 255 / (_DEVIATION * _MEDIAN))


def remove_noise(
    face: np.ndarray,  # (H, W, 3) BGR float32 in [0, 1]
    level: float,  # see `noise_level`
) -> np.ndarray:
    """The face by non-local means (Buades et al., CVPR 2005), from `LEAST` on."""
    weight = np.float32(np.clip((level - LEAST) / (FULL - LEAST), 0, 1))
    strength = STRENGTH * level
    pixels = from_float(face, np.uint8)
    clean = to_float(cv2.fastNlMeansDenoisingColored(pixels, None, strength, strength, PATCH, SEARCH))
    return face + weight * (clean - face)
