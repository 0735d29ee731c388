"""Face detection: RetinaFace and YuNet behind one protocol."""

import math
import os
from typing import Literal

import torch

from gpen_plugin.errors import MissingFileError, OptionError
from gpen_plugin.restore.detection.backends import RetinaFaceBackend, YuNetBackend
from gpen_plugin.restore.detection.multiscale import DetectedFace, Detector, MultiScaleDetector

__all__ = ["DETECTORS", "DetectedFace", "Detector", "open_detector"]

DETECTORS = ("auto", "retinaface", "yunet")
NOTICES = {"retinaface": "found by RetinaFace (facexlib)", "yunet": "found by YuNet"}


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
