"""Detect faces in photographs of any size: RetinaFace and YuNet on an image pyramid, in tiles, rotated, with NMS."""

import importlib.util
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np
import torch
from torch import nn

from gpen_plugin.checkpoints.download import WeightFile, find_local, find_weights
from gpen_plugin.errors import INSTALL_FACEXLIB, MissingFileError, OptionError, ShapeError
from gpen_plugin.nets.loading import load_frozen, load_tensors
from gpen_plugin.nets.yunet import yunet_network
from gpen_plugin.restore.alignment import invert_affine, scale_affine

DETECTORS = ("auto", "retinaface", "yunet")
NOTICES = {"retinaface": "found by RetinaFace (facexlib)", "yunet": "found by YuNet"}
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
RETINAFACE_FILE = WeightFile(
    "detection_Resnet50_Final.pth",
    "RetinaFace, for finding faces",
    "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",
    "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
)
RETINAFACE_THRESHOLD = 0.8  # as facexlib's detector; its 0.97 for restoration loses blurred faces
RETINAFACE_NMS_IOU = 0.4  # of the union: of boxes that share more, only the best is kept
YUNET_THRESHOLD = 0.8  # upright faces of photographs get 0.86 or more, folds of dark cloth up to 0.73
YUNET_NMS_IOU = 0.45  # of the union: of boxes that share more, only the best is kept
YUNET_MAX_CANDIDATES = 5000  # so many are considered at most

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


class RetinaFaceBackend:
    """Raises:
    MissingFileError: the weights or facexlib are missing.
    CheckpointError: the file cannot be read, or is that of another network.
    """

    name = "retinaface"
    smallest, largest = 16.0, 800.0
    tile = 1280
    max_pixels = 4_000_000  # takes half a minute on one core
    rotations = (90.0, 180.0, 270.0)

    def __init__(
        self,
        file: str | os.PathLike | None,  # weights; None searches for them, also in facexlib's folder
        device: torch.device,  # of the network
        threshold: float | None,  # least score of a face, 0 to 1; None takes the default
        *,
        download: bool = True,  # whether missing weights may be downloaded
    ):
        folder = _facexlib_folder()
        path = str(_weights_path(file, folder, download))
        self._threshold = RETINAFACE_THRESHOLD if threshold is None else threshold
        self._network = load_frozen(_architecture(device), load_tensors(path), path, device)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        rows = self._network.detect_faces(image, self._threshold, RETINAFACE_NMS_IOU)  # (K, 15): box, score, landmarks
        return [self._face(row) for row in rows.astype(np.float64)]

    def _face(self, row: np.ndarray) -> DetectedFace:
        """facexlib counts pixels from the image's edge: see the centers of its anchors."""
        return DetectedFace(row[:4] - 0.5, row[5:].reshape(5, 2) - 0.5, min(float(row[4]), 1.0), self.name)


def _facexlib_folder() -> Path:
    spec = importlib.util.find_spec("facexlib")
    if spec is None or not spec.submodule_search_locations:
        raise MissingFileError("detector", "the package facexlib is not installed", hint=f"Run: {INSTALL_FACEXLIB}")
    return Path(next(iter(spec.submodule_search_locations)))


def _weights_path(file: str | os.PathLike | None, facexlib: Path, download: bool) -> Path:
    if file is not None:
        return find_weights(RETINAFACE_FILE, str(file), "detector_file")
    kept = facexlib / "weights" / RETINAFACE_FILE.name  # where facexlib downloads to
    found = find_local(RETINAFACE_FILE) or (kept if kept.is_file() else None)
    if found is None and not download:
        raise MissingFileError("detector", f"{RETINAFACE_FILE.name} is not on this machine")
    return found or find_weights(RETINAFACE_FILE, where="detector")


def _architecture(device: torch.device) -> nn.Module:
    """Built here, as facexlib's own function unpickles the file without `weights_only`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, on how facexlib asks for an empty ResNet
        from facexlib.detection.retinaface import RetinaFace

        return RetinaFace(network_name="resnet50", device=device)


class YuNetBackend:
    """Runs on the CPU. CheckpointError if YuNet's file, which is part of this package, is damaged."""

    name = "yunet"
    smallest, largest = 16.0, 480.0
    tile = 1280
    max_pixels = 16_000_000
    rotations = (30.0, -30.0, 90.0, 180.0, 270.0)  # at 30 degrees, scores fall and landmarks are off

    def __init__(self, threshold: float | None):
        self.network = yunet_network()
        self._threshold = YUNET_THRESHOLD if threshold is None else threshold

    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        scores, points, boxes = self.network(image, self._threshold)
        rows = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])  # (K, 4)
        # lists: not every OpenCV takes empty arrays
        best = cv2.dnn.NMSBoxes(
            rows.tolist(), scores.tolist(), self._threshold, YUNET_NMS_IOU, top_k=YUNET_MAX_CANDIDATES
        )
        return [DetectedFace(boxes[i] - 0.5, points[i] - 0.5, float(scores[i]), self.name) for i in best]


def open_detector(
    # ``auto`` is RetinaFace if facexlib and its weights are on this machine, or if `file` is given; else YuNet. It
    # downloads nothing
    name: Literal["auto", "retinaface", "yunet"] = "auto",
    *,
    file: str | os.PathLike | None = None,  # weights of RetinaFace, ``.pth``; None searches for them
    # of RetinaFace; YuNet runs on the CPU
    device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
    threshold: float | None = None,  # least score of a face, 0 to 1; None takes that of the backend
    min_size: float = 16,  # side of the smallest box in pixels
) -> Detector:
    """Open a detector.

    Raises:
        OptionError: an argument is wrong.
        MissingFileError: RetinaFace was asked for, and facexlib or the weights are missing.
        CheckpointError: a file cannot be read, or is that of another network.
    """
    if name not in DETECTORS:
        raise OptionError("detector", f"got {name!r}", f"one of {', '.join(DETECTORS)}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise OptionError("threshold", f"got {threshold}", "a number from 0 to 1")
    if not 0 < min_size < math.inf:
        raise OptionError("min_size", f"got {min_size}", "pixels, above 0")
    if file is not None and (name == "yunet" or str(file).lower().endswith(".onnx")):
        hint = "YuNet's file comes with gpen_plugin: leave the option out."
        raise OptionError("detector_file", f"got {file}", "a .pth file of RetinaFace", hint)
    backend = YuNetBackend(threshold) if name == "yunet" else _retinaface_or_yunet(name, file, device, threshold)
    return MultiScaleDetector(backend, NOTICES[backend.name], min_size)


def _retinaface_or_yunet(
    name: str, file: str | os.PathLike | None, device: torch.device, threshold: float | None
) -> RetinaFaceBackend | YuNetBackend:
    asked_for = name == "retinaface" or file is not None
    try:
        return RetinaFaceBackend(file, device, threshold, download=asked_for)
    except MissingFileError:
        if asked_for:
            raise
        return YuNetBackend(threshold)
