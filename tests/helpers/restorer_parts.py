"""Stand-ins for the parts of a `Restorer`, with known results."""

import numpy as np

from gpen_plugin.data.degradation import resize_bilinear
from gpen_plugin.restore.alignment import template
from gpen_plugin.restore.detection import DetectedFace
from gpen_plugin.restore.restorer import Restorer


class Network:
    """A network of one rule, and a count of the batches that it was given.

    Args:
        rule: from a face, (S, S, 3) float32 in [0, 1], to another.
        size: side of its faces, to which it brings others.
    """

    def __init__(self, rule=lambda face: face, size=64, name="ffhq", task="restore", alpha=1.0):
        self.rule, self.in_size, self.out_size = rule, size, size
        self.template, self.task, self.alpha, self.description = name, task, alpha, "a rule"
        self.batches = []

    def __call__(self, faces):
        self.batches.append(len(faces))
        resized = [resize_bilinear(face, self.in_size) for face in faces]
        return [np.clip(self.rule(face), 0, 1).astype(np.float32) for face in resized]


class Detector:
    """Returns the given faces.

    Args:
        faces: for each photograph; by default none.
    """

    name, notice = "known", "known: positions of the faces are given"

    def __init__(self, *faces):
        self.faces = list(faces)

    def __call__(self, image):
        assert image.dtype == np.uint8
        assert image.ndim == 3
        return self.faces


def face_at(x: float, y: float, side: float, angle: float = 0, score: float = 0.9) -> DetectedFace:
    """A face in FFHQ's framing whose crop has its middle at (x, y) and this side, turned by `angle` degrees."""
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    landmarks = (template("ffhq") - 0.5) * side @ rotation.T + (x, y)
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    return DetectedFace(np.concatenate([low, high]), landmarks, score, "known")


def photograph(height=240, width=320, seed=0) -> np.ndarray:
    """Smooth colors with some grain, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 40.0
    smooth = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=2) * 80 + 128
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


FACES = [face_at(90, 110, 100), face_at(230, 120, 70, angle=25, score=0.7)]
"""Two in a `photograph`."""


def restorer(rule=lambda face: face, faces=FACES, **options) -> Restorer:
    """A `Restorer` around a `Network` of this rule, whose detector finds these faces."""
    made = Restorer(Network(rule), device="cpu", mask="soft", **options)
    made._detector = Detector(*faces)
    return made


def brighter(face):
    return face + 0.2
