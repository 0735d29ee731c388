"""Brush strokes: what they cover, and of what they are a function."""

import cv2
import numpy as np
import pytest

from gpen_plugin.data.gpen_task_dataset import BrushRanges, brush_mask
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import OptionError


def masks(ranges: BrushRanges, number: int = 40, size: int = 64) -> list[np.ndarray]:
    return [brush_mask(ranges, rng_from_key(seed), size) for seed in range(number)]


def test_a_mask_is_a_function_of_the_generator():
    first, again, other = (brush_mask(BrushRanges(), rng_from_key(seed), 64) for seed in (1, 1, 2))
    assert first.dtype == np.uint8
    assert set(np.unique(first)) == {0, 1}
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("covered", [(0.05, 0.5), (0.3, 0.4), (0.0, 0.1)])
def test_covered_fraction_is_within_its_bounds(covered):
    shares = [mask.mean() for mask in masks(BrushRanges(covered=covered))]
    assert covered[0] <= min(shares) < max(shares) <= covered[1]


def test_size_changes_only_detail():
    """A share of strokes that are fractions of the side: the same drawing at every size."""
    ranges = BrushRanges(width=(0.05, 0.07), covered=(0, 1))
    for seed in range(5):
        small, large = (brush_mask(ranges, rng_from_key(seed), size) for size in (64, 256))
        reduced = cv2.resize(large.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(reduced - small).mean() < 0.08


@pytest.mark.parametrize("width", [3, 9])
def test_stroke_has_its_width(width):
    line = {"strokes": (1, 1), "vertices": (1, 1), "length": (0.3, 0.4), "turn": (0, 0), "covered": (0, 1)}
    radii = [
        cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max()
        for mask in masks(BrushRanges(width=(width / 128, width / 128), **line), 21, 128)
    ]
    assert width <= 2 * np.median(radii) - 1 <= width + 2  # OpenCV rounds up; wider where it bounces off the border


def test_strokes_have_round_ends_and_stay_one_piece():
    ranges = BrushRanges(strokes=(1, 1), covered=(0, 1))
    assert all(cv2.connectedComponents(mask)[0] == 2 for mask in masks(ranges))


def test_more_strokes_cover_more():
    few, many = (
        np.mean([m.mean() for m in masks(BrushRanges(strokes=(n, n), covered=(0, 1)))]) for n in (1, 4)
    )  # fmt: skip
    assert many > 2 * few


@pytest.mark.parametrize("size", [1, 2, 8])
def test_smallest_images_get_a_mask(size):
    for mask in masks(BrushRanges(), 20, size):
        assert mask.shape == (size, size)
        assert mask.mean() <= 0.5


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"strokes": [3, 1]}, r"brush:strokes: got \[3, 1\]; expected the smaller number first.*Write \[1, 3\]"),
        ({"strokes": [0, 1]}, r"brush:strokes: got \[0, 1\]; expected numbers within 1 and 100"),
        ({"width": [0.01, 0.6]}, r"brush:width: got \[0.01, 0.6\]; expected numbers within 0.001 and 0.5"),
        ({"length": [0.1, float("nan")]}, "brush:length: got .*numbers within"),
        ({"covered": [0.2, 0.21]}, r"brush:covered: got \[0.2, 0.21\], and a single line may cover 0.028"),
        ({"widht": [0.1, 0.2]}, "brush:widht: unknown key.*Did you mean 'width'"),
        ({"vertices": [1.5, 2]}, "brush:vertices: got .*a whole number"),
    ],
)
def test_wrong_ranges_name_their_key(given, words):
    with pytest.raises(OptionError, match=words):
        BrushRanges.from_options(given, "brush")
