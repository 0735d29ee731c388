"""Backends of the detector: RetinaFace (Deng et al. 2020, ResNet-50, from facexlib) and YuNet, which is included."""

import importlib.util
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from gpen_plugin.checkpoints.download import WeightFile, find_local, find_weights
from gpen_plugin.errors import INSTALL_FACEXLIB, MissingFileError
from gpen_plugin.nets.loading import load_frozen, load_tensors
from gpen_plugin.nets.yunet import yunet_network
from gpen_plugin.restore.detection.multiscale import DetectedFace

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
        self._network = yunet_network()
        self._threshold = YUNET_THRESHOLD if threshold is None else threshold

    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        scores, points, boxes = self._network(image, self._threshold)
        rows = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])  # (K, 4)
        # lists: not every OpenCV takes empty arrays
        best = cv2.dnn.NMSBoxes(
            rows.tolist(), scores.tolist(), self._threshold, YUNET_NMS_IOU, top_k=YUNET_MAX_CANDIDATES
        )
        return [DetectedFace(boxes[i] - 0.5, points[i] - 0.5, float(scores[i]), self.name) for i in best]
