"""How far the landmarks of a restored face lie from those of the ground truth."""

from typing import Literal

import numpy as np

from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.metrics.availability import going_on_without_files
from gpen_plugin.metrics.landmarks import landmarks_by
from gpen_plugin.metrics.picture_checks import check_better, check_pair
from gpen_plugin.metrics.remembered import Remembered

_truths = Remembered(most=4096)  # up to 196 numbers each


@register("metric")
@going_on_without_files
def calculate_lmd(
    img: np.ndarray,
    img2: np.ndarray,
    detector: Literal["awing", "yunet"] = "awing",
    model: str | None = None,
    at_size: int = 512,
    device: str = "auto",
    better: Literal["lower"] = "lower",
) -> float:
    """Mean distance of corresponding landmarks, in pixels of a 512 px picture whatever the pictures' size is.

    In an option file: ``lmd: {type: calculate_lmd, better: lower}``. Values of the two detectors cannot be compared.

    Args:
        img: a restored face, aligned, (H, W, 3) BGR uint8.
        img2: the ground truth, of the same size.
        detector: ``awing`` finds 98 landmarks and is what papers report; ``yunet`` finds five.
        model: path of awing's file; by default it is looked for. YuNet's comes with this package.
        at_size: longer side of the picture in whose pixels the distance is given.
        device: ``auto``, ``cpu`` or ``cuda``.
        better: read by the host to find the best iteration; it takes ``higher`` where the key is left out.
    Returns:
        The distance, 0 for equal pictures; NaN where one shows no face, where a file is missing or no good, or a
        package is missing (see the log).
    Raises:
        ShapeError: a picture is of another size or no colour picture of 8 bits.
        OptionError: names the option, what came and what was expected.
    """
    check_better(better, "lower", "Equal pictures have the distance 0.")
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
