"""YuNet (Wu et al. 2023), a small network that finds faces: by OpenCV, or by onnxruntime where OpenCV cannot."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch

from gpen_plugin.fetch import find_weights, look_for
from gpen_plugin.metrics.onnx_file import OnnxNetwork, open_onnx
from gpen_plugin.metrics.yunet import OF_ANY_SIZE, PUBLISHED, STRIDES, guess
from gpen_plugin.restore.face import DetectedFace

THRESHOLD = 0.8  # upright faces of photographs get 0.86 or more, folds of dark cloth up to 0.73
OVERLAPPING = 0.45  # of the union: of boxes that share more, only the best is kept
GUESSES = 5000  # so many are considered at most

Look = Callable[[np.ndarray], np.ndarray]
"""A picture, (H, W, 3) BGR uint8, to its faces as OpenCV's FaceDetectorYN gives them, (K, 15): left and top edge, width
and height of the box, x and y of the five landmarks, score; 0 is the picture's edge."""


class YuNetFinder:
    """A `Finder`.

    Args:
        file: YuNet's ONNX file; the published one, or one that takes any size, is looked for where none is given.
        device: where onnxruntime works; OpenCV works on the CPU.
        threshold: certainty from which something is a face, 0 to 1.
    Raises:
        MissingFileError: the file is not to be had; or OpenCV cannot read it, and onnxruntime is not installed.
        CheckpointError: the file is damaged, or of another network.
    """

    name = "yunet"
    smallest, largest = 16.0, 480.0
    tile = 1280
    finest = 16_000_000
    turns = (30.0, -30.0, 90.0, 180.0, 270.0)  # at 30 degrees, scores fall and landmarks are off

    def __init__(self, file: str | os.PathLike | None, device: torch.device, threshold: float | None):
        path = _path(file)
        threshold = THRESHOLD if threshold is None else threshold
        self._look = _by_opencv(path, threshold)
        if self._look is None:
            network = open_onnx(str(path), device)
            self.tile = next((side for side in network.sides if side), self.tile)
            self._look = _by_onnxruntime(network, threshold)
            self._look(np.zeros((self.tile, self.tile, 3) if network.sides[0] else (32, 32, 3), np.uint8))

    def __call__(self, picture: np.ndarray) -> list[DetectedFace]:
        """See `Finder`."""
        return [self._face(row) for row in self._look(picture).astype(np.float64)]

    def _face(self, row: np.ndarray) -> DetectedFace:
        corner, sides, points, score = row[:2], row[2:4], row[4:14].reshape(5, 2), float(row[14])
        box = np.concatenate([corner, corner + sides]) - 0.5
        return DetectedFace(box, points - 0.5, min(max(score, 0.0), 1.0), self.name)


def _path(file: str | os.PathLike | None) -> Path:
    if file is not None:
        return find_weights(PUBLISHED, str(file), "detector_file")
    return look_for(PUBLISHED) or look_for(OF_ANY_SIZE) or find_weights(PUBLISHED, where="detector")


def _by_opencv(path: Path, threshold: float) -> Look | None:
    """None if this OpenCV has no FaceDetectorYN, or its importer refuses the file."""
    if not hasattr(cv2, "FaceDetectorYN"):
        return None
    with _quiet():
        try:
            detector = cv2.FaceDetectorYN.create(str(path), "", (32, 32), threshold, OVERLAPPING, GUESSES)
            detector.detect(np.zeros((32, 32, 3), np.uint8))
        except cv2.error:
            return None

    def look(picture: np.ndarray) -> np.ndarray:
        detector.setInputSize((picture.shape[1], picture.shape[0]))
        rows = detector.detect(picture)[1]
        return np.empty((0, 15)) if rows is None else rows

    return look


def _by_onnxruntime(network: OnnxNetwork, threshold: float) -> Look:
    def look(picture: np.ndarray) -> np.ndarray:
        certainties, points, boxes = guess(network, _padded(picture, network.sides))
        sure = np.flatnonzero(certainties >= threshold)
        corners, sides = boxes[sure, :2], boxes[sure, 2:] - boxes[sure, :2]
        rows = np.column_stack([corners, sides, points[sure].reshape(-1, 10), certainties[sure]])  # (K, 15)
        best = cv2.dnn.NMSBoxes(rows[:, :4], rows[:, 14], threshold, OVERLAPPING, top_k=GUESSES)
        return rows[np.asarray(best, int).reshape(-1)]

    return look


def _padded(picture: np.ndarray, sides: list[int | None]) -> np.ndarray:
    """Add black at the right and below: to the sides that the file fixes, else to multiples of the largest stride."""
    steps = (-(-side // STRIDES[-1]) * STRIDES[-1] for side in picture.shape[:2])
    height, width = (fixed or step for fixed, step in zip(sides, steps, strict=True))
    down, right = height - picture.shape[0], width - picture.shape[1]
    return cv2.copyMakeBorder(picture, 0, down, 0, right, cv2.BORDER_CONSTANT)


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV prints why it refuses a file, though an exception says it, too."""
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
