"""YuNet (Wu et al. 2023): finds a face and its eyes, nose and corners of the mouth, on any aligned crop."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from gpen_plugin.errors import CheckpointError, MissingFileError
from gpen_plugin.fetch import WeightFile, find_weights
from gpen_plugin.metrics.measuring_network import chosen_device
from gpen_plugin.metrics.onnx_file import OnnxNetwork, open_onnx

PUBLISHED = WeightFile(
    "face_detection_yunet_2023mar.onnx",
    "YuNet, for landmarks of faces",
    "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
    "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
)
OF_ANY_SIZE = WeightFile("face_detection_yunet_dynamic.onnx", "YuNet for any size", None, None)

STRIDES = (8, 16, 32)  # pixels between the network's guesses
OUTPUTS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}  # in each guess: it is a face, an object; its box; its five points
# SIDE and FRAME are, of a dozen pairs, the one with the least error on 500 portraits of 32, 64 and 128 px
SIDE = 224  # pixels to which a picture's longer side is brought
FRAME = 320  # pixels of the picture with its border, where the file does not fix them; a multiple of 32
CERTAIN = 0.5  # from 0 to 1
AGREEING = 0.5  # of the best guess's certainty: guesses of the same face that are averaged


class Guesses(NamedTuple):
    """What the network says of a picture, cell by cell and stride by stride: (A,) guesses, in pixels of the picture.

    Attributes:
        certainties: (A,) float64, from 0 to 1.
        points: (A, 5, 2) float64, x and y of eyes, nose and corners of the mouth; 0 is the picture's edge.
        boxes: (A, 4) float64, left, top, right and bottom; 0 is the picture's edge.
    """

    certainties: np.ndarray
    points: np.ndarray
    boxes: np.ndarray


class YuNet:
    """Finds the five landmarks of the one face of an aligned crop.

    Args:
        path: of its ONNX file; the published one is looked for where none is given.
        device: ``auto``, ``cpu`` or ``cuda``.
    Raises:
        MissingFileError: the file, or the package onnxruntime, is missing.
        CheckpointError: the file is damaged, or of another network.
    """

    def __init__(self, path: str | None = None, device: str = "auto"):
        self._network = open_onnx(str(_file(path)), chosen_device(device))
        self._frame = next((side for side in self._network.sides if side), FRAME)

    def __call__(self, picture: np.ndarray) -> np.ndarray | None:
        """Find the landmarks.

        Args:
            picture: (H, W, 3) BGR uint8, of any size, with one face that fills much of it.
        Returns:
            (5, 2) float64, x and y in pixels, where 0 is the middle of the first pixel: eyes, nose and corners of the
            mouth, left to right in the picture; None if there is no face.
        """
        framed, scale, corner = _framed(picture, self._frame)
        guesses = guess(self._network, framed)
        points = self._of_one_face(guesses.certainties, guesses.points)
        return None if points is None else (points - corner) / scale - 0.5

    def _of_one_face(self, certainties: np.ndarray, points: np.ndarray) -> np.ndarray | None:
        """The mean of the guesses of the face that is most certain and nearest to the middle."""
        middles = points.mean(axis=1)  # (A, 2)
        off_centre = np.linalg.norm(middles - self._frame / 2, axis=1) / SIDE
        best = np.argmax(np.where(certainties >= CERTAIN, certainties - off_centre, -np.inf))
        if certainties[best] < CERTAIN:
            return None
        width = np.linalg.norm(points[best, 0] - points[best, 1])  # from eye to eye
        same = np.linalg.norm(middles - middles[best], axis=1) < width
        weights = np.where(same & (certainties > AGREEING * certainties[best]), certainties, 0)
        return np.average(points, axis=0, weights=weights)


def guess(network: OnnxNetwork, picture: np.ndarray) -> Guesses:
    """Show YuNet a picture.

    Args:
        network: from YuNet's file.
        picture: (H, W, 3) BGR uint8; sides are multiples of 32, and those that the file fixes, if any.
    Raises:
        CheckpointError: the network is another one.
    """
    outputs = network(np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32))  # (1, 3, H, W)
    certainties, points, boxes = [], [], []
    for stride in STRIDES:
        rows, columns = picture.shape[0] // stride, picture.shape[1] // stride
        is_face, is_object, sides, offsets = (
            _output(network, outputs, f"{kind}_{stride}", (1, rows * columns, numbers), picture.shape)
            for kind, numbers in OUTPUTS.items()
        )
        certainties.append(np.sqrt(is_face.clip(0, 1) * is_object.clip(0, 1)).reshape(-1))
        cells = np.indices((rows, columns))[::-1].reshape(2, -1).T  # (A, 2), x before y
        points.append((offsets.reshape(-1, 5, 2) + cells[:, None]) * stride)
        middles, halves = (sides[:, :2] + cells) * stride, np.exp(sides[:, 2:]) * stride / 2
        boxes.append(np.concatenate([middles - halves, middles + halves], axis=1))
    return Guesses(np.concatenate(certainties), np.concatenate(points), np.concatenate(boxes))


def _output(
    network: OnnxNetwork, outputs: dict[str, np.ndarray], name: str, shape: tuple[int, ...], picture: tuple[int, ...]
) -> np.ndarray:
    """The guesses that an output holds, float64; CheckpointError if it is not there or of another shape."""
    if name not in outputs:
        came = f"has the outputs {', '.join(outputs)}"
        raise CheckpointError(network.path, came, "those of YuNet (cls_8 ... kps_32)")
    if outputs[name].shape != shape:
        came = f"gives {name} of shape {outputs[name].shape} for a picture of {picture[1]} x {picture[0]} px"
        raise CheckpointError(network.path, came, f"{shape}, as YuNet does")
    return outputs[name][0].astype(np.float64)


def _file(path: str | None) -> Path:
    if path is not None:
        return find_weights(PUBLISHED, path, "model")
    try:
        return find_weights(OF_ANY_SIZE)
    except MissingFileError:
        return find_weights(PUBLISHED)


def _framed(picture: np.ndarray, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring a picture to the working size and repeat its border: on a tight crop the network draws the points inwards.

    Returns:
        The picture in its frame, (frame, frame, 3); its scale in x and y; and its upper left corner, (x, y).
    """
    height, width = picture.shape[:2]
    factor = SIDE / max(height, width)
    sides = np.maximum(np.rint(np.array([width, height]) * factor).astype(int), 1)
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    inner = cv2.resize(picture, tuple(map(int, sides)), interpolation=interpolation)
    left, up = (frame - sides) // 2
    right, down = frame - sides - (left, up)
    framed = cv2.copyMakeBorder(inner, int(up), int(down), int(left), int(right), cv2.BORDER_REPLICATE)
    return framed, sides / (width, height), np.array([left, up])
