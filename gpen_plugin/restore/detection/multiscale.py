"""Detect faces in photographs of any size: an image pyramid, tiles, rotations, and NMS."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np

from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.restore.alignment import invert_affine, scale_affine

UPRIGHT_MIN_SCORE = 0.9  # below it, the photograph is also searched rotated
ROTATED_MIN_SCORE = 0.85  # a beard upside down gets up to 0.81
ROTATION_CHECK_PIXELS = 500_000  # size of the copy that is searched at every rotation
ENLARGE_TO = 320  # pixels of the longer side to which small images are enlarged
MAX_ENLARGEMENT = 4
SCALE_STEP = 4  # between two scales
TILE_OVERLAP = 1.5  # of neighboring tiles, in faces of the size that only this scale shows well
EDGE_MARGIN = 2  # pixels: a face so near to the edge of a tile is cut by it
SAME_FACE_MIN_IOU = 0.3  # of two boxes' union
SAME_FACE_MIN_CONTAINMENT = 0.8  # of the smaller box
SAME_FACE_MAX_LANDMARK_DIST = 0.5  # distances of the eyes: two findings of one face differ by less
MIN_EYE_MOUTH_SIN = 0.3  # sine of the angle between the line of the eyes and the direction from them to the mouth
MIN_EYE_DISTANCE = 0.05  # of the box's side: eyes that are nearer together are one

Level = tuple[np.ndarray, np.ndarray]
"""A copy of a photograph, (H, W, 3), and the (2, 3) matrix that leads to it."""


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """A face in a photograph."""

    box: np.ndarray  # (4,) float64: left, top, right and bottom in pixels; may exceed the photograph
    # (5, 2) float64, x and y in pixels, 0 being the center of the first pixel: eyes, nose and corners of the mouth,
    # left to right in the upright face
    landmarks: np.ndarray
    score: float  # 0 to 1
    detector: str  # e.g. ``retinaface``


class Detector(Protocol):
    """Detects the faces of a photograph."""

    name: str  # ``retinaface`` or ``yunet``
    notice: str  # one line for the user

    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        """Faces of an image, (H, W, 3) BGR uint8 of any size, sorted by score.

        Raises: ShapeError: the image has another shape or dtype.
        """


class Backend(Protocol):
    """Detects upright faces in images of limited size."""

    name: str  # of the detector
    smallest: float  # side in pixels from which faces are found reliably
    largest: float  # side of the largest faces
    tile: int  # longest side of an image, in pixels
    max_pixels: int  # largest copy of a photograph; larger photographs are reduced
    # degrees by which a photograph is turned to the left if it shows no certain upright face
    rotations: tuple[float, ...]

    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        """Faces of an image, (H, W, 3) BGR uint8 with sides up to `tile`; a face may be found several times."""


class MultiScaleDetector:
    """A `Detector` that runs a backend on a photograph at several scales, in tiles, and turned if needed.

    Raises: OptionError: `min_size` is not positive.
    """

    def __init__(
        self,
        backend: Backend,  # runs on each tile
        notice: str,  # see `Detector`
        min_size: float = 16,  # side of the smallest box in pixels
    ):
        if not 0 < min_size < math.inf:
            raise OptionError("min_size", f"got {min_size}", "pixels, above 0")
        self.name, self.notice = backend.name, notice
        self._backend, self._min_size = backend, min_size

    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ShapeError("image", f"got {image.shape} {image.dtype}", "(H, W, 3) uint8 in BGR order")
        height, width = image.shape[:2]
        upright = self._detect(self._levels(image, self._backend.max_pixels), 0, width, height)
        if _best_score(upright) >= UPRIGHT_MIN_SCORE:
            return upright
        small_levels = list(self._levels(image, min(ROTATION_CHECK_PIXELS, self._backend.max_pixels)))
        small = {degrees: self._detect(small_levels, degrees, width, height) for degrees in self._backend.rotations}
        degrees, faces = max(small.items(), key=lambda entry: _total_score(entry[1]))
        if _best_score(faces) < ROTATED_MIN_SCORE:
            return upright
        turned = self._detect(self._levels(image, self._backend.max_pixels), degrees, width, height)
        return max(upright, turned, key=_total_score)

    def _detect(self, levels: Iterable[Level], degrees: float, width: int, height: int) -> list[DetectedFace]:
        overlap = math.ceil(TILE_OVERLAP * SCALE_STEP * self._backend.smallest)
        found = []
        for level, to_level in levels:
            for corner, tile in tiles(level, self._backend.tile, overlap):
                rotated, to_rotated = rotate(tile, degrees)
                in_tile = [transform_face(face, invert_affine(to_rotated)) for face in self._backend(rotated)]
                to_photograph = invert_affine(to_level - [[0, 0, corner[0]], [0, 0, corner[1]]])
                found += [
                    transform_face(face, to_photograph) for face in in_tile if not _is_cut(face, corner, tile, level)
                ]
        return nms([face for face in found if self._is_valid(face, width, height)])

    def _levels(self, image: np.ndarray, max_pixels: int) -> Iterator[Level]:
        height, width = image.shape[:2]
        level = image
        for scale in self._scales(height, width, max_pixels):
            level = resize(level, max(round(width * scale), 1), max(round(height * scale), 1))
            yield level, scale_affine(np.eye(2, 3), target=(level.shape[1] / width, level.shape[0] / height))

    def _scales(self, height: int, width: int, max_pixels: int) -> Iterator[float]:
        """From the finest, for the smallest faces, to one for the largest."""
        longer, shorter = max(height, width), min(height, width)
        if longer < self._min_size:
            return
        scale = max(self._backend.smallest / self._min_size, min(MAX_ENLARGEMENT, ENLARGE_TO / longer))
        scale = min(scale, math.sqrt(max_pixels / (height * width)))
        yield scale
        while longer * scale > min(self._backend.tile, self._backend.largest):
            scale /= SCALE_STEP
            if shorter * scale < self._backend.smallest:
                return
            yield scale

    def _is_valid(self, face: DetectedFace, width: int, height: int) -> bool:
        """Whether it is plausible, large enough, and has its center in the photograph."""
        if not is_plausible(face):
            return False
        x, y = face.landmarks.mean(axis=0)
        left, top, right, bottom = face.box
        large = math.sqrt((right - left) * (bottom - top)) >= self._min_size
        return large and -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Antialiased; the image itself if it has that size."""
    if image.shape[:2] == (height, width):
        return image
    smaller = width * height < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def tiles(image: np.ndarray, side: int, overlap: int) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Cut an image into parts of equal size, at most `side` long, that overlap by `overlap` pixels or more.

    Yields: The part's upper left pixel, (x, y), and the part as a view.
    """
    height, width = image.shape[:2]
    for top, bottom in _spans(height, side, overlap):
        for left, right in _spans(width, side, overlap):
            yield (left, top), image[top:bottom, left:right]


def rotate(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotate an image to the left without cropping; corners repeat the border.

    Returns: The image, contiguous, and the (2, 3) matrix to it.
    """
    if not degrees:
        return np.ascontiguousarray(image), np.eye(2, 3)
    height, width = image.shape[:2]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[cosine, sine], [-sine, cosine]])
    sides = np.rint(np.abs(turn) @ (width, height)).astype(int)
    shift = (sides - 1) / 2 - turn @ ((width - 1) / 2, (height - 1) / 2)
    matrix = np.column_stack([turn, shift])
    size = int(sides[0]), int(sides[1])
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), matrix


def _total_score(faces: Sequence[DetectedFace]) -> float:
    return sum(face.score for face in faces)


def _best_score(faces: Sequence[DetectedFace]) -> float:
    return max((face.score for face in faces), default=0)


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    count = 1 if length <= side else math.ceil((length - overlap) / (side - overlap))
    span = min(side, math.ceil((length + (count - 1) * overlap) / count))
    return [(start, start + span) for start in np.linspace(0, length - span, count).round().astype(int).tolist()]


def _is_cut(face: DetectedFace, corner: tuple[int, int], tile: np.ndarray, level: np.ndarray) -> bool:
    """Whether a face touches the border of its tile inside the image: another tile or scale shows it whole."""
    (x, y), (height, width) = corner, tile.shape[:2]
    left, top, right, bottom = face.box
    return bool(
        (left < EDGE_MARGIN and x > 0)
        or (top < EDGE_MARGIN and y > 0)
        or (right > width - 1 - EDGE_MARGIN and x + width < level.shape[1])
        or (bottom > height - 1 - EDGE_MARGIN and y + height < level.shape[0])
    )


def nms(faces: Sequence[DetectedFace]) -> list[DetectedFace]:
    """Keep the face with the highest score of each group, sorted by score, then top, then left."""
    kept: list[DetectedFace] = []
    for face in sorted(faces, key=lambda face: (-face.score, face.box[1], face.box[0], face.box[3])):
        if not any(is_same_face(face, other) for other in kept):
            kept.append(face)
    return kept


def is_same_face(one: DetectedFace, other: DetectedFace) -> bool:
    """Whether two detections are the same face.

    Boxes of two heads may overlap. So overlapping boxes need similar landmarks, and a box inside another needs the same
    center of the landmarks.
    """
    intersection = _intersection(one.box, other.box)
    if not intersection:
        return False
    areas = _area(one.box), _area(other.box)
    eyes = max(_eye_distance(one), _eye_distance(other))
    if intersection > SAME_FACE_MIN_IOU * (sum(areas) - intersection):
        apart = np.linalg.norm(one.landmarks - other.landmarks, axis=1).mean()
        if apart < SAME_FACE_MAX_LANDMARK_DIST * eyes:
            return True
    middles = np.linalg.norm(one.landmarks.mean(axis=0) - other.landmarks.mean(axis=0))
    return bool(intersection > SAME_FACE_MIN_CONTAINMENT * min(areas) and middles < eyes)


def is_plausible(face: DetectedFace) -> bool:
    """Whether all values are finite, the eyes are apart, and the mouth is below them in the face's own rotation."""
    if not (np.isfinite(face.box).all() and np.isfinite(face.landmarks).all() and np.isfinite(face.score)):
        return False
    left, top, right, bottom = face.box
    if right <= left or bottom <= top:
        return False
    eyes = face.landmarks[1] - face.landmarks[0]
    down = face.landmarks[3:].mean(axis=0) - face.landmarks[:2].mean(axis=0)
    lengths = np.linalg.norm(eyes), np.linalg.norm(down)
    if min(lengths) < MIN_EYE_DISTANCE * np.sqrt(_area(face.box)):
        return False
    return bool(eyes[0] * down[1] - eyes[1] * down[0] > MIN_EYE_MOUTH_SIN * lengths[0] * lengths[1])


def transform_face(face: DetectedFace, matrix: np.ndarray) -> DetectedFace:
    """The face in another image, by a (2, 3) similarity transform. The box stays axis-parallel and keeps its area."""
    linear, shift = matrix[:, :2], matrix[:, 2]
    middle = (face.box[:2] + face.box[2:]) / 2 @ linear.T + shift
    sides = (face.box[2:] - face.box[:2]) * np.sqrt(abs(np.linalg.det(linear)))
    if abs(linear[0, 1]) > abs(linear[0, 0]):  # what was its height is its width
        sides = sides[::-1]
    box = np.concatenate([middle - sides / 2, middle + sides / 2])
    return replace(face, box=box, landmarks=face.landmarks @ linear.T + shift)


def _intersection(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(np.prod(sides.clip(min=0)))


def _area(box: np.ndarray) -> float:
    return float(np.prod(box[2:] - box[:2]))


def _eye_distance(face: DetectedFace) -> float:
    return float(np.linalg.norm(face.landmarks[1] - face.landmarks[0]))
