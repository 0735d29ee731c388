"""What an option file has to say about a metric of the validation."""

import numpy as np
import pytest
from basicsr.metrics import calculate_niqe

from gpen_plugin.errors import GPENError
from gpen_plugin.metrics.base import NIQE_MIN_SIDE
from gpen_plugin.preflight import check_run


def check(options: dict, *, is_train: bool = True, **metric) -> None:
    options["val"]["metrics"] = {"it": metric}
    check_run({**options, "is_train": is_train, "dist": False, "auto_resume": False})


@pytest.fixture
def statistics(tmp_path) -> str:
    features = np.random.default_rng(0).normal(size=(9, 4))
    moments = {"mu": features.mean(axis=0), "sigma": np.cov(features, rowvar=False)}
    np.savez(tmp_path / "moments.npz", **moments)
    np.savez(tmp_path / "all.npz", **moments, features=features)
    return str(tmp_path)


@pytest.mark.parametrize("name", ["lpips", "lmd", "fid", "kid", "swd"])
def test_of_distances_the_lower_is_better(options, name):
    check(options, type=f"calculate_{name}", better="lower")
    with pytest.raises(GPENError, match="val:metrics:it:better: missing, which means higher; expected lower"):
        check(options, type=f"calculate_{name}")
    with pytest.raises(GPENError, match="val:metrics:it:better: got higher; expected lower"):
        check(options, type=f"calculate_{name}", better="higher")


@pytest.mark.parametrize(
    ("right", "wrong", "best"),
    [
        ({}, {"better": "lower"}, "higher"),
        ({"better": "higher"}, {"unit": "cosine", "better": "lower"}, "higher"),
        ({"unit": "degrees", "better": "lower"}, {"unit": "degrees"}, "lower"),
    ],
)
def test_which_identity_is_better_depends_on_its_unit(options, right, wrong, best):
    check(options, type="calculate_identity", **right)
    with pytest.raises(GPENError, match=f"val:metrics:it:better: .*expected {best}"):
        check(options, type="calculate_identity", **wrong)


def test_of_psnr_the_higher_is_better(options):
    with pytest.raises(GPENError, match="val:metrics:it:better: got lower; expected higher"):
        check(options, type="calculate_psnr", crop_border=0, better="lower")


@pytest.mark.parametrize("name", ["lpips", "identity", "lmd"])
def test_samples_of_a_prior_have_no_partners(prior_options, name):
    better = {} if name == "identity" else {"better": "lower"}
    with pytest.raises(
        GPENError, match=r"it:type: got calculate_\w+, which compares .* Use calculate_swd, calculate_fid"
    ):
        check(prior_options, type=f"calculate_{name}", **better)


@pytest.mark.parametrize("name", ["fid", "kid"])
def test_samples_of_a_prior_are_a_set(prior_options, statistics, name):
    check(prior_options, type=f"calculate_{name}", better="lower")
    check(prior_options, type=f"calculate_{name}", better="lower", statistics=f"{statistics}/all.npz")


@pytest.mark.parametrize("name", ["lpips", "identity", "lmd", "fid", "kid", "swd"])
def test_what_needs_ground_truth(test_options, faces, statistics, name):
    test_options["datasets"]["test_2"] = {
        "name": "wild",
        "type": "SingleImageDataset",
        "dataroot_lq": str(faces),
        "io_backend": {"type": "disk"},
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    better = {} if name == "identity" else {"better": "lower"}
    hint = "Give the metric statistics" if name in ("fid", "kid") else "Remove the metric or the set"
    with pytest.raises(GPENError, match=f"it: needs ground truth, which datasets:test_2 lacks.* {hint}"):
        check(test_options, is_train=False, type=f"calculate_{name}", **better)
    if name in ("fid", "kid"):
        path = f"{statistics}/all.npz"
        check(test_options, is_train=False, type=f"calculate_{name}", statistics=path, **better)


def test_statistics_are_looked_into(options, statistics):
    check(options, type="calculate_fid", better="lower", statistics=f"{statistics}/moments.npz")
    with pytest.raises(
        GPENError, match=r"val:metrics:it:statistics: .*holds only mean and covariance; expected the features"
    ):
        check(options, type="calculate_kid", better="lower", statistics=f"{statistics}/moments.npz")
    with pytest.raises(GPENError, match=r"val:metrics:it:statistics: .*none\.npz cannot be read"):
        check(options, type="calculate_fid", better="lower", statistics=f"{statistics}/none.npz")


def test_named_files_have_to_be_there_and_published_ones_may_come_later(options, monkeypatch, tmp_path):
    for name in ("XDG_CACHE_HOME", "TORCH_HOME", "GPEN_PLUGIN_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path))
    check(options, type="calculate_lpips", better="lower")
    (tmp_path / "mine.pth").touch()
    check(options, type="calculate_lpips", better="lower", weights=str(tmp_path / "mine.pth"))
    for kind, key in (("lpips", "weights"), ("identity", "onnx"), ("lmd", "model")):
        better = {} if kind == "identity" else {"better": "lower"}
        with pytest.raises(GPENError, match=rf"val:metrics:it:{key}: /not/there\.file is not there; expected a file"):
            check(options, type=f"calculate_{kind}", **better, **{key: "/not/there.file"})


@pytest.mark.filterwarnings("ignore")
def test_how_small_images_the_hosts_niqe_takes():
    """One block of 96 px has no covariance: below two blocks a side the host fails, and a training with it."""
    image = np.random.default_rng(0).integers(0, 256, (NIQE_MIN_SIDE, NIQE_MIN_SIDE, 3), np.uint8)
    assert np.isfinite(calculate_niqe(image, 0))
    with pytest.raises(np.linalg.LinAlgError, match="not converge"):
        calculate_niqe(image[1:, 1:], 0)


def test_metrics_of_others_may_name_what_is_no_file(options):
    from basicsr.utils.registry import METRIC_REGISTRY

    def calculate_quality(img, weights):
        """Somebody else's."""

    METRIC_REGISTRY.register(calculate_quality)
    try:
        check(options, type="calculate_quality", weights="imagenet")
    finally:
        del METRIC_REGISTRY._obj_map["calculate_quality"]


def test_recognizer_options_are_checked_before_the_run(options, tmp_path):
    (tmp_path / "face.onnx").touch()
    check(options, type="calculate_identity", onnx=str(tmp_path / "face.onnx"))
    with pytest.raises(GPENError, match="val:metrics:it:weights: missing; expected the path of the network's weights"):
        check(options, type="calculate_identity", network={"type": "ResNetArcFace"})
