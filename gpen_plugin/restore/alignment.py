"""Aligned faces: the templates, the matrices between photograph and crop, and warping.

A template is (5, 2) float64: left eye in the image, right eye, nose, left and right corner of the mouth, x and y as
fractions of the side. A point p of an image of side S, where 0 is the center of the first pixel, is the fraction
(p + 0.5) / S, so one template serves all sizes.

A matrix is (2, 3) float64 and maps points (x, y) of one image to another; 0 is the center of the first pixel in both.
"""

import math

import cv2
import numpy as np

from gpen_plugin.errors import DataError, OptionError, ShapeError
from gpen_plugin.nets.face_templates import ARCFACE, ARCFACE_SIDE, DLIB, DLIB_SIDE, FFHQ, FFHQ_SIDE, similarity

POINTS = 5  # left eye in the image, right eye, nose, left and right corner of the mouth
DEMO_SIDE = 512  # pixels of the crops of GPEN's demo
DEMO_PADDING = 0.25  # of the side of ArcFace's square, added on each of its sides
ARCFACE_128_PADDING = 8  # pixels left and right, from ArcFace's 112 px to 128 px


def normalize_template(points: np.ndarray, side: int) -> np.ndarray:
    """Points (K, 2) in pixels of an image of this side as fractions of the side, float64."""
    return (np.asarray(points, np.float64) + 0.5) / side


def scale_template(template: np.ndarray, side: int) -> np.ndarray:
    """Inverse of `normalize_template`."""
    return template * side - 0.5


def _demo_points() -> np.ndarray:
    padding = DEMO_PADDING * ARCFACE_SIDE
    return (ARCFACE + padding) * (DEMO_SIDE / (ARCFACE_SIDE + 2 * padding))


ARCFACE_112 = normalize_template(ARCFACE, ARCFACE_SIDE)
"""Alignment of most face recognition networks."""
TEMPLATES = {
    "ffhq": normalize_template(FFHQ, FFHQ_SIDE),
    "gpen": normalize_template(_demo_points(), DEMO_SIDE),
    "arcface": normalize_template(ARCFACE + np.array([ARCFACE_128_PADDING, 0]), ARCFACE_SIDE + 2 * ARCFACE_128_PADDING),
    "dlib": normalize_template(DLIB, DLIB_SIDE),
}
"""The conventions by name. From eye to eye, a face of 512 px has 126 px in ``ffhq`` (facexlib's, too), 107 in ``gpen``
(the authors' demo), 141 in ``arcface`` (its variant of 128 px) and 186 in ``dlib`` (FairFace's crops)."""


def template(name: str) -> np.ndarray:
    """The template of a name, (5, 2). OptionError if there is none."""
    if name not in TEMPLATES:
        raise OptionError("template", f"got {name!r}", f"one of {', '.join(TEMPLATES)}", "Name one of these.")
    return TEMPLATES[name].copy()


def parse_template(text: str) -> np.ndarray:
    """The template, (5, 2) float64, of a name or of ten numbers ``x1,y1,...,x5,y5`` as fractions of the side.

    Raises: OptionError: neither of both, or numbers that no face has.
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


MIN_EXPLAINED_VARIANCE = 0.25  # of the template by the landmarks; the least of 233 real faces was 0.63
MARGIN = 3  # pixels of the photograph or of the crop, the larger ones, that interpolation reads around a region
WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}


def align(
    landmarks: np.ndarray,  # (5, 2), x and y in pixels of the photograph
    template: np.ndarray,  # (5, 2), fractions of the side
    size: int,  # side of the crop in pixels
) -> np.ndarray:
    """The similarity transform from landmarks to a template, by least squares over the five points.

    Returns: (2, 3) float64, from the photograph to the crop; it never mirrors.
    Raises:
        ShapeError: another shape than (5, 2).
        DataError: the points are not those of a face: coincident, mirrored, or not finite.
    """
    landmarks = np.asarray(landmarks, np.float64)
    if landmarks.shape != (POINTS, 2):
        raise ShapeError("landmarks", f"got shape {landmarks.shape}", f"({POINTS}, 2)")
    if np.isfinite(landmarks).all():
        target = scale_template(template, size)
        matrix = similarity(landmarks, target)
        missed = ((landmarks @ matrix[:, :2].T + matrix[:, 2] - target) ** 2).sum()
        explained = 1 - missed / ((target - target.mean(axis=0)) ** 2).sum()
        if explained >= MIN_EXPLAINED_VARIANCE and scale_of(matrix) <= size:  # the crop shows a pixel or more
            return matrix
    got = f"got {np.array2string(landmarks.round(2), separator=', ').replace(chr(10), '')}"
    raise DataError("landmarks", got, "eyes, nose and corners of the mouth of one face", "Leave this face out.")


def can_be_aligned(landmarks: np.ndarray) -> bool:
    """Whether `align` accepts these landmarks."""
    try:
        align(landmarks, TEMPLATES["ffhq"], 1)
    except DataError:
        return False
    return True


def scale_of(matrix: np.ndarray) -> float:
    """Pixels of the target per pixel of the source."""
    return math.sqrt(abs(np.linalg.det(matrix[:, :2])))


def side_in_photograph(crop: np.ndarray, matrix: np.ndarray) -> float:
    """Side of a crop (S, S, ...) in pixels of the photograph."""
    return len(crop) / scale_of(matrix)


def invert_affine(matrix: np.ndarray) -> np.ndarray:
    back = np.linalg.inv(matrix[:, :2])
    return np.hstack([back, -back @ matrix[:, 2:]])


def compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The matrix that applies `first`, then `second`: (2, 3) float64."""
    return np.hstack([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2:] + second[:, 2:]])


def scale_affine(
    matrix: np.ndarray,  # (2, 3)
    # factor by which the source was enlarged, or the factors of its width and height
    source: float | tuple[float, float] = 1,
    target: float | tuple[float, float] = 1,  # that of the target
) -> np.ndarray:
    """The same matrix between resized images, (2, 3) float64."""
    source, target = np.broadcast_to(source, 2), np.broadcast_to(target, 2)
    linear = matrix[:, :2] * target[:, None] / source
    corner = (-0.5, -0.5)  # of the first image, whatever its size
    where = (matrix[:, :2] @ corner + matrix[:, 2] + 0.5) * target - 0.5
    return np.hstack([linear, (where - linear @ corner)[:, None]])


def template_to_template(source: np.ndarray, source_size: int, target: np.ndarray, target_size: int) -> np.ndarray:
    """The matrix from a face aligned to one template to the same face aligned to another; templates (5, 2)."""
    return similarity(scale_template(source, source_size), scale_template(target, target_size))


def warp(
    image: np.ndarray,  # (H, W, C) or (H, W), uint8, uint16 or float32 in [0, 1], of any size
    matrix: np.ndarray,  # (2, 3), from the image to the result
    size: tuple[int, int],  # width and height of the result
) -> np.ndarray:
    """Warp an image by a similarity transform; borders are reflected.

    Where the image shrinks, each new pixel is the mean over its area: cubic interpolation at a multiple of the size,
    then averaging. Only the needed region is read.

    Returns: (height, width, C) or (height, width) float32 in [0, 1].
    Raises: ShapeError: an image of another dtype, or an empty one.
    """
    return resample(image, matrix, size).clip(0, 1)


def resample(values: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """As `warp`, without clipping: float32 may hold any values, and cubic interpolation overshoots."""
    if values.dtype not in WHITE or 0 in values.shape:
        got = f"got {values.shape} {values.dtype}"
        raise ShapeError("image", got, "uint8, uint16 or float32, and a pixel at least")
    region, matrix = _needed(values, matrix, size)
    region, matrix = _coarser(region, matrix)
    unit = region.astype(np.float32) / np.float32(WHITE[values.dtype])
    finer = max(1, math.ceil(1 / scale_of(matrix) - 1e-6))
    width, height = size
    warped = _warp_cubic(unit, scale_affine(matrix, target=finer), (width * finer, height * finer))
    return warped if finer == 1 else cv2.resize(warped, (width, height), interpolation=cv2.INTER_AREA)


def _warp_cubic(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Channel by channel, for which OpenCV needs less time than for three at once."""
    planes = [
        cv2.warpAffine(plane, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        for plane in cv2.split(image)
    ]
    return planes[0] if len(planes) == 1 else cv2.merge(planes)


def warp_bbox(
    matrix: np.ndarray,  # (2, 3), from the image to the frame
    size: tuple[int, int],  # width and height of the frame
    inside: tuple[int, int],  # width and height of the image
) -> tuple[slice, slice]:
    """Rows and columns of an image that a matrix maps into a frame, one of each at least."""
    width, height = size
    corners = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [-0.5, height - 0.5], [width - 0.5, height - 0.5]])
    back = invert_affine(matrix)
    found = corners @ back[:, :2].T + back[:, 2]  # (4, 2)
    margin = math.ceil(MARGIN * max(1, scale_of(back)))
    low = np.clip(np.floor(found.min(axis=0)).astype(int) - margin, 0, np.array(inside) - 1)
    high = np.clip(np.ceil(found.max(axis=0)).astype(int) + margin + 1, low + 1, inside)
    return slice(low[1], high[1]), slice(low[0], high[0])


def translate_affine(matrix: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """The matrix for a region of the image."""
    return np.hstack([matrix[:, :2], (matrix @ (columns.start, rows.start, 1))[:, None]])


def _needed(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = warp_bbox(matrix, size, image.shape[1::-1])
    return image[rows, columns], translate_affine(matrix, rows, columns)


def _coarser(region: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduce an image that is eight times too large or more, in its own dtype, to save memory."""
    factor = int(1 / scale_of(matrix) / 4)
    if factor < 2:
        return region, matrix
    height, width = (math.ceil(side / factor) for side in region.shape[:2])
    right, below = width * factor - region.shape[1], height * factor - region.shape[0]
    whole = cv2.copyMakeBorder(region, 0, below, 0, right, cv2.BORDER_REPLICATE)
    coarse = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return coarse, scale_affine(matrix, source=1 / factor)
