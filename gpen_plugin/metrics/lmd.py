"""Landmark distance (LMD), and the landmarks that it compares."""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np

from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import ContentCache, check_better, check_pair, nan_if_weights_missing
from gpen_plugin.nets.awing import AWing
from gpen_plugin.nets.yunet import YuNet

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


_truths = ContentCache(most=4096)  # up to 196 numbers each


@register("metric")
@nan_if_weights_missing
def calculate_lmd(
    img: np.ndarray,
    img2: np.ndarray,
    detector: Literal["awing", "yunet"] = "awing",
    model: str | None = None,
    at_size: int = 512,
    device: str = "auto",
    better: Literal["lower"] = "lower",
) -> float:
    """Mean distance of corresponding landmarks, in pixels of a 512 px image whatever the images' size is.

    In an option file: ``lmd: {type: calculate_lmd, better: lower}``. Values of the two detectors cannot be compared.

    Args:
        img: a restored face, aligned, (H, W, 3) BGR uint8.
        img2: the ground truth, of the same size.
        detector: ``awing`` finds 98 landmarks and is what papers report; ``yunet`` finds five.
        model: path of awing's file; by default it is looked for. YuNet's comes with this package.
        at_size: longer side of the image in whose pixels the distance is given.
        device: ``auto``, ``cpu`` or ``cuda``.
        better: read by the host to find the best iteration; it takes ``higher`` where the key is left out.
    Returns:
        The distance, 0 for equal images; NaN where one shows no face, where a file is missing or no good, or a
        package is missing (see the log).
    Raises:
        ShapeError: an image is of another size or no colour image of 8 bits.
        OptionError: names the option, what was given and what was expected.
    """
    check_better(better, "lower", "Equal images have the distance 0.")
    check_pair(img, img2)
    if at_size < 1:
        raise OptionError("at_size", f"got {at_size}", "a number above 0")
    landmarks = landmarks_by(detector, model, device)
    truth = _truths.of(img2, landmarks, landmarks)
    restored = landmarks(img)
    if truth is None or restored is None:
        return float("nan")
    return mean_distance(restored, truth) * at_size / max(img.shape[:2])


def mean_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance of corresponding points, (K, 2) both."""
    return float(np.linalg.norm(one - other, axis=1).mean())
