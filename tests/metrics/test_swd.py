"""SWD: pyramid and patches, the formula against scipy and closed forms, and the metric in the host's loop."""

import math
import pickle
import re
from itertools import permutations

import cv2
import numpy as np
import pytest
from basicsr.metrics import calculate_metric
from scipy.ndimage import convolve
from scipy.stats import wasserstein_distance

from gpen_plugin.config import schema
from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.host import registered
from gpen_plugin.metrics.swd import (
    PATCH_SIDE,
    calculate_swd,
    cut_patches,
    laplacian_pyramid,
    mean_and_deviation,
    sample_corners,
    sample_directions,
    sliced_wasserstein,
)

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


def test_constant_is_only_in_coarsest_level():
    image = noise(64, 64, 3) // 2
    for level, (one, other) in enumerate(zip(laplacian_pyramid(image), laplacian_pyramid(image + 9), strict=True)):
        np.testing.assert_allclose(other - one, 9 if level == 2 else 0, atol=1e-3)


def test_corners_reach_every_patch_and_no_further():
    corners = sample_corners((PATCH_SIDE, PATCH_SIDE + 2, 3), 100, np.random.default_rng(0))
    assert corners.shape == (2, 100)
    assert set(corners[0]) == {0}
    assert set(corners[1]) == {0, 1, 2}


def test_patches_are_cut_channel_by_channel():
    level = laplacian_pyramid(noise(20, 24, 3))[0]
    patches = cut_patches(level, np.array([[0, 13], [17, 5]]))
    assert patches.shape == (2, 3, 49)
    for patch, (top, left) in zip(patches, [(0, 17), (13, 5)], strict=True):
        cut = level[top : top + PATCH_SIDE, left : left + PATCH_SIDE]
        np.testing.assert_array_equal(patch, cut.transpose(2, 0, 1).reshape(3, 49))  # whole numbers fit into 16 bits


def test_float16_rounding_is_small():
    level = laplacian_pyramid(noise(64, 64, 3))[0]
    corners = sample_corners(level.shape, 50, np.random.default_rng(0))
    windows = [level[top : top + PATCH_SIDE, left : left + PATCH_SIDE] for top, left in corners.T]
    cut = np.stack([window.transpose(2, 0, 1).reshape(3, 49) for window in windows])
    # to the nearest of 11 binary digits; below the normal numbers, of the multiples of 2^-24
    np.testing.assert_allclose(cut_patches(level, corners), cut, rtol=2**-11, atol=2**-25)


SMALL = {"patches": 32, "directions": 48}


def normal(seed: int, count: int, dimensions: int, shift=0.0, scale=1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, (count, dimensions))


def image(seed: int, side: int = 32) -> np.ndarray:
    """Smooth patches with a grain: (side, side, 3) uint8, far from black and white."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.uniform(60, 180, (4, 4, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 20, 215).astype(np.uint8)


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def swd(pairs, **options) -> float:
    return sum_of(pairs, **options) / len(pairs)


def sum_of(pairs, **options):
    return sum(calculate_swd(one, other, **{**SMALL, **options}) for one, other in pairs)


# --- the formula


def test_each_direction_is_scipys_distance_on_a_line():
    one, other = normal(0, 200, 5), normal(1, 200, 5, shift=0.4, scale=1.7)
    directions = sample_directions(5, 70, np.random.default_rng(2))  # more than are taken at once
    expected = [wasserstein_distance(one @ d, other @ d) for d in directions.T]
    assert sliced_wasserstein(one, other, directions) == pytest.approx(np.mean(expected), rel=1e-9)
    assert sliced_wasserstein(one, other, directions[:, :1]) == pytest.approx(expected[0], rel=1e-9)


def test_two_gaussians_of_one_width_are_their_shift_apart():
    """On the direction d it is |m d|: in the mean over the sphere, |m| Gamma(D/2) / (sqrt(pi) Gamma((D+1)/2))."""
    dimensions, points = 12, normal(0, 100, 12)
    shift = normal(1, 1, dimensions)
    expected = np.linalg.norm(shift) * math.gamma(6) / (math.sqrt(math.pi) * math.gamma(6.5))
    directions = sample_directions(dimensions, 4000, np.random.default_rng(2))
    assert sliced_wasserstein(points, points + shift, directions) == pytest.approx(expected, rel=0.03)


def test_two_gaussians_of_one_center():
    """Of deviations s and t they are |s - t| E|z| = |s - t| sqrt(2 / pi) apart, on every direction."""
    directions = sample_directions(4, 30, np.random.default_rng(2))
    distance = sliced_wasserstein(normal(0, 40000, 4, scale=1.0), normal(1, 40000, 4, scale=2.5), directions)
    assert distance == pytest.approx(1.5 * math.sqrt(2 / math.pi), rel=0.02)


def test_sets_have_no_order_and_need_the_same_number_of_points():
    one, other = normal(0, 50, 6), normal(1, 50, 6)
    directions = sample_directions(6, 20, np.random.default_rng(2))
    assert sliced_wasserstein(one, one[::-1], directions) == 0
    assert sliced_wasserstein(one, other, directions) == sliced_wasserstein(other, one, directions) > 0
    with pytest.raises(ShapeError, match=r"other: got shape \(40, 6\); expected \(50, 6\)"):
        sliced_wasserstein(one, other[:40], directions)


def test_directions_are_even_over_the_sphere():
    directions = sample_directions(4, 20000, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(directions, axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(directions.mean(axis=1), 0, atol=0.02)
    np.testing.assert_allclose(directions @ directions.T / 20000, np.eye(4) / 4, atol=0.01)


def test_statistics_of_each_channel():
    patches = np.stack([normal(0, 300, 49, 3, 2), normal(1, 300, 49, -50, 0.2), np.full((300, 49), 7.0)], axis=1)
    mean, deviation = mean_and_deviation(patches.astype(np.float32))
    np.testing.assert_allclose(mean[0, :, 0], [3, -50, 7], atol=0.1)
    np.testing.assert_allclose(deviation[0, :2, 0], patches.std(axis=(0, 2))[:2], rtol=1e-4)
    assert deviation[0, 2, 0] == 1  # a flat channel stays flat


def test_the_host_can_sum_and_divide():
    """The lines of the host's own validation."""
    options = {"type": "calculate_swd", "better": "lower", **SMALL}
    pairs = [(image(i), image(i + 10)) for i in range(3)]
    result = 0
    for img, img2 in pairs:
        result += calculate_metric({"img": img, "img2": img2}, options)
    result /= 3
    assert type(result) is float
    assert f"{result:.4f}" == f"{swd(pairs):.4f}"
    assert result > 0


def test_value_is_the_papers_formula_of_normalized_patches():
    """Written again on 16 px, where there is one level: at each patch of both images, with scipy's distance."""
    pairs = [(blurred(image(i, 16), 1), image(i + 10, 16)) for i in range(2)]
    everywhere = np.stack(np.meshgrid(range(10), range(10))).reshape(2, -1)
    sets = []
    for images in zip(*pairs, strict=True):
        patches = np.concatenate([cut_patches(laplacian_pyramid(p)[0], everywhere) for p in images]).astype(float)
        patches = (patches - patches.mean(axis=(0, 2), keepdims=True)) / patches.std(axis=(0, 2), keepdims=True)
        sets.append(patches.reshape(-1, 147))
    directions = sample_directions(147, 600, np.random.default_rng(0))
    expected = 1000 * np.mean([wasserstein_distance(sets[0] @ d, sets[1] @ d) for d in directions.T])
    total = sum_of(pairs, patches=4000, directions=600)
    assert total / 2 == pytest.approx(expected, rel=0.03)
    assert total.levels() == {16: pytest.approx(expected, rel=0.03)}


@pytest.mark.parametrize("normalise_by", ["own", "real"])
def test_a_set_is_at_0_from_itself(normalise_by):
    total = sum_of([(image(i, 64), image(i, 64)) for i in range(3)], normalise_by=normalise_by)
    assert total.levels() == {64: 0, 32: 0, 16: 0}
    assert total / 3 == 0


def test_value_is_the_mean_of_the_levels():
    total = sum_of([(image(1, 64), image(2, 64)), (image(3, 64), image(4, 64))])
    levels = total.levels()
    assert list(levels) == [64, 32, 16]
    assert total / 2 == pytest.approx(sum(levels.values()) / 3)


def test_neither_order_nor_ranks_change_a_bit():
    pairs = [(image(i, 32), image(i + 10, 32)) for i in range(4)]
    pairs.append((image(20), pairs[0][1]))  # two generated images beside one real
    expected = swd(pairs)
    for order in list(permutations(range(5)))[1::17]:
        assert swd([pairs[i] for i in order]) == expected
    np.testing.assert_array_equal(sum_of(pairs).records(), sum_of(pairs[::-1]).records())
    shares = [sum_of(pairs[rank::2]) for rank in range(2)]
    received = [pickle.loads(pickle.dumps(share)) for share in shares]
    for ranks in (received, received[::-1]):
        assert sum(ranks) / 5 == expected


def test_places_follow_the_real_image():
    def generated_and_real(img, img2):
        (record,) = calculate_swd(img, img2, **SMALL).records()
        return record[:, 0], record[:, 1]

    one, other, real = image(0), image(1), image(2)
    np.testing.assert_array_equal(generated_and_real(one, real)[1], generated_and_real(other, real)[1])
    assert not np.array_equal(generated_and_real(one, real)[0], generated_and_real(one, other)[0])


def test_the_seed_is_all_that_is_random():
    pairs = [(blurred(image(i), 1), image(i + 10)) for i in range(3)]
    assert swd(pairs, seed=5) == swd(pairs, seed=5)
    assert swd(pairs, seed=5) != swd(pairs, seed=6)
    assert swd(pairs, seed=5) == pytest.approx(swd(pairs, seed=6), rel=0.3)


def test_cast_shows_in_coarsest_level_with_real_statistics():
    pairs = [(image(i, 64) + 30, image(i, 64)) for i in range(3)]
    seen = sum_of(pairs, normalise_by="real").levels()
    assert seen[16] > 100
    assert max(seen[64], seen[32]) < 0.1
    assert max(sum_of(pairs, normalise_by="own").levels().values()) < 2  # what 16 bits round away


def test_lost_detail_shows_where_it_is_lost():
    def levels(sigma):
        pairs = [(blurred(image(i, 64), sigma), image(i + 10, 64)) for i in range(6)]
        return sum_of(pairs, patches=400).levels()

    sharp, soft, softer = levels(0.1), levels(0.7), levels(2)
    assert 1.3 * sharp[64] < soft[64]
    assert 2 * soft[64] < softer[64]
    assert soft[16] == pytest.approx(sharp[16], rel=0.02)


def test_options_reach_the_value():
    pairs = [(blurred(image(i), 1), image(i + 10)) for i in range(2)]
    values = {swd(pairs), swd(pairs, patches=31), swd(pairs, directions=47), swd(pairs, normalise_by="real")}
    assert len(values) == 4


def test_black_images_give_a_number():
    pairs = [(np.zeros((32, 32, 3), np.uint8), image(i)) for i in range(2)]
    for normalise_by in ("own", "real"):
        assert math.isfinite(swd(pairs, normalise_by=normalise_by))


@pytest.mark.parametrize(("side", "size"), [(256, 376_320), (1024, 526_848)])
def test_memory_is_as_documented(side, size):
    image = np.zeros((side, side, 3), np.uint8)
    assert size < len(pickle.dumps(calculate_swd(image, image))) < size + 1000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"img": image(0, 15), "img2": image(1, 15)}, "img: got 15 x 15 px; expected at least 16 px"),
        ({"img2": image(0, 15)}, "img2: got 15 x 15 px; expected at least 16 px"),
        ({"img2": image(0, 64)}, "img: got 32 x 32 px beside 64 x 64 px of img2; expected two images of one size"),
        ({"img": image(0)[:, :, 0]}, r"img: got shape \(32, 32\) of uint8"),
        ({"img2": image(0) / 255}, r"img2: got shape \(32, 32, 3\) of float64; expected \(H, W, 3\) of uint8"),
    ],
)
def test_images_that_cannot_be_compared(change, words):
    with pytest.raises(ShapeError, match=words):
        calculate_swd(**{"img": image(0), "img2": image(1), **change})


def test_a_set_has_one_size():
    with pytest.raises(ShapeError, match="calculate_swd: got images of 32 x 32 and of 64 x 64 px; expected one"):
        sum_of([(image(0), image(1)), (image(0, 64), image(1, 64))])


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("patches", 0, "patches: got 0; expected a number above 0"),
        ("directions", -1, "directions: got -1; expected a number above 0"),
        ("normalise_by", "paper", "normalise_by: got 'paper'; expected 'own' or 'real'"),
        ("better", "higher", "better: got 'higher'; expected lower"),
    ],
)
def test_wrong_values(option, value, words):
    with pytest.raises(OptionError, match=words):
        calculate_swd(image(0), image(1), **{option: value})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patchs": 3}, "patchs: unknown key.*Did you mean 'patches'"),
        ({"patches": "3"}, "patches: got '3'"),
        ({"normalise_by": "paper"}, "normalise_by: got 'paper'"),
        ({"better": "higher"}, "better: got 'higher'"),
    ],
)
def test_an_option_file_can_be_checked_by_the_signature(options, words):
    given = {"img": None, "img2": None, "better": "lower", "patches": 64, **options}
    problems = [str(problem) for problem in schema.validate(registered("metric")["calculate_swd"], given)]
    listed = [problem for problem in problems if not problem.startswith("img")]
    assert len(listed) == 1
    assert re.search(words, listed[0])


def test_in_a_training(options, train):
    options["val"]["metrics"]["swd"] = {"type": "calculate_swd", "better": "lower", **SMALL}
    (log,) = train(options).glob("train_*.log")
    found = re.findall(r"# swd: (\S+)\s+Best: (\S+) @ (\d+) iter", log.read_text())
    assert len(found) == 2  # iterations 3 and 6
    values = [float(value) for value, _, _ in found]
    assert min(values) > 0
    assert float(found[-1][1]) == min(values)
