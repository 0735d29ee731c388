"""RMSE: the root of the mean squared error over all pixels of a set, in gray levels from 0 to 255.

PMRF (Ohayon et al., ICLR 2025) compares with the images of a network that was trained for the least squared error, and
calls this IndRMSE: it needs no ground truth. In an evaluation: ``ind_rmse: {type: calculate_rmse, against: METHOD,
label: IndRMSE}``, with the name of the method that has these images.
"""

import hashlib
from typing import Literal

import numpy as np

from gpen_plugin.host import register
from gpen_plugin.metrics.base import SetAccumulator, check_better, check_pair


@register("metric")
def calculate_rmse(
    img: np.ndarray,  # restored, (H, W, 3) BGR uint8
    img2: np.ndarray,  # ground truth of the same size
    better: Literal["lower"] = "lower",  # direction of better values; BasicSR takes `higher` without this key
) -> "RMSEAccumulator":
    """The accumulator of one image, of which the host makes a sum; ShapeError if the two differ in size."""
    check_better(better, "lower", "Equal images have the distance 0.")
    check_pair(img, img2)
    squares = np.square(img.astype(np.float64) - img2)
    key = hashlib.sha256(np.ascontiguousarray(img)).digest() + hashlib.sha256(np.ascontiguousarray(img2)).digest()
    return RMSEAccumulator(key, float(squares.mean()))


class RMSEAccumulator(SetAccumulator):
    """Mean squared errors of images; the value is the root of their mean."""

    def check_fits(self, other: "RMSEAccumulator") -> None:
        pass

    def value(self) -> float:
        return float(np.sqrt(np.mean(self.records())))
