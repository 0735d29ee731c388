"""Grey, and colour under a given luminance."""

import cv2
import numpy as np
import pytest
from helpers.training_images import colour_image

from gpen_plugin.data.color import luminance, set_luma, to_gray


def unit(seed: int) -> np.ndarray:
    return colour_image(seed).astype(np.float32) / 255


def test_luminance_is_that_of_jpeg():
    image = unit(0)
    blue, green, red = image.transpose(2, 0, 1)
    np.testing.assert_allclose(luminance(image), 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-6)
    assert to_gray(image).shape == image.shape
    assert (np.ptp(to_gray(image), axis=2) == 0).all()


def test_the_luminance_is_the_wanted_one_exactly_and_no_colour_leaves_the_gamut():
    for seed in range(5):
        wanted = luminance(unit(seed + 10))
        result = set_luma(unit(seed), wanted)
        assert 0 <= result.min() <= result.max() <= 1
        np.testing.assert_allclose(luminance(result), wanted, atol=1e-6)


def test_the_chroma_stays_where_there_is_room():
    image = 0.4 + 0.2 * unit(1)
    result = set_luma(image, luminance(image) + np.float32(0.1))
    np.testing.assert_allclose(result, image + 0.1, atol=1e-6)
    chroma = [cv2.cvtColor(each, cv2.COLOR_BGR2YCrCb)[:, :, 1:] for each in (image, result)]
    np.testing.assert_allclose(*chroma, atol=1e-5)


def test_where_there_is_none_the_colour_becomes_paler_and_its_hue_stays():
    red = np.zeros((1, 1, 3), np.float32)
    red[:, :, 2] = 1
    bright = set_luma(red, np.full((1, 1), 0.9, np.float32))[0, 0]
    assert bright[2] == pytest.approx(1)
    assert bright[0] == pytest.approx(bright[1])
    assert 0.8 < bright[0] < 0.9


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_have_no_colour(value):
    result = set_luma(unit(2), np.full((32, 32), value, np.float32))
    np.testing.assert_allclose(result, value, atol=1e-6)


def test_grey_under_its_own_luminance_is_itself():
    image = to_gray(unit(3))
    np.testing.assert_allclose(set_luma(image, luminance(image)), image, atol=1e-6)
