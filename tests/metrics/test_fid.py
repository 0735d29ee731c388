"""FID: the distance, the metric, sets of features, and files of statistics of all three kinds."""

import math
import os
import pickle

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from scipy.linalg import sqrtm

from gpen_plugin.config import schema
from gpen_plugin.errors import DataError, OptionError, ShapeError
from gpen_plugin.metrics import fid
from gpen_plugin.metrics.fid import (
    FeatureAccumulator,
    FeatureStats,
    Gaussian,
    calculate_fid,
    frechet_distance,
    read_statistics,
)
from gpen_plugin.nets import inception

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

    monkeypatch.setattr(inception, "extract_features", extract)
    for store in ("_restored", "_ground_truth"):
        monkeypatch.setattr(fid, store, fid.ContentCache(99))


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


def test_wrong_options_raise_at_first_image(tmp_path):
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


def noise_image(seed: int, height: int = 40, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Sets(FeatureAccumulator):
    """Counts its pairs, so that the arithmetic can be seen."""

    def value(self) -> float:
        return float(len(self))


@pytest.fixture
def asked(monkeypatch) -> list[np.ndarray]:
    """The images that a stand-in for the network was asked about; an image's features are its mean and size."""
    seen = []

    def extract(images, device, weights):
        seen.extend(images)
        return np.array([[p.mean(), len(p)] for p in images], np.float32)

    monkeypatch.setattr(inception, "extract_features", extract)
    for store in ("_restored", "_ground_truth"):
        monkeypatch.setattr(fid, store, fid.ContentCache(4))
    return seen


def sets_of(img, img2=None, statistics=None) -> Sets:
    return Sets.of_images(img, img2, statistics=statistics, weights=None, device="cpu")


def test_pairs_come_in_an_order_that_the_contents_decide(asked):
    pairs = [(noise_image(i), noise_image(10 + i, 24, 30)) for i in range(5)]
    one = sum(sets_of(*pair) for pair in pairs)
    other = sum(pickle.loads(pickle.dumps(sets_of(*pair))) for pair in reversed(pairs))
    np.testing.assert_array_equal(one.features(), other.features())
    np.testing.assert_array_equal(one.real_features(), other.real_features())
    means = {p.mean(dtype=np.float64): q.mean(dtype=np.float64) for p, q in pairs}
    for own, real in zip(one.features(), one.real_features(), strict=True):
        assert real[0] == pytest.approx(min(means.items(), key=lambda item: abs(item[0] - own[0]))[1], rel=1e-6)
    assert one / 5 == 5.0


def test_ground_truth_is_computed_once(asked):
    truth = noise_image(9)
    for seed in range(6):  # more than are remembered of what is not ground truth
        sets_of(noise_image(seed), truth)
        sets_of(noise_image(seed), truth)  # by another metric
    assert sum(np.array_equal(p, truth) for p in asked) == 1
    assert len(asked) == 7


def test_with_statistics_ground_truth_does_not_count(asked):
    one, other = sets_of(noise_image(0), noise_image(1), "a.npz"), sets_of(noise_image(0), None, "a.npz")
    assert one._records[0][0] == other._records[0][0]
    assert len(asked) == 1
    with pytest.raises(AssertionError, match=r"a\.npz and b\.npz in one sum"):
        one + sets_of(noise_image(0), None, "b.npz")


def test_missing_or_invalid_ground_truth_is_an_error(asked):
    with pytest.raises(OptionError, match="statistics: missing, and there is no ground truth; expected one of the two"):
        sets_of(noise_image(0))
    with pytest.raises(ShapeError, match=r"img: got shape \(40, 40\) of uint8"):
        sets_of(noise_image(0)[:, :, 0], noise_image(1))
    with pytest.raises(ShapeError, match=r"img2: got shape \(40, 40, 3\) of float64"):
        sets_of(noise_image(0), noise_image(1) / 255)


FEATURES = np.random.default_rng(0).normal(3, 2, (50, 6)).astype(np.float32)
MEAN, COVARIANCE = FEATURES.mean(axis=0), np.cov(FEATURES, rowvar=False)


def test_moments_do_not_depend_on_the_parts():
    moments = FeatureStats(6)
    for part in np.split(FEATURES + 1000, [1, 20, 21]):
        moments.add(part)
    expected = (FEATURES + 1000).astype(np.float64)
    assert moments.count == 50
    np.testing.assert_allclose(moments.mean, expected.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance(), np.cov(expected, rowvar=False), rtol=1e-10)


def write_pytorch_fids(path):
    np.savez_compressed(path, mu=MEAN, sigma=COVARIANCE)


def write_basicsrs(path):
    """As the host's own script does."""
    content = {"name": "ffhq", "size": 512, "mean": MEAN, "cov": COVARIANCE}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_basicsrs_of_numpy_1(path):
    write_basicsrs(path)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content or b"numpy.core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


@pytest.mark.parametrize(
    ("write", "name", "called"),
    [
        (write_pytorch_fids, "a.npz", "a"),
        (write_basicsrs, "a.pth", "ffhq"),
        (write_basicsrs_of_numpy_1, "a.pth", "ffhq"),
    ],
)
def test_files_of_others(tmp_path, write, name, called):
    write(tmp_path / name)
    statistics = read_statistics(tmp_path / name)
    np.testing.assert_array_equal(statistics.mean, MEAN.astype(np.float64))
    np.testing.assert_array_equal(statistics.covariance, COVARIANCE)
    assert (statistics.name, statistics.count, statistics.features) == (called, None, None)
    with pytest.raises(
        OptionError, match=r"val:metrics:kid:statistics: .*only mean and covariance.*fid_stats\.py --features"
    ):
        read_statistics(tmp_path / name, "val:metrics:kid:statistics", with_features=True)


def test_a_file_is_read_again_when_it_has_changed(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, mu=MEAN, sigma=COVARIANCE)
    first = read_statistics(path)
    assert read_statistics(path) is first
    np.savez(path, mu=MEAN + 1, sigma=COVARIANCE)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(read_statistics(path).mean, (MEAN + 1).astype(np.float64))


def test_files_below_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_pytorch_fids(tmp_path / "a.npz")
    assert read_statistics("~/a.npz").name == "a"


def test_features_of_another_network_are_refused(tmp_path):
    write_pytorch_fids(tmp_path / "a.npz")
    assert read_statistics(tmp_path / "a.npz", dimensions=6).name == "a"
    with pytest.raises(ShapeError, match=r"statistics: .*a\.npz is of 6 features; expected 2048, as this metric"):
        read_statistics(tmp_path / "a.npz", dimensions=2048)


class Malice:
    def __reduce__(self):
        return (os.mkdir, ("malice_was_here",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"mu": MEAN}, "holds mu; expected a file of datasets_prep/fid_stats.py, pytorch-fid"),
        ({"mu": MEAN, "sigma": COVARIANCE[:3]}, r"has a mean of shape \(6,\) and a covariance of \(3, 6\)"),
        ({"mu": MEAN * np.nan, "sigma": COVARIANCE}, ".* finite values"),
        ({"mu": np.array([Malice()]), "sigma": COVARIANCE}, r"cannot be read \(ValueError\)"),
        ({"mu": MEAN, "sigma": COVARIANCE, "count": "many"}, r"cannot be read \(ValueError\)"),
        ({"mu": MEAN, "sigma": COVARIANCE, "features": MEAN}, r"has features of shape \(6,\); expected \(N, 6\)"),
    ],
)
def test_wrong_contents_are_named(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", **content)
    with pytest.raises(DataError, match=rf"a\.npz: {message}"):
        read_statistics("a.npz")
    assert os.listdir() == ["a.npz"]


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"statistics: .*b\.npz cannot be read \(No such file"):
        read_statistics(tmp_path / "b.npz")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(DataError, match=r"b\.npz: cannot be read"):
        read_statistics(tmp_path / "b.npz")
    np.save(tmp_path / "b.npy", FEATURES)
    with pytest.raises(DataError, match=r"b\.npy: cannot be read \(TypeError\); expected a file of datasets_prep"):
        read_statistics(tmp_path / "b.npy")
    (tmp_path / "b.pth").write_bytes(pickle.dumps({"mean": Malice()}, 2))
    with pytest.raises(DataError, match=r"b\.pth: cannot be read, or is not safe to read .*; expected a file of"):
        read_statistics(tmp_path / "b.pth")
