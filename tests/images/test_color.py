"""Luma, and the colors of the input in a restored face."""

import cv2
import numpy as np
import pytest
from helpers.training_images import color_image

from gpen_plugin.images.color import keep_color, luminance, set_luma, to_gray


def unit(seed: int) -> np.ndarray:
    return color_image(seed).astype(np.float32) / 255


def test_luminance_is_that_of_jpeg():
    image = unit(0)
    blue, green, red = image.transpose(2, 0, 1)
    np.testing.assert_allclose(luminance(image), 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-6)
    assert to_gray(image).shape == image.shape
    assert (np.ptp(to_gray(image), axis=2) == 0).all()


def texture(seed: int, side: int = 64, sigma: float = 1.0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 1, (side, side, 3))
    values = cv2.GaussianBlur(values, (0, 0), sigma)
    return (0.5 + 0.12 * values / values.std()).clip(0.05, 0.95).astype(np.float32)


def coarse(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (4, 4), interpolation=cv2.INTER_AREA)


def test_luminance_is_exact_and_colors_stay_in_the_gamut():
    for seed in range(5):
        wanted = luminance(unit(seed + 10))
        result = set_luma(unit(seed), wanted)
        assert 0 <= result.min() <= result.max() <= 1
        np.testing.assert_allclose(luminance(result), wanted, atol=1e-6)


def test_chroma_is_kept_inside_the_gamut():
    image = 0.4 + 0.2 * unit(1)
    result = set_luma(image, luminance(image) + np.float32(0.1))
    np.testing.assert_allclose(result, image + 0.1, atol=1e-6)
    chroma = [cv2.cvtColor(each, cv2.COLOR_BGR2YCrCb)[:, :, 1:] for each in (image, result)]
    np.testing.assert_allclose(*chroma, atol=1e-5)


def test_hue_is_kept_outside_the_gamut():
    red = np.zeros((1, 1, 3), np.float32)
    red[:, :, 2] = 1
    bright = set_luma(red, np.full((1, 1), 0.9, np.float32))[0, 0]
    assert bright[2] == pytest.approx(1)
    assert bright[0] == pytest.approx(bright[1])
    assert 0.8 < bright[0] < 0.9


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_have_no_color(value):
    result = set_luma(unit(2), np.full((32, 32), value, np.float32))
    np.testing.assert_allclose(result, value, atol=1e-6)


def test_gray_under_its_own_luminance_is_itself():
    image = to_gray(unit(3))
    np.testing.assert_allclose(set_luma(image, luminance(image)), image, atol=1e-6)


def test_a_cast_is_taken_back():
    face = texture(0, side=256)
    found = keep_color((face * 0.8 + np.float32([0.1, 0, 0.05])).astype(np.float32), face)
    assert found.dtype == np.float32
    assert np.abs(coarse(found) - coarse(face)).max() < 0.01
    fine, own = (gray - cv2.GaussianBlur(gray, (0, 0), 1) for gray in map(luminance, (found, face)))
    assert (fine * own).sum() / (own**2).sum() == pytest.approx(0.8, abs=0.01)  # detail is the restored one's


def test_the_color_of_an_eye_is_that_of_the_input():
    """A disc of an eye's size in another hue: its chroma comes back, its new luminance stays by half."""
    face = np.full((256, 256, 3), 0.5, np.float32)
    eye = face.copy()
    cv2.circle(eye, (128, 128), 12, (0.7, 0.4, 0.4), -1)
    found = keep_color(eye, face)[120:137, 120:137].mean(axis=(0, 1))
    assert found.max() - found.min() < 0.55 * (0.7 - 0.4)
    luma = (found * [0.114, 0.587, 0.299]).sum()
    assert 0.5 - luma > 0.4 * (0.5 - (0.114 * 0.7 + 0.886 * 0.4))


def test_a_new_dark_patch_around_an_eye_fades():
    face = np.full((256, 256, 3), 0.5, np.float32)
    patch = face.copy()
    cv2.ellipse(patch, (128, 128), (28, 18), 0, 0, 360, (0.2, 0.2, 0.2), -1)
    assert abs(keep_color(patch, face)[128, 128] - 0.5).max() < 0.3 / 5


def test_a_flat_cast_is_taken_back_wholly():
    face = texture(1)
    cast = (face + np.float32([0.04, -0.03, 0.02])).astype(np.float32)
    assert np.abs(keep_color(cast, face) - face).max() < 1e-5


def test_the_same_face_stays_and_new_detail_too():
    face = texture(2)
    assert np.array_equal(keep_color(face, face), face)
    grid = np.indices((64, 64)).sum(axis=0) % 2 * 0.05 - 0.025
    detailed = (face + grid[..., None]).astype(np.float32)
    assert np.abs(keep_color(detailed, face) - detailed).max() < 1e-3


@pytest.mark.parametrize("side", [16, 32, 128])
def test_crops_of_other_sizes(side):
    face = texture(3, side=64, sigma=8)
    crop = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    found = keep_color((face * np.float32(0.9)).astype(np.float32), crop)
    assert found.shape == (64, 64, 3)
    assert np.abs(coarse(found) - coarse(face)).max() < 0.02


def test_values_stay_in_range():
    black, white = np.zeros((8, 8, 3), np.float32), np.ones((8, 8, 3), np.float32)
    bright = black.copy()
    bright[2:4] = 1
    found = keep_color(bright, white)
    assert found.max() == 1
    assert keep_color(white, black).min() == 0
