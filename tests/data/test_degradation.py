"""Eq. 4: recipes are drawn from a seed alone, stay in range, survive JSON, and are applied in the right order."""

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from gpen_plugin.data.degradation import (
    DegradationRanges,
    DegradationRecipe,
    degrade,
    degrade_lowres,
    gaussian_kernel,
    make_kernel,
    motion_kernel,
    sample_recipe,
)
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import OptionError, ShapeError

RECIPE = DegradationRecipe("aniso", 9, 3.0, 1.0, 0.5, 0.0, 4.0, "area", 8.0, 7, 40)
NO_BLUR = replace(RECIPE, kernel="iso", kernel_size=1)


def image(height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def recipes(count: int, ranges: DegradationRanges = DegradationRanges()) -> list[DegradationRecipe]:  # noqa: B008
    return [sample_recipe(ranges, rng_from_key(0, i)) for i in range(count)]


def test_recipe_does_not_change_with_processes_and_versions():
    """Python's own hash of a text differs between processes."""
    assert rng_from_key(3, "faces/ä 1").integers(2**63) == 7516405124666084650
    assert rng_from_key(0, "00001").integers(2**63) == 6479430803223343045
    recipe = sample_recipe(DegradationRanges(), rng_from_key(0, "00001"))
    assert str(recipe) == "motion blur 23 px (at 138 deg), 1/151.3, noise 11.3, JPEG 36"


def test_recipes_differ_by_seed_and_by_key():
    drawn = {
        sample_recipe(DegradationRanges(), rng_from_key(*parts)) for parts in [(0, "a"), (1, "a"), (0, "b"), (0, 1, 0)]
    }
    assert len(drawn) == 4


@pytest.mark.parametrize("recipe", recipes(20))
def test_json_and_back_gives_an_equal_recipe(recipe):
    assert DegradationRecipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_unknown_key_of_a_recipe():
    with pytest.raises(OptionError, match=r"pairs:3:jpeg_qality: unknown key.*Did you mean 'jpeg_quality'"):
        DegradationRecipe.from_dict({**RECIPE.to_dict(), "jpeg_qality": 3}, "pairs:3")


def test_papers_ranges_are_used_to_their_ends():
    drawn = recipes(3000)
    spans = {
        "downsample": (10, 200, 0.5),
        "noise_sigma": (0, 25, 0.1),
        "jpeg_quality": (5, 50, 0),
        "kernel_size": (7, 41, 0),
    }
    for name, (low, high, slack) in spans.items():
        values = [getattr(recipe, name) for recipe in drawn]
        assert low <= min(values) <= low + slack, name
        assert high - slack <= max(values) <= high, name
        assert np.mean(values) == pytest.approx((low + high) / 2, rel=0.05), name
    assert {recipe.kernel_size % 2 for recipe in drawn} == {1}
    shares = {kind: sum(recipe.kernel == kind for recipe in drawn) / len(drawn) for kind in ("iso", "aniso", "motion")}
    assert shares == pytest.approx({"iso": 0.4, "aniso": 0.3, "motion": 0.3}, abs=0.03)


def test_noise_scale_and_quality_do_not_depend_on_the_kernels():
    motion_only = recipes(10, DegradationRanges(kernel_list=["motion"], kernel_prob=[1]))
    for one, other in zip(recipes(10), motion_only, strict=True):
        assert (one.downsample, one.noise_seed, one.jpeg_quality) == (
            other.downsample,
            other.noise_seed,
            other.jpeg_quality,
        )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("jpeg_range", [50, 5], r"got \[50, 5\]; expected the smaller number first"),
        ("jpeg_range", [0, 50], "within 1 and 100"),
        ("jpeg_range", [5.5, 50], "a list of 2 values"),
        ("downsample_range", [0.5, 2], "at least 1"),
        ("downsample_range", [1, math.inf], "finite"),
        ("noise_range", [-1, 2], "within 0 and 255"),
        ("noise_range", [math.nan, 2], "finite"),
        ("blur_sigma", [0, 2], "at least 0.01"),
        ("kernel_size", [4, 8], "two odd numbers"),
        ("kernel_prob", [0.5, 0.5], "2 numbers for the 3 kernels"),
        ("kernel_prob", [0.5, 0.5, 0.5], "sum to 1"),
        ("kernel_list", [], "an empty list"),
        ("kernel_list", ["iso", "box", "motion"], "a list of"),
        ("jpeg_rnage", [5, 50], "Did you mean 'jpeg_range'"),
    ],
)
def test_wrong_ranges_name_their_key(key, value, words):
    with pytest.raises(OptionError, match=f"datasets:train:degradation:{key}: .*{words}"):
        DegradationRanges.from_options({key: value}, "datasets:train:degradation")


def test_eq_4_step_by_step():
    """Against the equation, written out without OpenCV's filter and area resizing."""
    pixels = image(40, 40) / 255.0
    kernel = gaussian_kernel(9, 3.0, 1.0, 0.5)
    padded = np.pad(pixels, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    blurred = np.zeros_like(pixels)
    for dy in range(9):
        for dx in range(9):
            blurred += kernel[dy, dx] * padded[8 - dy : 48 - dy, 8 - dx : 48 - dx]
    small = blurred.reshape(10, 4, 10, 4, 3).mean((1, 3)) * 255  # (10, 10, 3)
    noisy = small + 8.0 * np.random.default_rng(7).standard_normal((10, 10, 3))
    expected = np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)
    _, data = cv2.imencode(".jpg", expected, [cv2.IMWRITE_JPEG_QUALITY, 40])
    expected = cv2.imdecode(data, cv2.IMREAD_COLOR)
    actual = degrade_lowres(image(40, 40), RECIPE)
    assert np.mean(actual != expected) < 0.05  # a value that lies on the edge between two may round either way
    np.testing.assert_allclose(actual.astype(float), expected, atol=8)


def test_motion_is_a_convolution_not_a_correlation():
    recipe = replace(NO_BLUR, kernel="motion", kernel_size=9, angle=0.6, bend=1.4, downsample=1.0, noise_sigma=0.0)
    point = np.zeros((33, 33, 3), np.float32)
    point[16, 16] = 1
    spread = degrade_lowres(point, replace(recipe, jpeg_quality=100))[12:21, 12:21, 1] / 255
    kernel = motion_kernel(9, 0.6, 1.4)
    assert np.abs(spread - kernel).max() < 0.02 < np.abs(spread - kernel[::-1, ::-1]).max()


def test_noise_has_its_sigma_and_is_independent_between_channels():
    gray = np.full((256, 256, 3), 128, np.uint8)
    noisy = degrade_lowres(gray, replace(NO_BLUR, downsample=1.0, noise_sigma=20.0, jpeg_quality=100)).astype(float)
    noise = np.random.Generator(np.random.PCG64(7)).standard_normal((256, 256, 3)) * 20
    brightness = [0.114, 0.587, 0.299]  # which JPEG keeps best
    seen, drawn = (noisy @ brightness - 128).ravel(), (noise @ brightness).ravel()
    assert np.corrcoef(seen, drawn)[0, 1] > 0.99
    assert seen.std() == pytest.approx(20 * np.linalg.norm(brightness), rel=0.03)


def test_one_pixel_in_the_middle():
    recipe = replace(RECIPE, downsample=200.0, kernel_size=41)
    assert degrade_lowres(image(), recipe).shape == (1, 1, 3)
    result = degrade(image(), recipe, 32)
    assert result.shape == (32, 32, 3)
    assert np.ptp(result, axis=(0, 1)).max() < 1e-6


@pytest.mark.parametrize(("s", "side"), [(10.0, 6), (3.7, 17), (1.0, 64), (60.0, 1)])
def test_downsampled_size(s, side):
    assert degrade_lowres(image(), replace(RECIPE, downsample=s)).shape[0] == side


def test_bytes_and_floats_give_the_same():
    one = degrade(image(), RECIPE, 64)
    other = degrade(image().astype(np.float32) / 255, RECIPE, 64)
    assert one.dtype == np.float32
    assert 0 <= one.min() <= one.max() <= 1
    np.testing.assert_array_equal(one, other)


def test_same_recipe_same_image():
    np.testing.assert_array_equal(degrade(image(), RECIPE, 64), degrade(image(), RECIPE, 64))
    assert (degrade(image(), RECIPE, 64) != degrade(image(), replace(RECIPE, noise_seed=8), 64)).any()


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4)), np.zeros((4, 4, 4)), np.zeros((0, 4, 3)), np.zeros((4, 4, 3), int)]
)
def test_wrong_images(wrong):
    with pytest.raises(ShapeError, match="image: got"):
        degrade(wrong, RECIPE, 8)


@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("bend", [-3.1, 0.0, 1.5])
@pytest.mark.parametrize("size", [1, 3, 21])
def test_motion_kernels_keep_brightness_and_position(size, angle, bend):
    kernel = motion_kernel(size, angle, bend).astype(np.float64)
    offset = np.arange(size) - (size - 1) / 2
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert kernel.min() >= 0
    assert kernel.sum(0) @ offset == pytest.approx(0, abs=1e-4)
    assert kernel.sum(1) @ offset == pytest.approx(0, abs=1e-4)


def test_motion_is_as_long_as_its_kernel():
    kernel = motion_kernel(21, 0.0, 0.0)
    np.testing.assert_allclose(kernel[10, 1:-1], 1 / 20, rtol=0.05)
    assert kernel[10].sum() == pytest.approx(1)


def test_gaussian_is_stretched_along_its_angle():
    kernel = gaussian_kernel(41, 5.0, 2.0, 0.6)
    offset = np.arange(41) - 20.0
    x, y = np.meshgrid(offset, offset)
    covariance = np.array([[np.sum(kernel * a * b) for a in (x, y)] for b in (x, y)])
    axis = np.array([np.cos(0.6), np.sin(0.6)])
    across = np.array([-np.sin(0.6), np.cos(0.6)])
    assert math.sqrt(axis @ covariance @ axis) == pytest.approx(5, rel=0.02)
    assert math.sqrt(across @ covariance @ across) == pytest.approx(2, rel=0.02)


def test_isotropic_kernel_has_one_sigma():
    kernel = make_kernel(replace(RECIPE, kernel="iso"))
    np.testing.assert_allclose(kernel, gaussian_kernel(9, 3.0, 3.0), atol=1e-7)
