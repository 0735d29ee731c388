"""Blur and downsampling of Eq. 4 in one step: the blurred image is computed only at the pixels of the small one.

Correlation with a kernel and interpolation between pixels are linear, so their order can be exchanged. A ``bilinear``
pixel of the small image is the blurred image at one point between four pixels. An ``area`` pixel is the mean over a
box: four values of the summed-area table of the blurred image. That is the blurred table of the sharp image, and also
bilinear at the fractional edges of a box. Both need as many values as the kernel has, at a few points of a field.
"""

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# Costs, in kernel values that the sparse method multiplies in the same time (measured)
_POINT_COST = 300  # of a point of the sparse method, besides its kernel
_DIRECT_COST, _FOURIER_COST = 1, 8  # of a pixel of the dense method
_MAX_DIRECT_TAPS = 11 * 11  # OpenCV filters larger kernels by Fourier transform


def use_sparse_blur(shape: tuple[int, ...], size: tuple[int, int], taps: int) -> bool:
    """Whether `blur_downsample` from (H, W, ...) to `size` is faster than a dense blur; `taps` are kernel values."""
    points = (size[0] + 1) * (size[1] + 1)
    pixel_cost = _DIRECT_COST if taps <= _MAX_DIRECT_TAPS else _FOURIER_COST
    return points * (taps + _POINT_COST) < shape[0] * shape[1] * pixel_cost


def blur_downsample(
    image: np.ndarray,  # [H, W, 3] uint8 or float32
    kernel: np.ndarray,  # [k, k], k odd; it is correlated
    size: tuple[int, int],  # (h, w) of the result, at most (H, W)
    area: bool,  # INTER_AREA, the mean over boxes of H/h x W/w pixels; else INTER_LINEAR, four pixels at their centers
) -> np.ndarray:
    """`cv2.resize` of `cv2.filter2D` with ``BORDER_REFLECT_101``, in float64 and the units of `image`."""
    margin = len(kernel) // 2
    after = margin + 1  # the last pixel has a neighbor too, of weight 0
    padded = cv2.copyMakeBorder(image, margin, after, margin, after, borderType=cv2.BORDER_REFLECT_101)
    planes = [_downsample_plane(plane, kernel, image.shape[:2], size, area) for plane in cv2.split(padded)]
    return np.stack(planes, axis=2)  # [h, w, 3]


def _downsample_plane(
    padded: np.ndarray,  # [H + k, W + k]
    kernel: np.ndarray,
    shape: tuple[int, int],
    size: tuple[int, int],
    area: bool,
) -> np.ndarray:
    if not area:
        centers = ((np.arange(few) + 0.5) * (many / few) - 0.5 for many, few in zip(shape, size, strict=True))
        return _correlate_at(padded, kernel, *centers)
    # float64 represents sums of bytes exactly, and those of floats to 1e-10 of the range
    table = cv2.integral(padded, sdepth=cv2.CV_64F)  # [H + k + 1, W + k + 1]
    edges = (np.linspace(0, many, few + 1) for many, few in zip(shape, size, strict=True))
    sums = np.diff(np.diff(_correlate_at(table, kernel, *edges), axis=0), axis=1)
    return sums / (shape[0] / size[0] * shape[1] / size[1])


def _correlate_at(field: np.ndarray, kernel: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The correlation of a field, (Y + k, X + k), interpolated bilinearly at a grid: (h,) rows, (w,) columns."""
    taps = len(kernel) + 1
    tops, down = _cells(rows, field.shape[0] - taps)
    lefts, right = _cells(columns, field.shape[1] - taps)
    shifted = np.zeros((4, taps, taps))  # the kernel at each of the four pixels around a point
    for corner, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        shifted[corner, y : y + len(kernel), x : x + len(kernel)] = kernel
    shifted = shifted.reshape(4, -1)  # [4, taps * taps]
    windows = sliding_window_view(field, (taps, taps))
    out = np.empty((len(rows), len(columns)))
    for row, top, weight in zip(out, tops, down, strict=True):
        kernels = (1 - weight) * shifted[:2] + weight * shifted[2:]  # [2, taps * taps]
        left, beside = kernels @ windows[top, lefts].reshape(len(columns), -1).T  # [2, w]
        row[:] = (1 - right) * left + right * beside
    return out


def _cells(points: np.ndarray, last: int) -> tuple[np.ndarray, np.ndarray]:
    # the pixel before each point, at most `last`, and the distance of the point from it
    before = np.clip(np.floor(points).astype(int), 0, last)
    return before, points - before
