"""YuNet (Wu et al. 2023): a small network that finds faces with their eyes, nose and corners of the mouth.

Its file comes with this package. OpenCV runs it, in every version from 4.8 to 5.
"""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from gpen_plugin.checkpoints.download import PACKAGE
from gpen_plugin.errors import CheckpointError, OptionError

FILE = PACKAGE / "YuNet.onnx"
STRIDES = (8, 16, 32)  # pixels between the network's guesses
SMALLEST_INPUT = 64  # pixels: where a feature map is one cell wide or high, OpenCV 4 reads beyond its memory
# SIDE and FRAME are, of a dozen pairs, the one with the least error on 500 portraits of 32, 64 and 128 px
SIDE = 224  # pixels to which an image's longer side is brought
FRAME = 320  # pixels of the image with its border
CERTAIN = 0.5  # from 0 to 1
AGREEING = 0.5  # of the best guess's certainty: guesses of the same face that are averaged


class RawPredictions(NamedTuple):
    """What the network says of an image, cell by cell and stride by stride: (A,) guesses, in pixels of the image.

    Attributes:
        certainties: (A,) float64, from 0 to 1.
        points: (A, 5, 2) float64, x and y of eyes, nose and corners of the mouth; 0 is the image's edge.
        boxes: (A, 4) float64, left, top, right and bottom; 0 is the image's edge.
    """

    certainties: np.ndarray
    points: np.ndarray
    boxes: np.ndarray


class YuNetNetwork:
    """The network. It works on the CPU.

    Raises:
        CheckpointError: its file is damaged.
    """

    def __init__(self):
        try:
            self._net = cv2.dnn.readNetFromONNX(np.fromfile(FILE, np.uint8))  # bytes: OpenCV reads few kinds of paths
        except (OSError, cv2.error) as error:
            got = f"cannot be read by OpenCV {cv2.__version__} ({' '.join(str(error).split())})"
            raise CheckpointError(str(FILE), got, "the file of this package", "Install gpen_plugin again.") from error

    def __call__(self, image: np.ndarray, least: float) -> RawPredictions:
        """Show it an image.

        Args:
            image: (H, W, 3) BGR uint8, of any size. What is not a multiple of 32 px gets black at the right and below.
            least: the certainty below which a guess is left out.
        """
        self._net.setInput(cv2.dnn.blobFromImage(_padded(image)))  # [1, 3, H, W]
        maps = self._net.forward([f"stride_{stride}" for stride in STRIDES])
        # each [1, 16, H / stride, W / stride]: face, object, box, landmarks
        parts = [_decoded(each[0], stride, least) for each, stride in zip(maps, STRIDES, strict=True)]
        return RawPredictions(*map(np.concatenate, zip(*parts, strict=True)))


class YuNet:
    """Finds the five landmarks of the one face of an aligned crop.

    Args:
        path: None; the file comes with this package.
        device: for other detectors of landmarks; this one works on the CPU.
    Raises:
        OptionError: a path is given.
        CheckpointError: the file is damaged.
    """

    def __init__(self, path: str | None = None, device: str = "auto"):
        if path is not None:
            raise OptionError("model", f"got {path} for yunet", "no file", "YuNet's comes with gpen_plugin.")
        self._network = yunet_network()

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        """Find the landmarks.

        Args:
            image: (H, W, 3) BGR uint8, of any size, with one face that fills much of it.
        Returns:
            (5, 2) float64, x and y in pixels, where 0 is the middle of the first pixel: eyes, nose and corners of the
            mouth, left to right in the image; None if there is no face.
        """
        framed, scale, corner = _framed(image)
        guesses = self._network(framed, CERTAIN * AGREEING)
        points = _of_one_face(guesses.certainties, guesses.points)
        return None if points is None else (points - corner) / scale - 0.5


@lru_cache(maxsize=1)
def yunet_network() -> YuNetNetwork:
    """The network, read once per process."""
    return YuNetNetwork()


def _padded(image: np.ndarray) -> np.ndarray:
    step = STRIDES[-1]
    height, width = (max(-(-side // step) * step, SMALLEST_INPUT) for side in image.shape[:2])
    down, right = height - image.shape[0], width - image.shape[1]
    return cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_CONSTANT)


def _decoded(values: np.ndarray, stride: int, least: float) -> RawPredictions:
    """One feature map, (16, h, w), as guesses in pixels."""
    certainties = np.sqrt(np.prod(1 / (1 + np.exp(-values[:2].astype(np.float64))), axis=0))  # [h, w]
    rows, columns = np.nonzero(certainties >= least)
    certainties = certainties[rows, columns]  # [A]
    values = values[:, rows, columns].T.astype(np.float64)  # [A, 16]
    cells = np.stack([columns, rows], axis=1)  # [A, 2]
    points = (values[:, 6:].reshape(-1, 5, 2) + cells[:, None]) * stride
    middles, halves = (values[:, 2:4] + cells) * stride, np.exp(values[:, 4:6]) * stride / 2
    return RawPredictions(certainties, points, np.concatenate([middles - halves, middles + halves], axis=1))


def _of_one_face(certainties: np.ndarray, points: np.ndarray) -> np.ndarray | None:
    """The mean of the guesses of the face that is most certain and nearest to the middle."""
    if not len(certainties):
        return None
    middles = points.mean(axis=1)  # (A, 2)
    off_centre = np.linalg.norm(middles - FRAME / 2, axis=1) / SIDE
    best = np.argmax(np.where(certainties >= CERTAIN, certainties - off_centre, -np.inf))
    if certainties[best] < CERTAIN:
        return None
    width = np.linalg.norm(points[best, 0] - points[best, 1])  # from eye to eye
    same = np.linalg.norm(middles - middles[best], axis=1) < width
    weights = np.where(same & (certainties > AGREEING * certainties[best]), certainties, 0)
    return np.average(points, axis=0, weights=weights)


def _framed(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring an image to the working size and repeat its border: on a tight crop the network draws the points inwards.

    Returns:
        The image in its frame, (FRAME, FRAME, 3); its scale in x and y; and its upper left corner, (x, y).
    """
    height, width = image.shape[:2]
    factor = SIDE / max(height, width)
    sides = np.maximum(np.rint(np.array([width, height]) * factor).astype(int), 1)
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    inner = cv2.resize(image, tuple(map(int, sides)), interpolation=interpolation)
    left, up = (FRAME - sides) // 2
    right, down = FRAME - sides - (left, up)
    framed = cv2.copyMakeBorder(inner, int(up), int(down), int(left), int(right), cv2.BORDER_REPLICATE)
    return framed, sides / (width, height), np.array([left, up])
