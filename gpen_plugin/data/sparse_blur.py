"""Blur and downsampling of Eq. 4 in one go: the blurred image is computed only where the small one looks at it.

Correlation with a kernel and reading between pixels are both linear, so they may change places. A ``bilinear`` pixel of
the small image is the blurred image at one point between four pixels. An ``area`` pixel is the mean over a box,
that is a difference of four values of the blurred image's summed-area table; that table is the blurred table of the
sharp image, and at the fractional edges of a box it is bilinear too. So both need a kernel's worth of values at a few
points of a field, and nothing else.
"""

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# What each way costs, in values of the kernel that the sparse one multiplies in the same time (measured):
_POINT = 300  # a point of the sparse one, beside its kernel
_DIRECT, _FOURIER = 1, 8  # a pixel of a dense one; OpenCV filters kernels beyond 11 x 11 by Fourier transform
_DIRECT_TAPS = 11 * 11


def use_sparse_blur(shape: tuple[int, ...], size: tuple[int, int], taps: int) -> bool:
    """Whether `blur_downsample` is faster than a blur of the whole image.

    Args:
        shape: of the image, (H, W, ...).
        size: height and width of the small image.
        taps: how many values the kernel has.
    """
    points = (size[0] + 1) * (size[1] + 1)
    return points * (taps + _POINT) < shape[0] * shape[1] * (_DIRECT if taps <= _DIRECT_TAPS else _FOURIER)


def blur_downsample(image: np.ndarray, kernel: np.ndarray, size: tuple[int, int], area: bool) -> np.ndarray:
    """Blur an image and make it small: `cv2.resize` of `cv2.filter2D` with ``BORDER_REFLECT_101``, in float64.

    Args:
        image: (H, W, 3), uint8 or float32.
        kernel: to correlate with, (k, k), float, k odd.
        size: (h, w), height and width of the result, at most H and W.
        area: mean over boxes of H/h x W/w pixels (``INTER_AREA``); otherwise four pixels around the centre of each box
            (``INTER_LINEAR``).
    Returns:
        (h, w, 3) float64, in the units of `image`.
    """
    margin = len(kernel) // 2
    after = margin + 1  # the last pixel has a neighbour too, which counts for nothing
    padded = cv2.copyMakeBorder(image, margin, after, margin, after, borderType=cv2.BORDER_REFLECT_101)
    planes = [_small_plane(plane, kernel, image.shape[:2], size, area) for plane in cv2.split(padded)]
    return np.stack(planes, axis=2)  # (h, w, 3)


def _small_plane(
    padded: np.ndarray, kernel: np.ndarray, shape: tuple[int, int], size: tuple[int, int], area: bool
) -> np.ndarray:
    """One channel, (H + k, W + k), to (h, w)."""
    if not area:
        centres = ((np.arange(few) + 0.5) * (many / few) - 0.5 for many, few in zip(shape, size, strict=True))
        return _correlated_at(padded, kernel, *centres)
    # float64 holds the sums of bytes exactly, and those of floats to 1e-10 of the range
    table = cv2.integral(padded, sdepth=cv2.CV_64F)  # (H + k + 1, W + k + 1)
    edges = (np.linspace(0, many, few + 1) for many, few in zip(shape, size, strict=True))
    sums = np.diff(np.diff(_correlated_at(table, kernel, *edges), axis=0), axis=1)
    return sums / (shape[0] / size[0] * shape[1] / size[1])


def _correlated_at(field: np.ndarray, kernel: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The correlation of a field with a kernel, read bilinearly at a grid of points.

    Args:
        field: (Y + k, X + k).
        kernel: (k, k).
        rows: of the grid, (h,), within 0 and Y.
        columns: of the grid, (w,), within 0 and X.
    Returns:
        (h, w) float64.
    """
    taps = len(kernel) + 1
    tops, down = _cells(rows, field.shape[0] - taps)
    lefts, right = _cells(columns, field.shape[1] - taps)
    shifted = np.zeros((4, taps, taps))  # the kernel as the four pixels around a point see it
    for corner, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        shifted[corner, y : y + len(kernel), x : x + len(kernel)] = kernel
    shifted = shifted.reshape(4, -1)  # (4, taps * taps)
    windows = sliding_window_view(field, (taps, taps))
    out = np.empty((len(rows), len(columns)))
    for row, top, share in zip(out, tops, down, strict=True):
        kernels = (1 - share) * shifted[:2] + share * shifted[2:]  # (2, taps * taps)
        left, beside = kernels @ windows[top, lefts].reshape(len(columns), -1).T  # (2, w)
        row[:] = (1 - right) * left + right * beside
    return out


def _cells(points: np.ndarray, last: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixel before each point, at most `last`, and how far the point lies beyond it."""
    before = np.clip(np.floor(points).astype(int), 0, last)
    return before, points - before
