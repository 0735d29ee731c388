"""Bicubic downsampling as the field does it: MATLAB's ``imresize``, whose kernel widens as the image shrinks.

The host's own copy fails where two or fewer pixels are left, and computes in single precision on torch's threads; what
a fingerprint stands for must be possible at every size, and the same on every machine.
"""

from functools import lru_cache

import numpy as np

_GUARD_DIGITS = 6  # so that 127.5, summed in another order, is still rounded up


def reduce_bicubic(image: np.ndarray, size: int) -> np.ndarray:
    """Shrink a square image with an antialiased cubic kernel (Keys 1981, a = -0.5).

    Args:
        image: (S, S, 3) uint8.
        size: side of the result, 1 to S. The outer edges of both images coincide, also where S / size is no whole
            number.
    Returns:
        (size, size, 3) uint8, rounded half up and clipped.
    """
    weights = _weights(len(image), size)
    rows = np.tensordot(weights, image.astype(np.float64), axes=(1, 0))  # (size, S, 3)
    both = np.tensordot(weights, rows, axes=(1, 1)).transpose(1, 0, 2)  # (size, size, 3)
    return np.clip(np.floor(np.round(both, _GUARD_DIGITS) + 0.5), 0, 255).astype(np.uint8)


@lru_cache(maxsize=32)
def _weights(length: int, size: int) -> np.ndarray:
    """What each pixel of a line counts for in each pixel of the shorter line, (size, length) float64, rows sum to 1.

    Beyond its ends the line goes on mirrored, as often as the kernel needs it.
    """
    scale = length / size
    centres = (np.arange(size) + 0.5) * scale - 0.5
    reach = int(np.ceil(2 * scale)) + 1
    taps = np.floor(centres).astype(int)[:, None] + np.arange(-reach, reach + 1)  # (size, 2 reach + 1)
    values = _cubic((taps - centres[:, None]) / scale)
    values /= values.sum(axis=1, keepdims=True)
    mirrored = taps % (2 * length)
    mirrored = np.where(mirrored < length, mirrored, 2 * length - 1 - mirrored)
    weights = np.zeros((size, length))
    np.add.at(weights, (np.arange(size)[:, None], mirrored), values)
    weights.setflags(write=False)
    return weights


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5, the only one of its family that reproduces quadratics."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
