"""The formula against loops over pairs, and the metric in the host's own loop."""

import math

import numpy as np
import pytest
from basicsr.metrics import calculate_metric

from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.metrics import fid, kid
from gpen_plugin.metrics.kid import calculate_kid
from gpen_plugin.nets import inception

PIXELS = 12


def normal(seed: int, count: int, dimensions: int = 5, shift=0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (count, dimensions))


def with_loops(one: np.ndarray, other: np.ndarray) -> float:
    def kernel(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    def within(points):
        n = len(points)
        return sum(kernel(points[i], points[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    between = sum(kernel(x, y) for x in one for y in other) / (len(one) * len(other))
    return within(one) + within(other) - 2 * between


@pytest.mark.parametrize(("counts", "block"), [((20, 20), 1024), ((9, 23), 7), ((2, 2), 1)])
def test_loops_over_pairs(monkeypatch, counts, block):
    monkeypatch.setattr(kid, "BLOCK_ROWS", block)
    one, other = normal(0, counts[0]), normal(1, counts[1], shift=0.5)
    expected = with_loops(one, other)
    assert kid.kernel_distance(one, other) == pytest.approx(expected, rel=1e-10)
    assert kid.kernel_distance(other, one) == pytest.approx(expected, rel=1e-10)


def test_it_is_unbiased():
    """Of two halves of one distribution it is 0 in the mean, below and above, however small they are."""
    values = [kid.kernel_distance(normal(2 * i, 8), normal(2 * i + 1, 8)) for i in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    assert min(values) < 0 < max(values)
    assert kid.kernel_distance(normal(0, 8), normal(1, 8, shift=2)) > max(values)


@pytest.mark.parametrize("counts", [(1, 5), (5, 1)])
def test_a_single_image_has_no_kid(counts):
    assert math.isnan(kid.kernel_distance(normal(0, counts[0]), normal(1, counts[1])))


def test_other_dimensions_are_refused():
    with pytest.raises(ShapeError, match="other: got 4 dimensions; expected 5, as the first has"):
        kid.kernel_distance(normal(0, 3), normal(0, 3, 4))


# --- the metric


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def extract(images, device, weights):
        return np.array([p.reshape(-1)[:PIXELS] / 255 for p in images], np.float32)

    monkeypatch.setattr(inception, "extract_features", extract)
    for store in ("_restored", "_ground_truth"):
        monkeypatch.setattr(fid, store, fid.ContentCache(99))


def images(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)


def features(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)[:, :PIXELS].astype(np.float32) / 255


def in_the_hosts_loop(imgs, img2s=None, **options) -> float:
    total = 0
    for i, img in enumerate(imgs):
        given = {"img": img} | ({} if img2s is None else {"img2": img2s[i]})
        total += calculate_metric(given, {"type": "calculate_kid", "better": "lower", **options})
    return total / len(imgs)


def test_against_ground_truth_in_the_hosts_loop():
    restored, truth = images(0, 15), images(1, 15) // 2
    expected = 1000 * with_loops(features(restored), features(truth))
    assert in_the_hosts_loop(restored, truth) == pytest.approx(expected, rel=1e-5)
    assert in_the_hosts_loop(restored[::-1], truth[::-1]) == in_the_hosts_loop(restored, truth)  # to the bit
    assert math.isnan(in_the_hosts_loop(restored[:1], truth[:1]))


def test_against_features_of_a_file(tmp_path):
    restored, reference = images(0, 15), features(images(2, 40))
    moments = {"mu": reference.mean(axis=0), "sigma": np.cov(reference, rowvar=False)}
    np.savez(tmp_path / "with.npz", **moments, features=reference)
    expected = 1000 * with_loops(features(restored), reference)
    for _ in range(2):  # the second time, what is within the file is known
        assert in_the_hosts_loop(restored, statistics=str(tmp_path / "with.npz")) == pytest.approx(expected, rel=1e-4)
    np.savez(tmp_path / "without.npz", **moments)
    with pytest.raises(
        OptionError, match=r"without\.npz holds only mean and covariance; expected the features.*--features"
    ):
        calculate_kid(restored[0], statistics=str(tmp_path / "without.npz"))


def test_wrong_better_is_an_error():
    with pytest.raises(OptionError, match="better: got 'higher'; expected lower"):
        calculate_kid(images(0, 1)[0], images(1, 1)[0], better="higher")
