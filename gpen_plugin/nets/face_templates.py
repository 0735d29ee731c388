"""Where eyes, nose and mouth lie in an aligned face, by convention, and the transform between two conventions."""

# Not in the files of the networks: the command lines list the conventions without loading PyTorch.

import cv2
import numpy as np

from gpen_plugin.errors import ShapeError

# Eyes, nose and corners of the mouth, left to right in the image, (5, 2) in pixels of a square face.
FFHQ = np.array([[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043],
                 [313.08905, 371.15118]])  # fmt: skip
FFHQ_SIDE = 512
# of dlib's face chips with a padding of 0.25: the mean over 10,000 faces of FairFace, by YuNet
DLIB = np.array([[40.232, 37.679], [86.693, 37.799], [62.890, 64.820], [43.368, 86.933], [83.599, 87.004]])
DLIB_SIDE = 128
ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
ARCFACE_SIDE = 112
FRAMINGS = {"ffhq": (FFHQ, FFHQ_SIDE), "dlib": (DLIB, DLIB_SIDE)}  # of whole data sets


def to_arcface(image: np.ndarray, side: int, framing: str) -> np.ndarray:
    """Warp a square face, (S, S, 3), from one of `FRAMINGS` to ArcFace's: (side, side, 3) of the same dtype.

    By the similarity between the templates, bilinear, black outside. ShapeError if the image is not square.
    """
    height, width = image.shape[:2]
    if height != width:
        got = f"got {height} x {width} px for align: {framing}"
        raise ShapeError("img", got, "a square face in this framing", "Write align: none.")
    points, template_side = FRAMINGS[framing]
    matrix = similarity(_scale_template(points, template_side, width), _scale_template(ARCFACE, ARCFACE_SIDE, side))
    return cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR)


def align_to_arcface(image: np.ndarray, side: int, landmarks: np.ndarray) -> np.ndarray:
    """Warp a face with five `landmarks`, (5, 2) in pixels, to ArcFace's framing: (side, side, 3) of the same dtype."""
    matrix = similarity(landmarks, ARCFACE * (side / ARCFACE_SIDE))
    return cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rotation, uniform scale and shift, (2, 3), between (K, 2) points, K > 1, in least squares."""
    x, y = source.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    equations = np.concatenate([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])  # [2K, 4]
    a, b, right, down = np.linalg.lstsq(equations, target.T.reshape(-1), rcond=None)[0]
    return np.array([[a, -b, right], [b, a, down]])


def _scale_template(template: np.ndarray, side: int, new_side: int) -> np.ndarray:
    return (template + 0.5) * (new_side / side) - 0.5  # 0 is the center of the first pixel
