"""Viola and Jones's cascades (2001; Lienhart and Maydt 2002), which OpenCV ships: they need no download."""

import math
import os

import cv2
import numpy as np

from gpen_plugin.errors import MissingFileError
from gpen_plugin.restore.detection.looking import resized
from gpen_plugin.restore.face import DetectedFace

FACES = "haarcascade_frontalface_alt2.xml"
EYES = "haarcascade_eye.xml"
THRESHOLD = 0.65  # on photographs, what is less is as often a fold of cloth as a face
GROWTH = 1.1  # from one size of faces that is looked for to the next
AGREEING = 5  # neighbouring findings that make a face
HALFWAY = 5  # neighbouring findings, above those, of a score of one half
FACE = np.array([[0.304, 0.386], [0.696, 0.386], [0.5, 0.628], [0.322, 0.782], [0.678, 0.782]])
"""Eyes, nose and corners of the mouth in shares of the box that the cascade draws: the mean of 172 portraits of 512 px,
whose landmarks YuNet found, and of their mirror images. The standard deviations are 0.02."""
EYE_FIELD = 0.2, 0.55  # of the box's height: where eyes are looked for
EYE_SIZES = 0.15, 0.4  # of the box's side
EYE_SIDE = 120  # pixels to which a face is brought where eyes are looked for
OFF = 0.1  # of the box's side: an eye farther from where it should be is none
WEIGHT = 0.7  # of found eyes against the mean face
LEGIBLE = 64  # pixels of a box: in smaller ones, eyes that are found are worse than the mean face's


class HaarFinder:
    """A `Finder`. Its landmarks are those of a mean face in the box, moved to the eyes where both are found.

    Args:
        threshold: certainty from which something is a face, 0 to 1.
    Raises:
        MissingFileError: this OpenCV has no cascades, or came without their files.
    """

    name = "haar"
    smallest, largest = 20.0, math.inf
    tile = 4096
    finest = 4_000_000  # takes four seconds on one core
    turns = (30.0, -30.0, 90.0, 180.0, 270.0)

    def __init__(self, threshold: float | None):
        self._threshold = THRESHOLD if threshold is None else threshold
        self._faces, self._eyes = _cascade(FACES), _cascade(EYES)

    def __call__(self, picture: np.ndarray) -> list[DetectedFace]:
        """See `Finder`."""
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        side = int(self.smallest)
        boxes, counts = self._faces.detectMultiScale2(grey, GROWTH, AGREEING, minSize=(side, side))
        faces = [self._face(grey, *box, count) for box, count in zip(boxes, np.ravel(counts), strict=True)]
        return [face for face in faces if face.score >= self._threshold]

    def _face(self, grey: np.ndarray, left: int, top: int, width: int, height: int, count: int) -> DetectedFace:
        score = float(1 - 0.5 ** (1 + (count - AGREEING) / HALFWAY))
        box = np.array([left, top, left + width, top + height], np.float64)
        shares = FACE
        eyes = self._eye_pair(grey[top : top + height, left : left + width])
        if eyes is not None:
            shares = _onto(FACE, (1 - WEIGHT) * FACE[:2] + WEIGHT * eyes)
        return DetectedFace(box - 0.5, box[:2] + shares * (width, height) - 0.5, score, self.name)

    def _eye_pair(self, face: np.ndarray) -> np.ndarray | None:
        """Both eyes, (2, 2) in shares of the box; None unless there is one on each side, near its usual place."""
        if face.shape[0] < LEGIBLE:
            return None
        face = resized(face, EYE_SIDE, EYE_SIDE)
        top, bottom = (round(share * EYE_SIDE) for share in EYE_FIELD)
        smallest, largest = ((round(share * EYE_SIDE),) * 2 for share in EYE_SIZES)
        eyes = self._eyes.detectMultiScale(face[top:bottom], 1.05, 3, minSize=smallest, maxSize=largest)
        if not len(eyes):
            return None
        middles = (eyes[:, :2] + eyes[:, 2:] / 2 + (0, top)) / EYE_SIDE  # (K, 2)
        away = np.linalg.norm(middles[:, None] - FACE[:2], axis=2)  # (K, 2), from each eye's usual place
        return None if (away.min(axis=0) > OFF).any() else middles[away.argmin(axis=0)]


def _cascade(name: str) -> "cv2.CascadeClassifier":
    if not hasattr(cv2, "CascadeClassifier") or not hasattr(cv2, "data"):
        came = f"OpenCV {cv2.__version__} has no cascades of its own"
        raise MissingFileError("detector", came, way_out='Run: pip install "opencv-python<5". Or give a file of YuNet.')
    path = os.path.join(cv2.data.haarcascades, name)
    cascade = cv2.CascadeClassifier()
    if not os.path.isfile(path) or not cascade.load(path):
        came = f"OpenCV {cv2.__version__} came without {name}"
        raise MissingFileError("detector", came, way_out="Run: pip install --force-reinstall opencv-python")
    return cascade


def _onto(landmarks: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """Turn, scale and shift landmarks so that their eyes come to lie on `eyes`, (2, 2)."""
    own, other = (complex(*(pair[1] - pair[0])) for pair in (landmarks[:2], eyes))
    factor = other / own
    turn = np.array([[factor.real, factor.imag], [-factor.imag, factor.real]])
    return (landmarks - landmarks[:2].mean(axis=0)) @ turn + eyes.mean(axis=0)
