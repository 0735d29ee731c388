"""The one real face that is there without a download: the portrait that scikit-image ships."""

import numpy as np

EYES = ((206.0, 107.0), (243.0, 107.0))
"""x and y of the eyes, left and right in the picture, in pixels."""


def portrait() -> np.ndarray:
    """Eileen Collins, photographed by NASA; public domain. (512, 512, 3) BGR uint8."""
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut()[:, :, ::-1])
