"""The metrics in a training and a test of BasicSR's own model, of which this package changes nothing."""

import logging
import math
import re
import sys
from pathlib import Path

import basicsr.test
import cv2
import numpy as np
import pytest
from basicsr.utils import logger as host_logger
from scipy.linalg import sqrtm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpen_plugin.errors import MissingFileError
from gpen_plugin.metrics import base, fid
from gpen_plugin.nets import inception

IMAGES, SIDE = 4, 32
OF_SETS = {
    "fid": {"type": "calculate_fid", "better": "lower"},
    "kid": {"type": "calculate_kid", "better": "lower"},
    "swd": {"type": "calculate_swd", "better": "lower"},
}
OF_PAIRS = {
    "lpips": {"type": "calculate_lpips", "better": "lower"},
    "identity": {"type": "calculate_identity"},
    "lmd": {"type": "calculate_lmd", "better": "lower"},
}


def features_of(image: np.ndarray) -> np.ndarray:
    """Three means and three deviations, in place of the network's features: (6,) float32."""
    return np.concatenate([image.mean(axis=(0, 1)), image.std(axis=(0, 1))]).astype(np.float32)


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, tmp_path):
    for name in ("XDG_CACHE_HOME", "TORCH_HOME", "GPEN_PLUGIN_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    base._warn_once.cache_clear()
    for store in ("_restored", "_ground_truth"):
        monkeypatch.setattr(fid, store, fid.ContentCache(99))


@pytest.fixture
def seen(monkeypatch) -> list[np.ndarray]:
    """A stand-in for the network, and the images that it was shown."""
    images = []

    def extract(batch, device, weights):
        images.extend(batch)
        return np.stack([features_of(image) for image in batch])

    monkeypatch.setattr(inception, "extract_features", extract)
    return images


@pytest.fixture
def sr_options(tmp_path) -> dict:
    """Options of four iterations of the host's model for super-resolution, validated twice."""
    for folder, side in (("gt", SIDE), ("lq", SIDE // 2)):
        (tmp_path / folder).mkdir()
        for i in range(IMAGES):
            image = np.random.default_rng(i).integers(0, 200 + 10 * i, (SIDE, SIDE, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / folder / f"{i}.png"), cv2.resize(image, (side, side)))
    data = {
        "type": "PairedImageDataset",
        "dataroot_gt": str(tmp_path / "gt"),
        "dataroot_lq": str(tmp_path / "lq"),
        "io_backend": {"type": "disk"},
    }
    augmentation = {"gt_size": 16, "use_hflip": False, "use_rot": False}
    loader = {"num_worker_per_gpu": 0, "batch_size_per_gpu": 1, "dataset_enlarge_ratio": 1}
    network = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2}
    return {
        "name": "sr",
        "model_type": "SRModel",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {"train": {**data, **augmentation, **loader, "name": "train"}, "val": {**data, "name": "val"}},
        "network_g": {"type": "MSRResNet", **network},
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "ema_decay": 0,
            "total_iter": 4,
            "optim_g": {"type": "Adam", "lr": 0.02},
            "scheduler": {"type": "MultiStepLR", "milestones": [9]},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
        "val": {"val_freq": 2, "save_img": True, "suffix": None, "metrics": {**OF_SETS, **OF_PAIRS}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 4, "use_tb_logger": True},
    }


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """The formula as it is usually computed."""
    (mean1, cov1), (mean2, cov2) = ((x.mean(axis=0), np.cov(x, rowvar=False)) for x in (one, other))
    common = np.trace(sqrtm(cov1 @ cov2)).real
    return np.square(mean1 - mean2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * common


def kernel(one: np.ndarray, other: np.ndarray) -> float:
    """The same of KID, times 1000."""
    within = [((x @ x.T / 6 + 1) ** 3)[~np.eye(len(x), dtype=bool)].mean() for x in (one, other)]
    return 1000 * (sum(within) - 2 * ((one @ other.T / 6 + 1) ** 3).mean())


def features_in(paths: list[Path]) -> np.ndarray:
    assert len(paths) == IMAGES
    return np.stack([features_of(cv2.imread(str(path))) for path in paths]).astype(np.float64)


def logged(folder: Path, name: str) -> list[float]:
    events = EventAccumulator(str(folder.parents[1] / "tb_logger" / folder.name))
    events.Reload()
    return [event.value for event in events.Scalars(f"metrics/val/{name}")]


def test_in_a_training(sr_options, train, seen, tmp_path):
    folder = train(sr_options)
    truth = features_in(sorted((tmp_path / "gt").iterdir()))
    values = {name: logged(folder, name) for name in (*OF_SETS, *OF_PAIRS)}
    for number, iteration in enumerate((2, 4)):
        restored = features_in(sorted((folder / "visualization").glob(f"*/*_{iteration}.png")))
        assert values["fid"][number] == pytest.approx(frechet(restored, truth), rel=1e-4)
        assert values["kid"][number] == pytest.approx(kernel(restored, truth), rel=1e-4)
    assert values["fid"][0] != values["fid"][1]
    assert min(values["swd"]) > 0
    assert all(math.isnan(value) for name in OF_PAIRS for value in values[name])
    assert len(seen) == 3 * IMAGES  # the truth once, whatever asks for it
    (log,) = folder.glob("train_*.log")
    lines = log.read_text()
    best = float(re.findall(r"# fid: \S+\s+Best: (\S+) @", lines)[-1])
    assert best == pytest.approx(min(values["fid"]), rel=1e-4)
    assert lines.count("gives no values") == len(OF_PAIRS)
    assert "# lpips: nan\tBest: inf @ -1 iter" in lines


@pytest.mark.parametrize("known", [{0, 1, 2, 3}, {0, 1}, {2, 3}, {1}])
def test_in_a_test(sr_options, write_options, monkeypatch, tmp_path, known):
    """Weights may come or go while images are measured: then the set has no value, and the test goes on."""
    asked = []

    def extract(batch, device, weights):
        asked.append(batch)
        if len(asked) - 1 not in known:
            raise MissingFileError("weights", "away", hint="Put them there.")
        return np.stack([features_of(image) for image in batch])

    monkeypatch.setattr(inception, "extract_features", extract)
    truth = features_in(sorted((tmp_path / "gt").iterdir()))
    np.savez(tmp_path / "truth.npz", mu=truth.mean(axis=0), sigma=np.cov(truth, rowvar=False))
    options = {key: sr_options[key] for key in ("name", "model_type", "scale", "num_gpu", "manual_seed", "network_g")}
    options |= {"datasets": {"test_1": sr_options["datasets"]["val"]}, "path": {"pretrain_network_g": None}}
    metrics = {"fid": {**OF_SETS["fid"], "statistics": str(tmp_path / "truth.npz")}, "swd": OF_SETS["swd"]}
    options["val"] = {"save_img": True, "suffix": "out", "metrics": metrics}
    host_logger.initialized_logger.clear()
    logging.getLogger("basicsr").handlers.clear()
    monkeypatch.setattr(sys, "argv", ["test.py", "-opt", str(write_options(options))])
    basicsr.test.test_pipeline(str(tmp_path))
    assert len(asked) == IMAGES
    (log,) = (tmp_path / "results" / "sr").glob("test_*.log")
    fid, swd = (float(re.search(rf"# {name}: (\S+)", log.read_text())[1]) for name in metrics)
    assert swd > 0
    restored = features_in(sorted((tmp_path / "results" / "sr" / "visualization" / "val").iterdir()))
    expected = frechet(restored, truth) if len(known) == IMAGES else math.nan
    assert fid == pytest.approx(expected, rel=1e-4, nan_ok=True)
