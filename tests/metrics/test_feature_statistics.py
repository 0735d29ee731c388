"""Files of statistics of all three kinds, and moments in parts."""

import os
import pickle

import numpy as np
import pytest
import torch

from gpen_plugin.errors import DataError, OptionError, ShapeError
from gpen_plugin.metrics.fid import FeatureStats, read_statistics

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
    with pytest.raises(OptionError, match=r"val:metrics:kid:statistics: .*moments alone.*fid_stats\.py --features"):
        read_statistics(tmp_path / name, "val:metrics:kid:statistics", with_features=True)


def test_a_file_is_read_again_when_it_has_changed(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, mu=MEAN, sigma=COVARIANCE)
    first = read_statistics(path)
    assert read_statistics(path) is first
    np.savez(path, mu=MEAN + 1, sigma=COVARIANCE)
    os.utime(path, ns=(1, 1))
    np.testing.assert_allclose(read_statistics(path).mean, first.mean + 1)


def test_files_below_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_pytorch_fids(tmp_path / "a.npz")
    assert read_statistics("~/a.npz").name == "a"


def test_features_of_another_network_are_refused(tmp_path):
    write_pytorch_fids(tmp_path / "a.npz")
    assert read_statistics(tmp_path / "a.npz", dimensions=6).name == "a"
    with pytest.raises(ShapeError, match=r"statistics: .*a\.npz is of 6 features; expected 2048, the last"):
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
