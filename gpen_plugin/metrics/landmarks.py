"""Detectors of landmarks by name, each a function of a picture."""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np

from gpen_plugin.errors import OptionError
from gpen_plugin.metrics.awing import AWing
from gpen_plugin.metrics.yunet import YuNet

Landmarks = Callable[[np.ndarray], np.ndarray | None]
"""An aligned face, (H, W, 3) BGR uint8, to its landmarks, (K, 2) float64 in pixels; None if there is no face.
The middle of the first pixel is 0; K and the order of the landmarks are the detector's."""

DETECTORS = {"awing": AWing, "yunet": YuNet}


@lru_cache(maxsize=4)
def landmarks_by(
    detector: Literal["awing", "yunet"] = "awing", model: str | None = None, device: str = "auto"
) -> Landmarks:
    """A detector of landmarks, built once per process.

    Args:
        detector: ``awing`` finds 98, ``yunet`` five.
        model: path of its file; by default it is looked for.
        device: ``auto``, ``cpu`` or ``cuda``.
    Raises:
        OptionError: there is no such detector or device.
        MissingFileError: its file or its package is missing.
        CheckpointError: its file cannot be read, or is of another network.
    """
    if detector not in DETECTORS:
        raise OptionError("detector", f"got {detector!r}", "awing or yunet")
    return DETECTORS[detector](model, device)
