"""The blur kernels k of Eq. 4: Gaussian (round or stretched) and motion."""

import numpy as np


def gaussian_kernel(size: int, sigma_x: float, sigma_y: float, angle: float = 0.0) -> np.ndarray:
    """A normalised Gaussian, isotropic where both sigmas are equal.

    Args:
        size: side in pixels, odd.
        sigma_x: standard deviation along the first axis, in pixels, above 0.
        sigma_y: standard deviation across it.
        angle: direction of the first axis, radians from the x axis of the picture.
    Returns:
        (size, size) float32, sum 1.
    """
    offset = np.arange(size) - (size - 1) / 2
    x, y = np.meshgrid(offset, offset)
    along = (np.cos(angle) * x + np.sin(angle) * y) / sigma_x
    across = (np.cos(angle) * y - np.sin(angle) * x) / sigma_y
    kernel = np.exp(-0.5 * (along**2 + across**2))
    return (kernel / kernel.sum()).astype(np.float32)


def motion_kernel(size: int, angle: float, bend: float) -> np.ndarray:
    """The track of a point while the camera moves at even speed along an arc.

    The track is as long as the kernel is wide and its centre of mass is the kernel's centre, so that motion blurs a
    picture without shifting it.

    Args:
        size: side in pixels, odd.
        angle: direction of the movement at half time, radians.
        bend: how far the direction turns from start to end, radians in [-pi, pi]; 0 is a straight line.
    Returns:
        (size, size) float32, sum 1.
    """
    moments = 8 * size
    heading = angle + bend * np.linspace(-0.5, 0.5, moments)
    step = (size - 1) / moments
    x, y = np.cumsum(np.cos(heading)) * step, np.cumsum(np.sin(heading)) * step
    centre = (size - 1) / 2
    return _spread(x - x.mean() + centre, y - y.mean() + centre, size)


def _spread(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Share each point of equal weight among its four nearest pixels, as bilinear interpolation would."""
    kernel = np.zeros((size + 1, size + 1))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right_share, bottom_share = x - left, y - top
    np.add.at(kernel, (top, left), (1 - bottom_share) * (1 - right_share))
    np.add.at(kernel, (top, left + 1), (1 - bottom_share) * right_share)
    np.add.at(kernel, (top + 1, left), bottom_share * (1 - right_share))
    np.add.at(kernel, (top + 1, left + 1), bottom_share * right_share)
    return (kernel[:size, :size] / kernel[:size, :size].sum()).astype(np.float32)
