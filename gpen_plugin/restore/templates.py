"""Where eyes, nose and mouth lie in an aligned face, by the name of the convention.

A template is (5, 2) float64: x and y as fractions of the side, the image's corner being 0. A point p of an image of
side S, where 0 is the middle of the first pixel, is the fraction (p + 0.5) / S: so one template serves all sizes.
"""

import numpy as np

from gpen_plugin.errors import OptionError
from gpen_plugin.nets.face_templates import ARCFACE, ARCFACE_SIDE, DLIB, DLIB_SIDE, FFHQ, FFHQ_SIDE

POINTS = 5  # left eye in the image, right eye, nose, left and right corner of the mouth
DEMO_SIDE = 512  # pixels of the crops of GPEN's demo
DEMO_PADDING = 0.25  # of the side of ArcFace's square, added on each of its sides
WIDER = 8  # pixels that a 112 px face of ArcFace's gets left and right to become one of 128 px


def normalize_template(points: np.ndarray, side: int) -> np.ndarray:
    """Points of an image of this side as a template.

    Args:
        points: (K, 2), x and y in pixels, where 0 is the middle of the first pixel.
        side: in pixels.
    Returns:
        (K, 2) float64.
    """
    return (np.asarray(points, np.float64) + 0.5) / side


def scale_template(template: np.ndarray, side: int) -> np.ndarray:
    """A template as points of an image of this side: undoes `normalize_template`."""
    return template * side - 0.5


def _demo_points() -> np.ndarray:
    padding = DEMO_PADDING * ARCFACE_SIDE
    return (ARCFACE + padding) * (DEMO_SIDE / (ARCFACE_SIDE + 2 * padding))


ARCFACE_112 = normalize_template(ARCFACE, ARCFACE_SIDE)
"""How most face-recognition networks are shown a face."""
TEMPLATES = {
    "ffhq": normalize_template(FFHQ, FFHQ_SIDE),
    "gpen": normalize_template(_demo_points(), DEMO_SIDE),
    "arcface": normalize_template(ARCFACE + np.array([WIDER, 0]), ARCFACE_SIDE + 2 * WIDER),
    "dlib": normalize_template(DLIB, DLIB_SIDE),
}
"""The conventions by name. From eye to eye, a face of 512 px has 126 px in ``ffhq`` (facexlib's, too), 107 in ``gpen``
(the authors' demo), 141 in ``arcface`` (its variant of 128 px) and 186 in ``dlib`` (FairFace's crops)."""


def template(name: str) -> np.ndarray:
    """The template of this name, (5, 2) fractions of the side.

    Raises:
        OptionError: there is none.
    """
    if name not in TEMPLATES:
        raise OptionError("template", f"got {name!r}", f"one of {', '.join(TEMPLATES)}", "Name one of these.")
    return TEMPLATES[name].copy()


def parse_template(text: str) -> np.ndarray:
    """The template that a user means: a name, or ten numbers of their own.

    Args:
        text: a name, or ``x1,y1,...,x5,y5`` as fractions of the side: eyes, nose and corners of the mouth, left to
            right in the image.
    Returns:
        (5, 2) float64.
    Raises:
        OptionError: neither, or numbers that no face has.
    """
    if text.strip() in TEMPLATES:
        return template(text.strip())
    expected = f"one of {', '.join(TEMPLATES)}, or ten numbers x1,y1,...,x5,y5 from 0 to 1"
    hint = "The points are the eyes, the nose and the corners of the mouth, left to right in the image."
    try:
        points = np.array([float(number) for number in text.split(",")])
    except ValueError as error:
        raise OptionError("template", f"got {text!r}", expected, hint) from error
    if points.size != 2 * POINTS or not ((points >= 0) & (points <= 1)).all():
        raise OptionError("template", f"got {text!r}", expected, hint)
    points = points.reshape(POINTS, 2)  # (5, 2)
    if points[0, 0] >= points[1, 0] or points[:2, 1].mean() >= points[3:, 1].mean():
        expected = "the left eye left of the right one, and both above the mouth"
        raise OptionError("template", f"got {text!r}", expected, hint)
    return points
