"""The formula against closed forms and scipy, and the metric in the host's own loop."""

import math

import numpy as np
import pytest
from basicsr.metrics import calculate_metric
from scipy.linalg import sqrtm

from gpen_plugin.config import schema
from gpen_plugin.errors import DataError, OptionError, ShapeError
from gpen_plugin.metrics import inception_features
from gpen_plugin.metrics.fid import Gaussian, calculate_fid, frechet_distance

PIXELS = 12  # the stand-in for the network gives the first pixels of an image


def normal(seed: int, count: int, dimensions: int, shift=0.0, scale=1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, (count, dimensions))


def covariance(seed: int, dimensions: int) -> np.ndarray:
    return np.cov(normal(seed, 3 * dimensions, dimensions), rowvar=False)


def with_scipy(mean1, cov1, mean2, cov2) -> float:
    """The formula as it is usually computed."""
    common = np.trace(sqrtm(cov1 @ cov2)).real
    return np.square(mean1 - mean2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * common


# --- the formula


def test_on_a_line():
    """(m1 - m2)^2 + (s1 - s2)^2."""
    one, other = (Gaussian.of_covariance(np.array([m]), np.array([[s**2]])) for m, s in ((1.0, 3.0), (-1.5, 0.5)))
    assert frechet_distance(one, other) == pytest.approx(2.5**2 + 2.5**2, rel=1e-12)


def test_covariances_that_commute():
    """The distance of their roots' eigenvalues, in whatever directions they lie."""
    axes = np.linalg.qr(normal(0, 20, 20))[0]
    deviations = abs(normal(1, 2, 20))
    one, other = (Gaussian.of_covariance(np.zeros(20), (axes * s**2) @ axes.T) for s in deviations)
    assert frechet_distance(one, other) == pytest.approx(np.square(deviations[0] - deviations[1]).sum(), rel=1e-10)


def test_scipys_matrix_root():
    means, covariances = normal(0, 2, 30), [covariance(seed, 30) for seed in (1, 2)]
    one, other = map(Gaussian.of_covariance, means, covariances)
    expected = with_scipy(means[0], covariances[0], means[1], covariances[1])
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("counts", [(100, 80), (100, 7), (9, 12)])
def test_samples_and_their_moments_are_one(counts):
    """As many images as dimensions, fewer, and far fewer, where the covariance is singular."""
    sets = [normal(seed, count, 20, shift=seed) for seed, count in enumerate(counts)]
    moments = [(points.mean(axis=0), np.cov(points, rowvar=False)) for points in sets]
    of_samples, of_moments = [Gaussian.of_samples(p) for p in sets], [Gaussian.of_covariance(*m) for m in moments]
    expected = with_scipy(*moments[0], *moments[1])
    for one in (of_samples[0], of_moments[0]):
        for other in (of_samples[1], of_moments[1]):
            assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [2, 15, 400])
def test_a_set_to_itself_is_zero(count):
    points = normal(0, count, 60, shift=5, scale=30).astype(np.float32)
    wide = points.astype(np.float64)
    same = [Gaussian.of_samples(points), Gaussian.of_covariance(wide.mean(axis=0), np.cov(wide, rowvar=False))]
    spread = np.square(same[0].root).sum()
    assert spread > 20000
    for one in same:
        for other in same:
            assert 0 <= frechet_distance(one, other) < 1e-6


def test_no_spread_at_all():
    flat = Gaussian.of_covariance(np.ones(4), np.zeros((4, 4)))
    assert flat.root.shape == (0, 4)
    assert frechet_distance(flat, flat) == 0
    assert frechet_distance(flat, Gaussian.of_covariance(np.zeros(4), np.eye(4))) == pytest.approx(8)


def test_other_dimensions_are_refused():
    with pytest.raises(ShapeError, match="other: got 3 dimensions; expected 4, as the first has"):
        frechet_distance(Gaussian.of_samples(normal(0, 9, 4)), Gaussian.of_samples(normal(0, 9, 3)))


# --- the metric


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def extract(images, device, weights):
        return np.array([p.reshape(-1)[:PIXELS] for p in images], np.float32)

    monkeypatch.setattr(inception_features, "extract", extract)
    for store in ("_of_restored", "_of_ground_truth"):
        monkeypatch.setattr(inception_features, store, inception_features.ContentCache(99))


def images(seed: int, count: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, (count, 4, 4, 3), dtype=np.uint8)


def features(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)[:, :PIXELS].astype(np.float64)


def in_the_hosts_loop(imgs, img2s=None, **options) -> float:
    total = 0
    for i, img in enumerate(imgs):
        given = {"img": img} | ({} if img2s is None else {"img2": img2s[i]})
        total += calculate_metric(given, {"type": "calculate_fid", "better": "lower", **options})
    return total / len(imgs)


def fid_of(one, other) -> float:
    return frechet_distance(Gaussian.of_samples(features(one)), Gaussian.of_samples(features(other)))


def test_against_ground_truth_in_the_hosts_loop():
    restored, truth = images(0, 30, 200), images(1, 30)
    assert in_the_hosts_loop(restored, truth) == pytest.approx(fid_of(restored, truth), rel=1e-9)
    assert in_the_hosts_loop(truth, truth) < 1e-6
    backwards = in_the_hosts_loop(restored[::-1], truth[::-1])
    assert backwards == in_the_hosts_loop(restored, truth)  # to the bit


@pytest.mark.parametrize("with_truth", [True, False])
def test_against_statistics(tmp_path, with_truth):
    restored, reference = images(0, 30, 200), features(images(2, 70))
    path = tmp_path / "set.npz"
    np.savez(path, mu=reference.mean(axis=0), sigma=np.cov(reference, rowvar=False))
    value = in_the_hosts_loop(restored, images(1, 30) if with_truth else None, statistics=str(path))
    assert value == pytest.approx(fid_of(restored, images(2, 70)), rel=1e-9)


def test_statistics_of_another_network(tmp_path):
    np.savez(tmp_path / "set.npz", mu=np.zeros(5), sigma=np.eye(5))
    with pytest.raises(ShapeError, match=rf"statistics: .*set\.npz is of 5 features; expected {PIXELS}"):
        in_the_hosts_loop(images(0, 2), statistics=str(tmp_path / "set.npz"))


def test_one_image_has_no_fid():
    assert math.isnan(in_the_hosts_loop(images(0, 1), images(1, 1)))
    assert in_the_hosts_loop(images(0, 2), images(1, 2)) > 0


def test_wrong_options_are_told_at_the_first_image(tmp_path):
    img = images(0, 1)[0]
    with pytest.raises(DataError, match=r"statistics: .*none\.npz cannot be read"):
        calculate_fid(img, statistics=str(tmp_path / "none.npz"))
    with pytest.raises(OptionError, match="better: got 'higher'; expected lower"):
        calculate_fid(img, img, better="higher")
    given = {"img": None, "img2": None, "statistic": "a.npz", "better": "higher"}
    problems = [str(problem) for problem in schema.validate(calculate_fid, given)]
    assert any("Did you mean 'statistics'" in problem for problem in problems)
    assert any(problem.startswith("better: got 'higher'") for problem in problems)


def test_without_weights_the_others_go_on(monkeypatch, tmp_path):
    monkeypatch.undo()
    for name in ("XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    monkeypatch.delenv("GPEN_PLUGIN_WEIGHTS", raising=False)
    img = np.random.default_rng(99).integers(0, 256, (5, 7, 3), dtype=np.uint8)  # seen by no other test
    assert math.isnan(calculate_fid(img=img, img2=img))
