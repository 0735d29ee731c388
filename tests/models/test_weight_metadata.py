"""What the weight files of a training state."""

import pytest
import torch
from helpers.small_networks import built
from test_preflight import parsed

from gpen_plugin import GPEN, GPENColorizationDataset, GPENInpaintingDataset, GPENSegmentationDataset
from gpen_plugin.checkpoints import checkpoint, download, metadata
from gpen_plugin.checkpoints.checkpoint import describe, report
from gpen_plugin.checkpoints.metadata import Conventions
from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.errors import GPENError
from gpen_plugin.preflight import check_run
from gpen_plugin.restore.network import open_network
from gpen_plugin.restore.tasks import TASKS


@pytest.fixture
def short(options):
    """One iteration of fine-tuning a file that states an alignment, a task and a license."""
    options["train"]["total_iter"] = 1
    options["val"] = None
    options["network_g"]["value_range"] = [0, 1]
    return options


def start(options, folder):
    arguments = {name: value for name, value in options["network_g"].items() if name != "type"}
    net = built(lambda: GPEN(**arguments))
    stated = describe(net, conventions=metadata.stated(Conventions((0, 1), "colorize", "dlib", 0.5)), license="CC0")
    content = {key: dict(net.state_dict()) for key in ("params", "params_ema")}
    checkpoint.write(folder / "start.pth", content, stated)
    options["path"]["pretrain_network_g"] = str(folder / "start.pth")


def test_files_state_the_training(short, train, tmp_path):
    start(short, tmp_path)
    folder = train(short, tmp_path / "one") / "models"
    stated = metadata.read(folder / "net_g_latest.pth")
    assert (stated.title, stated.data, stated.license) == ("small", "train", "CC0")
    assert stated.conventions == {"value_range": (0, 1), "task": "restore", "template": "dlib", "alpha": 0.5}
    size = short["network_g"]["out_size"]
    assert (stated.arguments["out_size"], stated.arguments["value_range"]) == (size, [0, 1])
    text, sound = report(folder / "net_g_latest.pth")
    assert sound
    assert ": as stated" in text
    network = open_network(folder / "net_g_latest.pth", device="cpu")
    assert (network.value_range, network.template) == ((0, 1), "dlib")
    of_d = metadata.read(folder / "net_d_latest.pth")
    assert (of_d.architecture, of_d.conventions, of_d.license) == ("GPENDiscriminator", {}, None)
    assert of_d.arguments["stddev_group"] == 4
    assert set(torch.load(folder / "net_d_latest.pth", weights_only=True)) == {"params"}


def test_template_of_the_data_wins_over_a_start_from_the_hub(short, train, tmp_path, monkeypatch):
    start(short, tmp_path)
    monkeypatch.setattr(download, "_download_from_hub", {"hf:user/repo/start.pth": tmp_path / "start.pth"}.get)
    short["path"]["pretrain_network_g"] = "hf:user/repo/start.pth"
    short["datasets"]["train"]["template"] = "gpen"
    folder = train(short, tmp_path / "one") / "models"
    stated = metadata.read(folder / "net_g_latest.pth")
    assert (stated.conventions["template"], stated.license) == ("gpen", "CC0")


def test_unknown_template_is_refused_before_the_run(short):
    short["datasets"]["train"]["template"] = "celeba"
    with pytest.raises(GPENError, match="datasets:train:template: got 'celeba'; expected one of ffhq"):
        check_run(parsed(short))


def test_task_of_a_data_set_is_one_of_the_tasks():
    classes = (GPENDegradationDataset, GPENColorizationDataset, GPENInpaintingDataset, GPENSegmentationDataset)
    assert [cls.task for cls in classes] == list(TASKS)
