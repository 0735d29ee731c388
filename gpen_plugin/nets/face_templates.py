"""Where the eyes, nose and mouth of an aligned face lie, and the way from one such convention to another."""

import cv2
import numpy as np

from gpen_plugin.errors import ShapeError

FFHQ = np.array([[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043],
                 [313.08905, 371.15118]])  # fmt: skip
"""Eyes, nose and corners of the mouth, left to right in the image, of a 512 px face in FFHQ's framing."""
FFHQ_SIDE = 512
DLIB = np.array([[40.232, 37.679], [86.693, 37.799], [62.890, 64.820], [43.368, 86.933], [83.599, 87.004]])
"""The same of a 128 px face chip of dlib's with a padding of 0.25: the mean over 10,000 faces of FairFace, by YuNet."""
DLIB_SIDE = 128
ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
"""The same of a 112 px face, as face-recognition networks are trained on."""
ARCFACE_SIDE = 112


FRAMINGS = {"ffhq": (FFHQ, FFHQ_SIDE), "dlib": (DLIB, DLIB_SIDE)}
"""How whole data sets frame their faces: points, and the side of the image that they lie in."""


def to_arcface(image: np.ndarray, side: int, framing: str) -> np.ndarray:
    """Bring a face in another framing into that of ArcFace, by the one similarity transform between their templates.

    Args:
        image: (S, S, 3) float32 or uint8.
        side: of the result.
        framing: of the image, one of `FRAMINGS`.
    Returns:
        (side, side, 3), in the dtype of `image`, bilinear, black outside, as face recognition is used to.
    Raises:
        ShapeError: the image is not square.
    """
    height, width = image.shape[:2]
    if height != width:
        got = f"got {height} x {width} px for align: {framing}"
        raise ShapeError("img", got, "a square face in this framing", "Write align: none.")
    points, of_side = FRAMINGS[framing]
    matrix = similarity(_at(points, of_side, width), _at(ARCFACE, ARCFACE_SIDE, side))
    return cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, uniform scale and shift that bring points nearest to others, in least squares.

    Args:
        source: (K, 2), K > 1.
        target: (K, 2).
    Returns:
        (2, 3): ``matrix @ (x, y, 1)``.
    """
    x, y = source.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    equations = np.concatenate([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])  # (2K, 4)
    a, b, right, down = np.linalg.lstsq(equations, target.T.reshape(-1), rcond=None)[0]
    return np.array([[a, -b, right], [b, a, down]])


def _at(template: np.ndarray, side: int, other: int) -> np.ndarray:
    """A template of images of one side in images of another; 0 is the middle of the first pixel in both."""
    return (template + 0.5) * (other / side) - 0.5
