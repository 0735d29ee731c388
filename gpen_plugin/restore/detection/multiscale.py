"""A photograph of any size, looked at in images of the size that a finder of faces is made for."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np

from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.restore.alignment import invert_affine, scale_affine

SURE = 0.9  # of an upright face's score: where all are less certain, the photograph may be turned
TURNED = 0.85  # of the score of one face at least, where it is: a beard upside down gets up to 0.81
GLANCE = 500_000  # pixels of the copy that tells which way up it is: it is looked at at every turn
LONGEST = 320  # pixels to which small images are enlarged,
ENLARGED = 4  # but by no more than this factor
STEP = 4  # from each scale to the next coarser one
OVERLAP = 1.5  # of neighbouring tiles, in faces of the size that only this scale shows well
EDGE = 2  # pixels: a face so near to the edge of a tile is cut by it
OVERLAPPING = 0.3  # of two boxes' union
INSIDE = 0.8  # of the smaller box
SAME_FACE_MAX_LANDMARK_DIST = 0.5  # distances of the eyes: two findings of one face differ by less
MIN_EYE_MOUTH_SIN = 0.3  # sine of the angle between the line of the eyes and the way from them to the mouth
MIN_EYE_DISTANCE = 0.05  # of the box's side: eyes that are nearer together are one

Level = tuple[np.ndarray, np.ndarray]
"""A copy of a photograph, (H, W, 3), and the (2, 3) matrix that leads to it."""


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


class Detector(Protocol):
    """Finds the faces of a photograph.

    Attributes:
        name: ``retinaface`` or ``yunet``.
        notice: one line that says which it is.
    """

    name: str
    notice: str

    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        """Find them.

        Args:
            image: (H, W, 3) BGR uint8, of any size.
        Returns:
            The faces, the most certain first; landmarks of a tilted face are left to right as it is seen upright.
        Raises:
            ShapeError: the image is something else.
        """


class Backend(Protocol):
    """Finds upright faces, on images of moderate size.

    Attributes:
        name: of the detector.
        smallest: faces of so many pixels are found, smaller ones perhaps.
        largest: pixels of the largest.
        tile: longest side of an image, pixels.
        finest: pixels of the largest copy of a photograph that is looked at; of a larger photograph, a reduced one is.
        turns: degrees by which a photograph is turned, to the left, where it shows no upright face for sure.
    """

    name: str
    smallest: float
    largest: float
    tile: int
    finest: int
    turns: tuple[float, ...]

    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        """The faces of an image, (H, W, 3) BGR uint8 with sides up to `tile`; one may come several times."""


class MultiScaleDetector:
    """A `Detector` that shows a finder the photograph at several scales, in tiles, and turned where that may be needed.

    Args:
        finder: looks at each.
        notice: see `Detector`.
        min_size: faces with boxes smaller than this, in pixels, are dropped.
    Raises:
        OptionError: `min_size` is not above zero.
    """

    def __init__(self, finder: Backend, notice: str, min_size: float = 16):
        if not 0 < min_size < math.inf:
            raise OptionError("min_size", f"got {min_size}", "pixels, above 0")
        self.name, self.notice = finder.name, notice
        self._finder, self._min_size = finder, min_size

    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        """See `Detector`."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ShapeError("image", f"got {image.shape} {image.dtype}", "(H, W, 3) uint8 in BGR order")
        height, width = image.shape[:2]
        upright = self._faces(self._levels(image, self._finder.finest), 0, width, height)
        if _best(upright) >= SURE:
            return upright
        glanced = list(self._levels(image, min(GLANCE, self._finder.finest)))
        glances = {degrees: self._faces(glanced, degrees, width, height) for degrees in self._finder.turns}
        degrees, faces = max(glances.items(), key=lambda glance: _certainty(glance[1]))
        if _best(faces) < TURNED:
            return upright
        turned = self._faces(self._levels(image, self._finder.finest), degrees, width, height)
        return max(upright, turned, key=_certainty)

    def _faces(self, levels: Iterable[Level], degrees: float, width: int, height: int) -> list[DetectedFace]:
        """The faces of a photograph that are upright once it is turned."""
        overlap = math.ceil(OVERLAP * STEP * self._finder.smallest)
        found = []
        for level, to_level in levels:
            for corner, tile in tiles(level, self._finder.tile, overlap):
                shown, to_shown = rotate(tile, degrees)
                in_tile = [transform_face(face, invert_affine(to_shown)) for face in self._finder(shown)]
                to_photograph = invert_affine(to_level - [[0, 0, corner[0]], [0, 0, corner[1]]])
                found += [
                    transform_face(face, to_photograph) for face in in_tile if not _cut(face, corner, tile, level)
                ]
        return nms([face for face in found if self._counts(face, width, height)])

    def _levels(self, image: np.ndarray, finest: int) -> Iterator[Level]:
        """Copies of the photograph, each made from the one before, which is quicker for a large one."""
        height, width = image.shape[:2]
        level = image
        for scale in self._scales(height, width, finest):
            level = resize(level, max(round(width * scale), 1), max(round(height * scale), 1))
            yield level, scale_affine(np.eye(2, 3), target=(level.shape[1] / width, level.shape[0] / height))

    def _scales(self, height: int, width: int, finest: int) -> Iterator[float]:
        """From the finest, on which the smallest faces are found, to one on which the largest are."""
        longer, shorter = max(height, width), min(height, width)
        if longer < self._min_size:
            return
        scale = max(self._finder.smallest / self._min_size, min(ENLARGED, LONGEST / longer))
        scale = min(scale, math.sqrt(finest / (height * width)))
        yield scale
        while longer * scale > min(self._finder.tile, self._finder.largest):
            scale /= STEP
            if shorter * scale < self._finder.smallest:
                return
            yield scale

    def _counts(self, face: DetectedFace, width: int, height: int) -> bool:
        """Whether it can be a face, is large enough, and lies in the photograph with more than its border."""
        if not is_plausible(face):
            return False
        x, y = face.landmarks.mean(axis=0)
        left, top, right, bottom = face.box
        large = math.sqrt((right - left) * (bottom - top)) >= self._min_size
        return large and -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The image at another size, antialiased; itself if it has that size."""
    if image.shape[:2] == (height, width):
        return image
    smaller = width * height < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def tiles(image: np.ndarray, side: int, overlap: int) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Cut an image into parts of equal size, none longer than `side`, that overlap by `overlap` pixels or more.

    Yields:
        The part's upper left pixel, (x, y), and the part, which shares the image's memory.
    """
    height, width = image.shape[:2]
    for top, bottom in _spans(height, side, overlap):
        for left, right in _spans(width, side, overlap):
            yield (left, top), image[top:bottom, left:right]


def rotate(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Turn an image to the left, whole; what comes in at the corners repeats its border.

    Returns:
        The image, contiguous, and the (2, 3) matrix that leads to it.
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


def _certainty(faces: Sequence[DetectedFace]) -> float:
    return sum(face.score for face in faces)


def _best(faces: Sequence[DetectedFace]) -> float:
    return max((face.score for face in faces), default=0)


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    count = 1 if length <= side else math.ceil((length - overlap) / (side - overlap))
    span = min(side, math.ceil((length + (count - 1) * overlap) / count))
    return [(start, start + span) for start in np.linspace(0, length - span, count).round().astype(int).tolist()]


def _cut(face: DetectedFace, corner: tuple[int, int], tile: np.ndarray, level: np.ndarray) -> bool:
    """Whether a face ends where its tile does and the image goes on: another tile or scale shows it whole."""
    (x, y), (height, width) = corner, tile.shape[:2]
    left, top, right, bottom = face.box
    return bool(
        (left < EDGE and x > 0)
        or (top < EDGE and y > 0)
        or (right > width - 1 - EDGE and x + width < level.shape[1])
        or (bottom > height - 1 - EDGE and y + height < level.shape[0])
    )


def nms(faces: Sequence[DetectedFace]) -> list[DetectedFace]:
    """Keep the most certain finding of each face.

    Args:
        faces: plausible ones, in one image's pixels.
    Returns:
        The most certain first, and of equally certain ones the upper, then the left one.
    """
    kept: list[DetectedFace] = []
    for face in sorted(faces, key=lambda face: (-face.score, face.box[1], face.box[0], face.box[3])):
        if not any(is_same_face(face, other) for other in kept):
            kept.append(face)
    return kept


def is_same_face(one: DetectedFace, other: DetectedFace) -> bool:
    """Whether two findings are of one face.

    Boxes alone do not tell: those of a head before another overlap, too. Boxes that overlap are of one face if the
    landmarks agree; and a box inside another is, if its face is where the other's is.
    """
    shared = _shared(one.box, other.box)
    if not shared:
        return False
    areas = _area(one.box), _area(other.box)
    eyes = max(_eye_distance(one), _eye_distance(other))
    if shared > OVERLAPPING * (sum(areas) - shared):
        apart = np.linalg.norm(one.landmarks - other.landmarks, axis=1).mean()
        if apart < SAME_FACE_MAX_LANDMARK_DIST * eyes:
            return True
    middles = np.linalg.norm(one.landmarks.mean(axis=0) - other.landmarks.mean(axis=0))
    return bool(shared > INSIDE * min(areas) and middles < eyes)


def is_plausible(face: DetectedFace) -> bool:
    """Whether all is finite, eyes stand apart, and the mouth is below them as the face itself is turned."""
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
    """The same face in another image. Its box stays upright there, and no larger than the face was.

    Args:
        face: in one image.
        matrix: (2, 3), from there to the other: any scale and turn.
    """
    linear, shift = matrix[:, :2], matrix[:, 2]
    middle = (face.box[:2] + face.box[2:]) / 2 @ linear.T + shift
    sides = (face.box[2:] - face.box[:2]) * np.sqrt(abs(np.linalg.det(linear)))
    if abs(linear[0, 1]) > abs(linear[0, 0]):  # what was its height is its width
        sides = sides[::-1]
    box = np.concatenate([middle - sides / 2, middle + sides / 2])
    return replace(face, box=box, landmarks=face.landmarks @ linear.T + shift)


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(np.prod(sides.clip(min=0)))


def _area(box: np.ndarray) -> float:
    return float(np.prod(box[2:] - box[:2]))


def _eye_distance(face: DetectedFace) -> float:
    return float(np.linalg.norm(face.landmarks[1] - face.landmarks[0]))
