"""The option files of the other tasks, shrunk to 32 px: the host trains and validates with each."""

import re

import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers import REPOSITORY
from helpers.small_networks import built

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.data.segmentation_labels import PALETTE
from gpen_plugin.host import registered
from gpen_plugin.preflight import check_run
from gpen_plugin.restore.network import from_network
from gpen_plugin.restore.restorer import Restorer

FILES = ["gpen_colorize_1024", "gpen_inpaint_1024", "gpen_seg2face_512"]
SMALL = {"num_style_feat": 16, "num_mlp": 2}


@pytest.fixture
def maps(faces, tmp_path):
    """A map for each face: skin in an ellipse, an eye on the left."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for path in faces.iterdir():
        labels = np.zeros((32, 32), np.uint8)
        cv2.ellipse(labels, (16, 16), (9, 12), 0, 0, 360, 1, -1)
        cv2.circle(labels, (12, 13), 2, 4, -1)
        cv2.imwrite(str(folder / path.name), labels)
    return folder


@pytest.fixture
def small(faces, maps):
    """An option file at 32 px on the CPU, the widths in the ratio that they have."""

    def shrink(name: str) -> dict:
        options = yaml.safe_load((REPOSITORY / f"options/{name}.yml").read_text())
        options["num_gpu"] = 0
        for data in options["datasets"].values():
            data |= {"dataroot_gt": str(faces), "io_backend": {"type": "disk"}, "out_size": 32}
            if "dataroot_lq" in data:
                data["dataroot_lq"] = str(maps)
        loader = {"num_worker_per_gpu": 0, "persistent_workers": False, "pin_memory": False, "batch_size_per_gpu": 2}
        options["datasets"]["train"] |= loader
        options["datasets"]["val"]["num_images"] = 2
        for section in ("network_g", "network_d"):
            options[section] |= {"out_size": 32, "narrow": options[section]["narrow"] / 32}
        options["network_g"] |= SMALL
        options["path"] |= {"pretrain_prior": None, "pretrain_network_d": None}
        options["train"]["total_iter"] = 2
        options["val"] |= {"val_freq": 2, "grid_images": 2}
        options["val"]["metrics"].pop("niqe")  # needs larger images
        options["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 2}
        return options

    return shrink


@pytest.mark.parametrize("name", FILES)
def test_the_host_trains_and_validates(small, train, name):
    folder = train(small(name))
    assert (folder / "models/net_g_2.pth").is_file()
    log = next(folder.glob("train_*.log")).read_text()
    metric = "swd" if "seg2face" in name else "psnr"
    assert re.search(rf"# {metric}: \d", log)
    assert "nonfinite_steps" not in log
    if "seg2face" in name:  # the page shows maps in their colors
        (page,) = folder.glob("visualization/grid_*_2.png")
        assert (cv2.imread(str(page)) == PALETTE[1][::-1]).all(axis=2).mean() > 0.01


@pytest.mark.parametrize("name", FILES)
def test_the_sets_draw_from_the_runs_seed(small, parse_train, name):
    assert parse_train(small(name) | {"manual_seed": 7})["datasets"]["train"]["seed"] == 7


@pytest.fixture
def parse_train(tmp_path, monkeypatch, write_options):
    """The host's parser on options of a training."""
    from basicsr.utils.options import parse_options

    def run(options: dict) -> dict:
        monkeypatch.setattr("sys.argv", ["train.py", "-opt", str(write_options(options))])
        return parse_options(str(tmp_path))[0]

    return run


@pytest.mark.parametrize("name", FILES)
def test_another_value_range_is_fine_and_a_reversed_one_an_error(small, name):
    options = small(name) | {"is_train": True, "dist": False, "auto_resume": False}
    options["datasets"]["val"]["value_range"] = [0, 1]
    check_run(options)
    options["datasets"]["val"]["value_range"] = [1, 0]
    with pytest.raises(ValueError, match=r"datasets:val:value_range: got \[1, 0\]; expected the smaller number first"):
        check_run(options)


def test_a_map_is_shown_to_the_network_as_in_its_training(small, maps, tmp_path):
    options = small("gpen_seg2face_512")
    net = built(lambda: GPEN(**{key: value for key, value in options["network_g"].items() if key != "type"})).eval()
    torch.save(net.state_dict(), tmp_path / "net_g.pth")
    item = registered("dataset")["GPENSegmentationDataset"](options["datasets"]["val"] | {"phase": "val"})[0]
    with torch.no_grad():
        expected = from_network(net(item["lq"][None])[0])
    given = Restorer(tmp_path / "net_g.pth", task="seg2face", device="cpu").restore(item["lq_path"], aligned=True)
    assert np.abs(given.image.astype(int) - expected).max() <= 1
