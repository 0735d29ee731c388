"""LMD, the landmark distance: mean distance of corresponding landmarks, in pixels of a 512 px image by default.

Papers report it with the 98 landmarks of AWing. Values of the two detectors cannot be compared.
Option file: ``lmd: {type: calculate_lmd, better: lower}``.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np

from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import ContentCache, check_better, check_pair, nan_if_weights_missing
from gpen_plugin.nets.awing import AWing
from gpen_plugin.nets.yunet import YuNet

# An aligned face, (H, W, 3) BGR uint8, to landmarks, (K, 2) float64 in pixels, 0 at the center of the first; None if
# there is no face. K and the order are the detector's.
LandmarkDetector = Callable[[np.ndarray], np.ndarray | None]

DETECTORS = {"awing": AWing, "yunet": YuNet}
_ground_truth = ContentCache(size=4096)  # up to 196 numbers each


@register("metric")
@nan_if_weights_missing
def calculate_lmd(
    img: np.ndarray,  # aligned restored face, (H, W, 3) BGR uint8
    img2: np.ndarray,  # ground truth of the same size
    detector: Literal["awing", "yunet"] = "awing",  # `awing` finds 98 landmarks, `yunet` 5
    model: str | None = None,  # path of AWing's weights; ~ searches for them. YuNet's come with this package
    at_size: int = 512,  # longer side of the image, in pixels, to which the distance is scaled
    device: str = "auto",  # `auto`, `cpu` or `cuda`
    better: Literal["lower"] = "lower",  # direction of better values; BasicSR takes `higher` without this key
) -> float:
    """Landmark distance, 0 for equal images; NaN if one shows no face; ShapeError if the two differ in size."""
    check_better(better, "lower", "Equal images have the distance 0.")
    check_pair(img, img2)
    if at_size < 1:
        raise OptionError("at_size", f"got {at_size}", "a number above 0")
    detect = open_landmark_detector(detector, model, device)
    truth = _ground_truth.get_or_compute(img2, detect, detect)
    restored = detect(img)
    if truth is None or restored is None:
        return float("nan")
    return mean_distance(restored, truth) * at_size / max(img.shape[:2])


@lru_cache(maxsize=4)
def open_landmark_detector(
    detector: Literal["awing", "yunet"] = "awing", model: str | None = None, device: str = "auto"
) -> LandmarkDetector:
    """A detector, built once per process. Options as in `calculate_lmd`, errors as in `AWing`."""
    if detector not in DETECTORS:
        raise OptionError("detector", f"got {detector!r}", "awing or yunet")
    return DETECTORS[detector](model, device)


def mean_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance of corresponding points, (K, 2) both."""
    return float(np.linalg.norm(one - other, axis=1).mean())
