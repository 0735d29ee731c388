"""Detectors of faces: RetinaFace, YuNet and OpenCV's cascades behind one protocol."""

import math
import os
from pathlib import Path
from typing import Literal

import torch

from gpen_plugin.errors import MissingFileError, OptionError
from gpen_plugin.restore.detection.haar import HaarFinder
from gpen_plugin.restore.detection.looking import Detector, Finder, LookingDetector
from gpen_plugin.restore.detection.retinaface import RetinaFaceFinder
from gpen_plugin.restore.detection.yunet import YuNetFinder

__all__ = ["DETECTORS", "Detector", "open_detector"]

DETECTORS = ("auto", "retinaface", "yunet", "haar")
BY_SUFFIX = {".onnx": "yunet", ".pth": "retinaface", ".pt": "retinaface"}
TITLES = {
    "retinaface": "RetinaFace (facexlib)",
    "yunet": "YuNet",
    "haar": "OpenCV's Haar cascades, which see upright frontal faces only",
}


def open_detector(
    name: Literal["auto", "retinaface", "yunet", "haar"] = "auto",
    *,
    file: str | os.PathLike | None = None,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
    threshold: float | None = None,
    min_size: float = 16,
) -> Detector:
    """Open a detector.

    Args:
        name: which; ``auto`` takes the one that `file` is of, else the first of RetinaFace, YuNet and Haar that is here
            or can be downloaded. Haar's files come with OpenCV.
        file: its weights (``.pth`` of RetinaFace, ``.onnx`` of YuNet); looked for where none is given.
        device: where networks work; Haar works on the CPU.
        threshold: score from which something is a face, 0 to 1; None takes the detector's own.
        min_size: faces with boxes smaller than this, in pixels, are dropped.
    Raises:
        OptionError: an argument is wrong.
        MissingFileError: the detector that is asked for needs a file or package that is not to be had.
        CheckpointError: its file cannot be read, or is of another network.
    """
    if name not in DETECTORS:
        raise OptionError("detector", f"got {name!r}", f"one of {', '.join(DETECTORS)}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise OptionError("threshold", f"got {threshold}", "a number from 0 to 1")
    if not 0 < min_size < math.inf:
        raise OptionError("min_size", f"got {min_size}", "pixels, above 0")
    if file is not None and name == "haar":
        raise OptionError("detector_file", f"got {file} for haar", "no file", "Haar's come with OpenCV.")
    if name == "auto" and file is not None:
        name = _of_file(file)
    names = DETECTORS[1:] if name == "auto" else (name,)
    finder, missed = _first(names, file, device, threshold)
    missing = [f"{TITLES[name]} is missing (--detector {name} tells why)" for name in missed]
    return LookingDetector(finder, "; ".join([f"found by {TITLES[finder.name]}", *missing]), min_size)


def _of_file(file: str | os.PathLike) -> str:
    suffix = Path(file).suffix.lower()
    if suffix not in BY_SUFFIX:
        expected = "an .onnx file of YuNet or a .pth file of RetinaFace"
        raise OptionError("detector_file", f"got {file}", expected, "Or name the detector.")
    return BY_SUFFIX[suffix]


def _first(
    names: tuple[str, ...], file: str | os.PathLike | None, device: torch.device, threshold: float | None
) -> tuple[Finder, list[str]]:
    """The first that can be had, and those before it, which cannot; the error of the last if none can."""
    missed = []
    for name in names:
        try:
            return _finder(name, file, device, threshold), missed
        except MissingFileError:
            if name == names[-1]:
                raise
            missed.append(name)
    raise AssertionError("names are never empty")


def _finder(name: str, file: str | os.PathLike | None, device: torch.device, threshold: float | None) -> Finder:
    if name == "retinaface":
        return RetinaFaceFinder(file, device, threshold)
    return YuNetFinder(file, device, threshold) if name == "yunet" else HaarFinder(threshold)
