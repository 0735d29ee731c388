"""YuNet (Wu et al. 2023): a small network that detects faces and their eyes, nose and corners of the mouth.

Its file comes with this package. ONNX Runtime runs it if it is installed, in about half of the time, else OpenCV 4.8 to
5; both on the CPU. Their scores and points differ by rounding only.
"""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import NamedTuple

import cv2
import numpy as np
import torch

from gpen_plugin.checkpoints.download import PACKAGE
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.nets.onnx_providers import open_session

FILE = PACKAGE / "YuNet.onnx"
STRIDES = (8, 16, 32)  # pixels between the network's cells
MIN_INPUT_SIDE = 64  # pixels: if a feature map is one cell wide or high, OpenCV 4 reads beyond its memory
# The pair of CROP_SIDE and FRAME_SIDE with the least error, of a dozen, on 500 portraits of 32, 64 and 128 px
CROP_SIDE = 224  # pixels to which an aligned crop's longer side is resized
FRAME_SIDE = 320  # pixels of the crop with its border
MIN_SCORE = 0.5  # of a face, from 0 to 1
MIN_RELATIVE_SCORE = 0.5  # of the best prediction's score: predictions of the same face that are averaged


class RawPredictions(NamedTuple):
    """One prediction per cell of every stride, A in all, in pixels of the image, 0 at the image's edge."""

    scores: np.ndarray  # [A] float64, 0 to 1
    points: np.ndarray  # [A, 5, 2] float64, x and y of eyes, nose and corners of the mouth
    boxes: np.ndarray  # [A, 4] float64, left, top, right, bottom


Run = Callable[[np.ndarray], Sequence[np.ndarray]]  # [1, 3, H, W] to the maps of each stride, [1, 16, H', W']
_MAPS = [f"stride_{stride}" for stride in STRIDES]


class YuNetNetwork:
    """The network; CheckpointError if its file is damaged."""

    def __init__(self, in_onnxruntime: bool | None = None):  # None: if it is installed
        if in_onnxruntime is None:
            in_onnxruntime = find_spec("onnxruntime") is not None
        self._run: Run = _in_onnxruntime() if in_onnxruntime else _in_opencv()

    def __call__(self, image: np.ndarray, min_score: float) -> RawPredictions:
        """Predictions for an image, (H, W, 3) BGR uint8, padded with black to multiples of 32 px."""
        # several times as fast as blobFromImage
        maps = self._run(np.ascontiguousarray(_pad(image).transpose(2, 0, 1)[None], dtype=np.float32))
        # of each stride [1, 16, H / stride, W / stride]: face, object, box, landmarks
        parts = [decode_priors(each[0], stride, min_score) for each, stride in zip(maps, STRIDES, strict=True)]
        return RawPredictions(*map(np.concatenate, zip(*parts, strict=True)))


def _in_onnxruntime() -> Run:
    session = open_session(FILE, "cpu", torch.get_num_threads(), required=False)
    return lambda images: session.run(_MAPS, {"image": images})


def _in_opencv() -> Run:
    try:
        net = cv2.dnn.readNetFromONNX(np.fromfile(FILE, np.uint8))  # bytes: OpenCV cannot open every path
    except (OSError, cv2.error) as error:
        got = f"cannot be read by OpenCV {cv2.__version__} ({' '.join(str(error).split())})"
        raise CheckpointError(str(FILE), got, "the file of this package", "Install gpen_plugin again.") from error

    def run(images: np.ndarray) -> Sequence[np.ndarray]:
        net.setInput(images)
        return net.forward(_MAPS)

    return run


class YuNet:
    """Finds the five landmarks of the one face of an aligned crop. OptionError for a `path`; `device` is ignored."""

    def __init__(self, path: str | None = None, device: str = "auto"):
        if path is not None:
            raise OptionError("model", f"got {path} for yunet", "no file", "YuNet's comes with gpen_plugin.")
        self._network = yunet_network()

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        """Eyes, nose and mouth corners, left to right, of the face that fills much of an image, (H, W, 3) BGR uint8.

        (5, 2) float64, x and y in pixels, 0 at the center of the first; None if there is no face.
        """
        framed, scale, corner = _frame(image)
        predictions = self._network(framed, MIN_SCORE * MIN_RELATIVE_SCORE)
        points = _average_central_face(predictions.scores, predictions.points)
        return None if points is None else (points - corner) / scale - 0.5


def yunet_network() -> YuNetNetwork:
    """The network of this process: after a fork, a session of onnxruntime would wait for threads that are not there."""
    return _of_process(os.getpid())


@lru_cache(maxsize=1)
def _of_process(process: int) -> YuNetNetwork:
    return YuNetNetwork()


def _pad(image: np.ndarray) -> np.ndarray:
    step = STRIDES[-1]
    height, width = (max(-(-side // step) * step, MIN_INPUT_SIDE) for side in image.shape[:2])
    down, right = height - image.shape[0], width - image.shape[1]
    return cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_CONSTANT)


def decode_priors(values: np.ndarray, stride: int, min_score: float) -> RawPredictions:
    """Predictions of one feature map, (16, h, w)."""
    scores = np.sqrt(np.prod(1 / (1 + np.exp(-values[:2].astype(np.float64))), axis=0))  # [h, w]
    rows, columns = np.nonzero(scores >= min_score)
    scores = scores[rows, columns]  # [A]
    values = values[:, rows, columns].T.astype(np.float64)  # [A, 16]
    cells = np.stack([columns, rows], axis=1)  # [A, 2]
    points = (values[:, 6:].reshape(-1, 5, 2) + cells[:, None]) * stride
    centers, halves = (values[:, 2:4] + cells) * stride, np.exp(values[:, 4:6]) * stride / 2
    return RawPredictions(scores, points, np.concatenate([centers - halves, centers + halves], axis=1))


def _average_central_face(scores: np.ndarray, points: np.ndarray) -> np.ndarray | None:
    """Mean of the predictions of the face that has the best score, less its distance from the center."""
    if not len(scores):
        return None
    centers = points.mean(axis=1)  # [A, 2]
    off_center = np.linalg.norm(centers - FRAME_SIDE / 2, axis=1) / CROP_SIDE
    best = np.argmax(np.where(scores >= MIN_SCORE, scores - off_center, -np.inf))
    if scores[best] < MIN_SCORE:
        return None
    eye_distance = np.linalg.norm(points[best, 0] - points[best, 1])
    same = np.linalg.norm(centers - centers[best], axis=1) < eye_distance
    weights = np.where(same & (scores > MIN_RELATIVE_SCORE * scores[best]), scores, 0)
    return np.average(points, axis=0, weights=weights)


def _frame(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Resize an image and repeat its border: (FRAME_SIDE, FRAME_SIDE, 3), the scale in x and y, the corner (x, y)."""
    # without a border, the network moves the points of a tight crop inwards
    height, width = image.shape[:2]
    factor = CROP_SIDE / max(height, width)
    sides = np.maximum(np.rint(np.array([width, height]) * factor).astype(int), 1)
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    inner = cv2.resize(image, tuple(map(int, sides)), interpolation=interpolation)
    left, up = (FRAME_SIDE - sides) // 2
    right, down = FRAME_SIDE - sides - (left, up)
    framed = cv2.copyMakeBorder(inner, int(up), int(down), int(left), int(right), cv2.BORDER_REPLICATE)
    return framed, sides / (width, height), np.array([left, up])
