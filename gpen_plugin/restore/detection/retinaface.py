"""RetinaFace (Deng et al. 2020) on a ResNet-50, as facexlib has it."""

import importlib.util
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gpen_plugin.checkpoints.download import WeightFile, find_local, find_weights
from gpen_plugin.errors import INSTALL_FACEXLIB, MissingFileError
from gpen_plugin.nets.loading import load_frozen, load_tensors
from gpen_plugin.restore.face import DetectedFace

PUBLISHED = WeightFile(
    "detection_Resnet50_Final.pth",
    "RetinaFace, for finding faces",
    "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",
    "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
)
THRESHOLD = 0.8  # facexlib's own for its detector; its 0.97 for restoring loses blurred faces, which need it most
OVERLAPPING = 0.4  # of the union: of boxes that share more, only the best is kept


class RetinaFaceFinder:
    """A `Backend`.

    Args:
        file: its weights; looked for here and in facexlib's folder where none is given.
        device: where it works.
        threshold: certainty from which something is a face, 0 to 1.
        download: whether they may be downloaded where they are not found.
    Raises:
        MissingFileError: the file, or the package facexlib, is not to be had.
        CheckpointError: the file cannot be read, or is of another network.
    """

    name = "retinaface"
    smallest, largest = 16.0, 800.0
    tile = 1280
    finest = 4_000_000  # takes half a minute on one core
    turns = (90.0, 180.0, 270.0)

    def __init__(
        self, file: str | os.PathLike | None, device: torch.device, threshold: float | None, *, download: bool = True
    ):
        folder = _facexlib()
        path = str(_path(file, folder, download))
        self._threshold = THRESHOLD if threshold is None else threshold
        self._network = load_frozen(_architecture(device), load_tensors(path), path, device)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        """See `Backend`."""
        rows = self._network.detect_faces(image, self._threshold, OVERLAPPING)  # (K, 15): box, score, landmarks
        return [self._face(row) for row in rows.astype(np.float64)]

    def _face(self, row: np.ndarray) -> DetectedFace:
        """facexlib's zero is the image's edge, as the middles of its anchors tell."""
        return DetectedFace(row[:4] - 0.5, row[5:].reshape(5, 2) - 0.5, min(float(row[4]), 1.0), self.name)


def _facexlib() -> Path:
    """The folder of the package."""
    spec = importlib.util.find_spec("facexlib")
    if spec is None or not spec.submodule_search_locations:
        raise MissingFileError("detector", "the package facexlib is not installed", hint=f"Run: {INSTALL_FACEXLIB}")
    return Path(next(iter(spec.submodule_search_locations)))


def _path(file: str | os.PathLike | None, facexlib: Path, download: bool) -> Path:
    if file is not None:
        return find_weights(PUBLISHED, str(file), "detector_file")
    kept = facexlib / "weights" / PUBLISHED.name  # where facexlib downloads to
    found = find_local(PUBLISHED) or (kept if kept.is_file() else None)
    if found is None and not download:
        raise MissingFileError("detector", f"{PUBLISHED.name} is not on this machine")
    return found or find_weights(PUBLISHED, where="detector")


def _architecture(device: torch.device) -> nn.Module:
    """Built by hand: facexlib's own way reads the file with all the code that may be in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, on how facexlib asks for an empty ResNet
        from facexlib.detection.retinaface import RetinaFace

        return RetinaFace(network_name="resnet50", device=device)
