"""PSNR and SSIM for machines without BasicSR, under its names and with its values, on [0, 255]."""

from typing import Literal

import cv2
import numpy as np

from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import check_better, check_pair

LUMA = np.array([24.966, 128.553, 65.481])  # of ITU-R BT.601, for B, G and R in [0, 1]
WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian, in pixels
STABILIZERS = (0.01 * 255) ** 2, (0.03 * 255) ** 2


@register("metric", unless_taken=True)
def calculate_psnr(
    img: np.ndarray,  # (H, W, 3) BGR uint8
    img2: np.ndarray,  # ground truth of the same size
    crop_border: int,  # pixels left out at each edge
    test_y_channel: bool = False,  # compare the luma only
    better: Literal["higher"] = "higher",
) -> float:
    """Peak signal-to-noise ratio in dB, infinite for equal images; ShapeError if the two differ in size."""
    check_better(better, "higher", "Equal images have the highest value.")
    one, other = _prepare(img, img2, crop_border, test_y_channel, min_side=1)
    error = np.mean((one - other) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


@register("metric", unless_taken=True)
def calculate_ssim(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: int,
    test_y_channel: bool = False,
    better: Literal["higher"] = "higher",
) -> float:
    """Structural similarity (Wang et al. 2004), the mean over the channels; 1 for equal images. As `calculate_psnr`."""
    check_better(better, "higher", "Equal images have the value 1.")
    one, other = _prepare(img, img2, crop_border, test_y_channel, min_side=WINDOW)
    return float(np.mean([_ssim(one[..., channel], other[..., channel]) for channel in range(one.shape[2])]))


def _prepare(
    img: np.ndarray, img2: np.ndarray, crop_border: int, test_y_channel: bool, min_side: int
) -> list[np.ndarray]:  # both, [h, w, C] float64 in [0, 255]
    if not isinstance(crop_border, int) or crop_border < 0:
        raise OptionError("crop_border", f"got {crop_border!r}", "a whole number of pixels from 0")
    check_pair(img, img2, min_side + 2 * crop_border)
    height, width = img.shape[:2]
    inner = np.s_[crop_border : height - crop_border, crop_border : width - crop_border]
    images = [image[inner] for image in (img, img2)]
    if test_y_channel:
        scaled = [image.astype(np.float32) / 255 for image in images]
        # float32 between the steps, as BasicSR does
        return [
            ((((image @ LUMA + 16) / 255).astype(np.float32) * 255)[..., None]).astype(np.float64) for image in scaled
        ]
    return [image.astype(np.float64) for image in images]


def _ssim(one: np.ndarray, other: np.ndarray) -> float:  # of one channel, [h, w] float64
    kernel = cv2.getGaussianKernel(WINDOW, SIGMA)
    window, half = np.outer(kernel, kernel.T), WINDOW // 2

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.filter2D(values, -1, window)[
            half:-half, half:-half
        ]  # without the border that the window does not cover

    means = mean(one), mean(other)
    variances = mean(one**2) - means[0] ** 2 + mean(other**2) - means[1] ** 2
    covariance = mean(one * other) - means[0] * means[1]
    for_means, for_variances = STABILIZERS
    similarity = (2 * means[0] * means[1] + for_means) * (2 * covariance + for_variances)
    return float(np.mean(similarity / ((means[0] ** 2 + means[1] ** 2 + for_means) * (variances + for_variances))))
