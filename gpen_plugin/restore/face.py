"""What is known of a face: where it was found, and what became of it."""

import math
from dataclasses import dataclass, field

import numpy as np

from gpen_plugin.images.photograph import Photograph
from gpen_plugin.restore.alignment import side_in_photograph


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """A face in a photograph.

    Attributes:
        box: (4,) float64: left, top, right and bottom in pixels; may stick out of the photograph.
        landmarks: (5, 2) float64, x and y in pixels, where 0 is the middle of the first pixel: eyes, nose and
            corners of the mouth, left to right as the face is seen upright.
        score: the detector's certainty, from 0 to 1.
        detector: its name, e.g. ``retinaface``.
    """

    box: np.ndarray
    landmarks: np.ndarray
    score: float
    detector: str


@dataclass(frozen=True, eq=False)
class RestoredFace:
    """What became of a face.

    Attributes:
        detected: where it was found; None in an image that was said to be one aligned face.
        matrix: (2, 3) float64, from the photograph to the crop.
        crop: the face as it was, (S, S, 3) BGR float32 in [0, 1], at the network's input size; of an image that was
            said to be one aligned face, all of it, (H, W, 3).
        restored: the face as the network gave it, (T, T, 3) BGR float32 in [0, 1], colour kept if that was asked
            for.
        identity: cosine of the angle between the two faces as a recognition network sees them; None if none looked.
        kept: why the face was left as it is; None if the restored one stands in the image.
    """

    detected: DetectedFace | None
    matrix: np.ndarray
    crop: np.ndarray
    restored: np.ndarray
    identity: float | None = None
    kept: str | None = None


def size_warning(face: RestoredFace, most: float | None) -> str | None:
    """Why a face is larger than a network makes better: it fills more than `most` pixels. None if it is not."""
    if most is None or face.detected is None or side_in_photograph(face.crop, face.matrix) <= most:
        return None
    return f"fills more than {most:g} px: pass a larger network, as -m GPEN-BFR-512, or a larger --max-face"


def too_small(face: RestoredFace, least: float) -> str | None:
    """Why a face is smaller than asked for. None if it is not."""
    if face.detected is None:
        return None
    left, top, right, bottom = face.detected.box
    is_small = math.sqrt(max(0, (right - left) * (bottom - top))) < least
    return f"smaller than {least:g} px (--min-face)" if is_small else None


@dataclass(frozen=True, eq=False)
class Restoration:
    """A photograph with its faces restored.

    Attributes:
        photograph: the result, with the metadata of the input; larger by the factor that was asked for.
        faces: one entry for each face found, the most certain first.
        unchanged: whether its pixels are those of the input, since nothing was restored or enlarged.
    """

    photograph: Photograph
    faces: list[RestoredFace] = field(default_factory=list)
    unchanged: bool = False

    @property
    def image(self) -> np.ndarray:
        """The result as an array, in the dtype and with the channels of the input: grey, BGR, or either with alpha."""
        return self.photograph.samples
