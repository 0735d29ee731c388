"""YuNet as a finder of faces: small, fast, and always there."""

import cv2
import numpy as np

from gpen_plugin.nets.yunet import yunet_network
from gpen_plugin.restore.face import DetectedFace

THRESHOLD = 0.8  # upright faces of photographs get 0.86 or more, folds of dark cloth up to 0.73
OVERLAPPING = 0.45  # of the union: of boxes that share more, only the best is kept
GUESSES = 5000  # so many are considered at most


class YuNetFinder:
    """A `Backend`. It works on the CPU.

    Args:
        threshold: certainty from which something is a face, 0 to 1.
    Raises:
        CheckpointError: YuNet's file, which comes with this package, is damaged.
    """

    name = "yunet"
    smallest, largest = 16.0, 480.0
    tile = 1280
    finest = 16_000_000
    turns = (30.0, -30.0, 90.0, 180.0, 270.0)  # at 30 degrees, scores fall and landmarks are off

    def __init__(self, threshold: float | None):
        self._network = yunet_network()
        self._threshold = THRESHOLD if threshold is None else threshold

    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        """See `Backend`."""
        certainties, points, boxes = self._network(image, self._threshold)
        rows = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])  # (K, 4)
        # lists: not every OpenCV takes empty arrays
        best = cv2.dnn.NMSBoxes(rows.tolist(), certainties.tolist(), self._threshold, OVERLAPPING, top_k=GUESSES)
        return [DetectedFace(boxes[i] - 0.5, points[i] - 0.5, float(certainties[i]), self.name) for i in best]
