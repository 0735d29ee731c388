import numpy as np
import pytest
from scipy.ndimage import convolve

from gpen_plugin.metrics.swd import SIDE, draw_corners, laplacian_pyramid, patches_at

BINOMIAL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1])[:, :, None] / 256


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def halved(image: np.ndarray) -> np.ndarray:
    return convolve(image, BINOMIAL, mode="mirror")[::2, ::2]


def doubled(image: np.ndarray) -> np.ndarray:
    height, width, channels = image.shape
    spread = np.zeros((2 * height, 2 * width, channels))
    spread[::2, ::2] = image
    return convolve(spread, 4 * BINOMIAL, mode="mirror")


@pytest.mark.parametrize("shape", [(64, 64, 3), (32, 80, 3)])
def test_levels_are_those_of_an_outside_convolution(shape):
    current, expected = noise(*shape).astype(float), []
    while min(current.shape[:2]) >= 32:
        expected.append(current - doubled(halved(current)))
        current = halved(current)
    levels = laplacian_pyramid(noise(*shape))
    assert len(levels) == len(expected) + 1
    for level, band in zip(levels, [*expected, current], strict=True):
        np.testing.assert_allclose(level, band, atol=1e-3)


@pytest.mark.parametrize(
    ("side", "sizes"), [(16, [16]), (31, [31]), (32, [32, 16]), (33, [33, 17]), (256, [256, 128, 64, 32, 16])]
)
def test_the_pyramid_ends_before_it_would_go_below_16_px(side, sizes):
    assert [level.shape for level in laplacian_pyramid(noise(side, side, 3))] == [(size, size, 3) for size in sizes]


def test_a_constant_lives_in_the_coarsest_level_alone():
    image = noise(64, 64, 3) // 2
    for level, (one, other) in enumerate(zip(laplacian_pyramid(image), laplacian_pyramid(image + 9), strict=True)):
        np.testing.assert_allclose(other - one, 9 if level == 2 else 0, atol=1e-3)


def test_corners_reach_every_patch_and_no_further():
    corners = draw_corners((SIDE, SIDE + 2, 3), 100, np.random.default_rng(0))
    assert corners.shape == (2, 100)
    assert set(corners[0]) == {0}
    assert set(corners[1]) == {0, 1, 2}


def test_patches_are_cut_channel_by_channel():
    level = laplacian_pyramid(noise(20, 24, 3))[0]
    patches = patches_at(level, np.array([[0, 13], [17, 5]]))
    assert patches.shape == (2, 3, 49)
    for patch, (top, left) in zip(patches, [(0, 17), (13, 5)], strict=True):
        cut = level[top : top + SIDE, left : left + SIDE]
        np.testing.assert_array_equal(patch, cut.transpose(2, 0, 1).reshape(3, 49))  # whole numbers fit into 16 bits


def test_what_16_bits_round_away_is_small():
    level = laplacian_pyramid(noise(64, 64, 3))[0]
    corners = draw_corners(level.shape, 50, np.random.default_rng(0))
    cut = np.stack([level[t : t + SIDE, n : n + SIDE].transpose(2, 0, 1).reshape(3, 49) for t, n in corners.T])
    np.testing.assert_allclose(patches_at(level, corners), cut, rtol=5e-4, atol=1e-6)
