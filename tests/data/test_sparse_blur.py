"""Blur only where the small image looks: held to OpenCV's blur of the whole image, and to sums written out."""

import tracemalloc

import cv2
import numpy as np
import pytest

from gpen_plugin.data import degradation
from gpen_plugin.data.degradation import (
    DegradationRanges,
    DegradationRecipe,
    blur_downsample,
    degrade_lowres,
    gaussian_kernel,
    motion_kernel,
    sample_recipe,
    use_sparse_blur,
)
from gpen_plugin.data.rng import rng_from_key

KERNELS = {
    "none": np.ones((1, 1), np.float32),
    "iso": gaussian_kernel(13, 3.0, 3.0),
    "aniso": gaussian_kernel(21, 6.0, 1.5, 0.7),
    "motion": motion_kernel(41, 2.1, -1.3),
}
# Height, width and scale of downsampling; at small scales small images, since each pixel then costs a whole kernel
CASES = [
    (1, 1, 1.0),
    (1, 50, 1.3),
    (1, 50, 300.0),
    (2, 3, 2.0),
    (7, 5, 1.0),
    (7, 5, 3.0),
    (32, 32, 1.0),
    (33, 47, 1.3),
    (64, 64, 2.0),
    (61, 97, 3.0),
    (61, 97, 9.7),
    (200, 33, 16.0),
    (128, 512, 77.7),
    (128, 512, 300.0),
]


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def small_size(height: int, width: int, s: float) -> tuple[int, int]:
    return max(1, round(height / s)), max(1, round(width / s))


def dense(image: np.ndarray, kernel: np.ndarray, size: tuple[int, int], area: bool) -> np.ndarray:
    blurred = cv2.filter2D(image.astype(np.float32), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return cv2.resize(blurred, size[::-1], interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR)


@pytest.mark.parametrize("area", [True, False])
@pytest.mark.parametrize("kernel", KERNELS)
def test_same_as_the_whole_blurred_image_made_small(kernel, area):
    for height, width, s in CASES:
        size = small_size(height, width, s)
        pixels = image(height, width)
        result = blur_downsample(pixels, KERNELS[kernel], size, area)
        assert result.shape == (*size, 3)
        np.testing.assert_allclose(result, dense(pixels, KERNELS[kernel], size, area), atol=1e-5 * 255, rtol=0)


@pytest.mark.parametrize("area", [True, False])
@pytest.mark.parametrize("s", [1.0, 4.3, 30.0])
def test_floats_are_as_good_as_bytes(s, area):
    pixels, size = image(61, 97), small_size(61, 97, s)
    floats = blur_downsample(pixels.astype(np.float32) / 255, KERNELS["motion"], size, area)
    np.testing.assert_allclose(floats * 255, blur_downsample(pixels, KERNELS["motion"], size, area), atol=1e-4, rtol=0)


def test_nothing_is_lost_in_the_sums_of_a_large_image():
    """White, whose table grows largest, and one black pixel in the last corner."""
    image = np.full((1500, 2100, 3), 255, np.uint8)
    size = (15, 21)
    np.testing.assert_allclose(blur_downsample(image, KERNELS["aniso"], size, True), 255, atol=1e-4)
    image[-1, -1] = 0
    corner = blur_downsample(image, KERNELS["none"], size, True)[-1, -1]
    np.testing.assert_allclose(corner, 255 * (1 - 1e-4), atol=1e-5)


def test_boxes_that_end_between_pixels_written_out():
    """Seven pixels to three boxes of 2 1/3: the middle one takes 2/3, 1, 2/3."""
    image = np.zeros((1, 7, 3), np.float32)
    image[0, :, 1] = [3, 1, 4, 1, 5, 9, 2]
    means = blur_downsample(image, KERNELS["none"], (1, 3), True)[0, :, 1]
    sums = [3 + 1 + 4 / 3, 2 * 4 / 3 + 1 + 2 * 5 / 3, 5 / 3 + 9 + 2]
    np.testing.assert_allclose(means, np.array(sums) * 3 / 7, rtol=1e-12)


def test_the_kernel_is_correlated():
    kernel = np.zeros((3, 3), np.float32)
    kernel[1, 2] = 1  # looks to the right
    image = np.zeros((3, 4, 3), np.float32)
    image[:, 3] = 1
    np.testing.assert_array_equal(blur_downsample(image, kernel, (3, 4), True)[1, :, 0], [0, 0, 1, 0])  # 0: reflected


@pytest.mark.parametrize("number", range(12))
def test_sparse_and_dense_blur_give_the_same_image(number, monkeypatch):
    """But for a rounding to bytes here and there, which JPEG spreads over its block."""
    ranges = DegradationRanges(downsampler="bilinear" if number % 4 == 3 else "area", downsample_range=(2.0, 60.0))
    recipe = sample_recipe(ranges, rng_from_key(9, number))
    small = {}
    for way in (True, False):
        monkeypatch.setattr(degradation, "use_sparse_blur", lambda *_, way=way: way)
        small[way] = degrade_lowres(image(150, 131), recipe).astype(int)
    assert np.mean(small[True] != small[False]) < 0.02
    assert np.abs(small[True] - small[False]).max() <= 16


@pytest.mark.parametrize(
    ("s", "kernel_size", "sparse"), [(100, 41, True), (20, 41, True), (1, 41, False), (4, 7, False)]
)
def test_cheaper_blur_is_chosen(s, kernel_size, sparse, monkeypatch):
    ways = []
    monkeypatch.setattr(degradation, "blur_downsample", lambda *given: ways.append(True) or blur_downsample(*given))
    recipe = DegradationRecipe("aniso", kernel_size, 5.0, 2.0, 0.4, 0.0, s, "area", 3.0, 1, 30)
    degrade_lowres(image(256, 256), recipe)
    assert bool(ways) == sparse


def test_memory_stays_below_that_of_a_blurred_image():
    """Where the sparse way is chosen it never gathers much: at its limit, in numpy's and OpenCV's arrays together."""
    pixels, kernel = image(512, 512), KERNELS["motion"]
    side = max(side for side in range(1, 512) if use_sparse_blur(pixels.shape, (side, side), kernel.size))
    assert 10 < side < 100
    tracemalloc.start()
    blur_downsample(pixels, kernel, (side, side), True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * pixels.size * 4  # the image in float32, and blurred
