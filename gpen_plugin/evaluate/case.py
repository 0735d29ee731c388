"""One degraded face of a protocol: what a method is given, and what its answer is measured against."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Case:
    """A face to restore.

    Attributes:
        key: of the image, the same in every condition.
        condition: of the protocol, e.g. ``16x``; empty where the protocol knows but one.
        lq: the degraded image at its own size, (h, w, 3) BGR uint8. A method enlarges it as it is used to.
        gt: the ground truth, (size, size, 3) BGR uint8, or None in the wild.
        size: side of the result in pixels.
    """

    key: str
    condition: str
    lq: np.ndarray
    gt: np.ndarray | None
    size: int
