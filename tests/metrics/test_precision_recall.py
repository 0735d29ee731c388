"""Precision and recall against loops over pairs, and on sets whose values are known."""

import math

import numpy as np
import pytest

from gpen_plugin.errors import OptionError
from gpen_plugin.metrics import fid, precision_recall
from gpen_plugin.metrics.precision_recall import calculate_precision, calculate_recall, fraction_within
from gpen_plugin.nets import vgg16


def with_loops(points: np.ndarray, of: np.ndarray, neighbors: int) -> float:
    def distance(x, y):
        return math.dist(x, y)

    radii = [sorted(distance(x, y) for j, y in enumerate(of) if j != i)[neighbors - 1] for i, x in enumerate(of)]
    inside = [any(distance(p, x) <= radius for x, radius in zip(of, radii, strict=True)) for p in points]
    return sum(inside) / len(inside)


@pytest.mark.parametrize("block", [2**24, 40])
def test_loops_over_pairs(monkeypatch, block):
    monkeypatch.setattr(precision_recall, "BLOCK_NUMBERS", block)
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, (30, 4)), rng.normal(0.8, 0.6, (20, 4))
    for neighbors in (1, 3):
        expected = with_loops(one, other, neighbors)
        assert 0.1 < expected < 0.9
        assert fraction_within(one, other, neighbors) == pytest.approx(expected, abs=1e-12)
        assert fraction_within(other, one, neighbors) == pytest.approx(with_loops(other, one, neighbors), abs=1e-12)


def test_known_values():
    points = np.random.default_rng(1).normal(size=(12, 3))
    assert fraction_within(points, points, 3) == 1
    assert fraction_within(points, points + 100, 3) == 0
    assert math.isnan(fraction_within(points, points[:3], 3))


@pytest.fixture
def mean_color(monkeypatch):
    """Features are the mean color, in place of VGG-16's."""
    monkeypatch.setattr(vgg16, "extract_features", lambda images, *_: np.stack([i.mean((0, 1)) for i in images]))
    for store in ("_restored", "_ground_truth"):
        monkeypatch.setattr(fid, store, fid.ContentCache(99))


def flat(value: float) -> np.ndarray:
    return np.full((4, 4, 3), value, np.uint8)


def total(metric, values, truths=None, **options) -> float:
    pairs = [metric(flat(v), None if truths is None else flat(truths[i]), **options) for i, v in enumerate(values)]
    return sum(pairs) / len(pairs)


def test_restored_faces_of_one_color_have_precision_without_recall(mean_color):
    truths = [0, 50, 100, 150, 200, 250]
    restored = [100, 101, 102, 103, 104, 105]
    assert total(calculate_precision, restored, truths) == 1
    assert total(calculate_recall, restored, truths) == pytest.approx(1 / 6)
    assert total(calculate_recall, truths, truths) == 1


def test_other_set_is_a_file(mean_color, tmp_path):
    truths = np.repeat(np.array([0, 50, 100, 150, 200, 250], np.float32)[:, None], 3, axis=1)
    path = tmp_path / "real.npz"
    np.savez(path, mu=truths.mean(0), sigma=np.cov(truths.T), features=truths)
    restored = [100, 101, 102, 255]
    assert total(calculate_precision, restored, statistics=str(path), neighbors=1) == 1
    # 255 reaches to 102
    assert total(calculate_recall, restored, statistics=str(path), neighbors=1) == pytest.approx(4 / 6)
    np.savez(path.with_name("moments.npz"), mu=truths.mean(0), sigma=np.cov(truths.T))
    with pytest.raises(OptionError, match="holds only mean and covariance"):
        calculate_precision(flat(1), statistics=str(path.with_name("moments.npz")))


@pytest.mark.parametrize(
    ("options", "message"), [({"neighbors": 0}, "neighbors: got 0"), ({"better": "lower"}, "better")]
)
def test_wrong_options_are_refused(mean_color, options, message):
    with pytest.raises(OptionError, match=message):
        calculate_precision(flat(1), flat(1), **options)
