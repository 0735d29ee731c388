"""Runs of BasicSR that have nothing to do with GPEN are the same with this package and without it."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from test_host_checkouts import make_checkout

from gpen_plugin.errors import OptionError
from gpen_plugin.host import names_ours, resolve, trains_ours

SHARDS = """
import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY

@DATASET_REGISTRY.register()
class ShardsDataset(torch.utils.data.Dataset):
    '''Its root is a pattern, no path, and its batches hold no tensors: a list of pairs.'''

    def __init__(self, opt):
        self.opt = opt
        self.faces = np.concatenate([np.load(opt["dataroot_gt"].format(i)) for i in range(2)])

    def __len__(self):
        return len(self.faces)

    def __getitem__(self, index):
        gt = torch.from_numpy(self.faces[index] + np.random.rand() * 0.1).float()
        return {"pair": [gt[:, ::2, ::2], gt], "lq_path": f"{index}.png"}
"""
MODEL = """
import os
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import MODEL_REGISTRY

@MODEL_REGISTRY.register()
class OwnModel(SRModel):
    def __init__(self, opt):
        super().__init__(opt)
        assert self.opt["network_ema"] == {"decay": 0.99}
        with open(os.path.join(self.opt["path"]["pretrain_samples"], "first.txt"), "w") as file:
            file.write(str(self.opt["path"]["pretrain_teacher"]))

    def feed_data(self, data):
        self.lq, self.gt = data["pair"]
"""
METRIC = """
from basicsr.metrics import psnr_ssim
from basicsr.utils.registry import METRIC_REGISTRY

@METRIC_REGISTRY.register()
def calculate_lpips(img, img2, **kwargs):
    return 0.25
"""
# its own metric comes after BasicSR, and with it this package, was imported
SCRIPT = """
import sys

import basicsr, own_metric
from basicsr.train import train_pipeline

print("plugin:", "gpen_plugin" in sys.modules)
train_pipeline(".")
"""


def options_of_another_project(shards: str, samples: str) -> dict:
    data = {"type": "ShardsDataset", "dataroot_gt": shards, "io_backend": {"type": "disk"}}
    loader = {"num_worker_per_gpu": 0, "batch_size_per_gpu": 2, "dataset_enlarge_ratio": 1}
    return {
        "name": "other",
        "model_type": "OwnModel",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 1,
        "datasets": {"train": {**data, **loader, "name": "train"}, "val": {**data, "name": "val"}},
        "network_g": {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1, "upscale": 2},
        "network_ema": {"decay": 0.99},
        "path": {
            "pretrain_teacher": "hf_me/{teacher}",
            "pretrain_samples": samples,
            "pretrain_network_g": None,
            "resume_state": None,
        },
        "train": {
            "ema_decay": 0.9,
            "total_iter": 12,
            "optim_g": {"type": "Adam", "lr": 1e-3},
            "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [20], "restart_weights": [1], "eta_min": 0.0},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
        "val": {
            "val_freq": 4,
            "save_img": True,
            "suffix": None,
            "metrics": {"lpips": {"type": "calculate_lpips"}, "psnr": {"type": "calculate_psnr", "crop_border": 0}},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 4, "use_tb_logger": False},
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A checkout of BasicSR with a model and a data set of somebody else, which starts without this package, too."""
    folder = tmp_path_factory.mktemp("project")
    make_checkout(folder, master=True)
    (folder / "basicsr/data/shards_dataset.py").write_text(SHARDS)
    (folder / "basicsr/models/own_model.py").write_text(MODEL)
    (folder / "own_metric.py").write_text(METRIC)
    (folder / "own_train.py").write_text(SCRIPT)
    faces = np.random.default_rng(0).random((5, 3, 8, 8), np.float32)
    np.save(folder / "f-0.npy", faces[:3])
    np.save(folder / "f-1.npy", faces[3:])
    return folder


# Without the package: as a Python without its start-up hook.
WITHOUT_HOOK = """
import os, runpy, sys

sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "gpen_plugin_hook"]
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def outcome(folder: Path) -> tuple[str, list[str], dict]:
    """Of a run in a folder: its log without times, the files that it wrote, and the weights."""
    (experiment,) = (folder / "experiments").iterdir()
    log = next(experiment.glob("*.log")).read_text()
    log = re.sub(r"(?m)^.*?(INFO|WARNING): |, time \(data\).*?\]|eta: [\d:]+|Time consumed: .*", "", log)
    files = [path.relative_to(folder) for path in folder.rglob("*")]
    names = sorted({re.sub(r"\d{8}_\d{6}", "TIME", str(path)) for path in files})
    states = {path.name: torch.load(path, weights_only=True) for path in experiment.rglob("net_g_*.pth")}
    return log, names, states


def test_a_run_of_another_project_is_the_same_to_the_last_digit(project, tmp_path, clean_python):
    """Five images in batches of two, with which the host ends early; a date is a text to it; its seed is the file's."""
    options = options_of_another_project(f"{project}/f-{{}}.npy", "samples")
    words = (str(project / "own_train.py"), "-opt", "options.yml", "--force_yml", "manual_seed=5", "name=2026-11-29")
    for name, code in {"with": (), "without": ("-c", WITHOUT_HOOK)}.items():
        (tmp_path / name).mkdir()
        text = yaml.safe_dump(options, sort_keys=False) + "num_gpu: 0\n"  # the host takes the last of two
        (tmp_path / name / "options.yml").write_text(text)
        ended = clean_python.run(*code, *words, cwd=tmp_path / name, PYTHONPATH=str(project))
        assert ended.returncode == 0, ended.stderr
        assert f"plugin: {name == 'with'}" in ended.stdout
    assert not (project / "experiments").exists()
    log, names, states = outcome(tmp_path / "with")
    log_without, names_without, states_without = outcome(tmp_path / "without")
    assert log == log_without
    assert len(re.findall(r"l_pix: \d", log)) > 5
    assert names == names_without
    assert states.keys() == states_without.keys()
    for name, state in states.items():
        for key, tensors in state.items():
            for tensor, other in zip(tensors.values(), states_without[name][key].values(), strict=True):
                torch.testing.assert_close(tensor, other, rtol=0, atol=0)


VIDEO = {"type": "VideoTestDataset", "dataroot_gt": "nowhere/GT", "dataroot_lq": "nowhere/LQ", "name": "v"}
PAIRS = {"type": "PairedImageDataset", "dataroot_gt": "nowhere.lmdb", "dataroot_lq": "{x}", "name": "p"}
KINDS = {  # of BasicSR's own option files, with what is not there and what only the host or another package knows
    "names with a suffix": {
        "model_type": "RealESRGANModel",
        "datasets": {"train": {"type": "RealESRGANDataset", "dataroot_gt": "nowhere", "meta_info": "m", "name": "r"}},
        "network_g": {"type": "RRDBNet"},
        "network_d": {"type": "UNetDiscriminatorSN"},
        "path": {"pretrain_network_g": "nowhere.pth", "pretrain_network_d": None, "strict_load_g": True},
        "train": {"optim_g": {"type": "Adam", "lr": "1e-4"}, "scheduler": {"type": "Step"}, "gan_opt": {}},
        "val": {"val_freq": "5e3", "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": "4"}}},
        "logger": {"wandb": {"project": "p"}},
    },
    "a test": {
        "model_type": "VideoRecurrentModel",
        "datasets": {"test_1": VIDEO, "test_2": PAIRS},
        "network_g": {"type": "BasicVSR", "spynet_path": "nowhere.pth"},
        "path": {"pretrain_network_g": "nowhere/{name}.pth"},
        "val": {"suffix": None},
    },
    "another package's": {
        "model_type": "GFPGANModel",
        "datasets": {"train": {"type": "FFHQDegradationDataset", "dataroot_gt": "nowhere", "name": "f"}},
        "network_g": {"type": "GFPGANv1", "noise_mode": None, "value_range": [-1, 1]},
        "network_identity": {"type": "ResNetArcFace"},
        "network_d_left_eye": {"type": "FacialComponentDiscriminator"},
        "path": {"pretrain_network_identity": "hf://me/it", "pretrain_teacher": None},
        "train": {},
        "logger": {},
    },
    "no types at all": {
        "model_type": "Whatever",
        "datasets": {"train": {"name": "x", "dataroot_gt": "s/{0000..0001}.tar", "prefetch_mode": "cuda"}},
        "network_ema": {"decay": 0.99},
        "network_list": ["a"],
        "network_x": None,
        "path": {},
        "logger": {},
    },
}


@pytest.mark.parametrize("forced", [(), ("manual_seed=7", "name=2026-11-29", "path:new=-1")], ids=["", "forced"])
@pytest.mark.parametrize("kind", KINDS)
def test_options_of_other_runs_are_what_the_host_makes_of_them(tmp_path, monkeypatch, kind, forced):
    import basicsr.train

    options = {"name": "x", "num_gpu": 0, "manual_seed": 3, **KINDS[kind]}
    (tmp_path / "o.yml").write_text(yaml.safe_dump(options))
    words = ["train.py", "-opt", str(tmp_path / "o.yml"), *(("--force_yml", *forced) if forced else ())]
    monkeypatch.setattr(sys, "argv", words)
    hook = sys.excepthook
    results = []
    for parse in basicsr.train.parse_options, basicsr.train.parse_options.__gpen_original__:
        opt, _ = parse("/root", is_train="logger" in options)
        results.append((type(opt), opt, torch.initial_seed(), np.random.random()))
    assert results[0] == results[1]
    assert sys.excepthook is hook


def test_what_concerns_this_package():
    ours = {"type": "GPENDegradationDataset"}
    assert trains_ours({"model_type": "GPENModel"})
    assert names_ours({"model_type": "SRModel", "datasets": {"val_1": ours}})
    assert names_ours({"model_type": "SRModel", "network_g": {"type": "GPEN"}})
    assert not trains_ours({"model_type": "SRModel", "network_g": {"type": "GPEN"}, "datasets": {"train": ours}})
    assert not any(names_ours(options) for options in KINDS.values())


def test_names_are_found_as_the_host_finds_them():
    from basicsr.utils.registry import ARCH_REGISTRY

    assert resolve("arch", "UNetDiscriminatorSN") is ARCH_REGISTRY.get("UNetDiscriminatorSN")
    assert resolve("arch", "UNetDiscriminatorSN_basicsr") is ARCH_REGISTRY.get("UNetDiscriminatorSN")
    assert resolve("arch", "GPEN") is ARCH_REGISTRY.get("GPEN")
    assert [resolve("arch", name) for name in ("UNet", None, ["GPEN"], 3)] == [None] * 4


def test_broken_option_file_is_an_error_for_any_model(tmp_path, monkeypatch):
    import basicsr.train

    (tmp_path / "o.yml").write_text("model_type: SRModel\nname: [1\n")
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(tmp_path / "o.yml")])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(OptionError, match=r"-opt: is not YAML: .*line 2"):
        basicsr.train.parse_options(str(tmp_path))


def test_a_class_of_another_package_takes_the_place_of_ours(monkeypatch, caplog):
    from basicsr.utils.registry import METRIC_REGISTRY, Registry

    registry = Registry("metric")
    registry.register(resolve("metric", "calculate_lpips"))

    def calculate_lpips(img, img2):
        """Somebody else's."""

    registry.register(calculate_lpips)
    assert registry.get("calculate_lpips") is calculate_lpips
    assert resolve("metric", "calculate_lpips") is METRIC_REGISTRY.get("calculate_lpips") is not calculate_lpips
    with pytest.raises(AssertionError, match="already registered"):
        registry.register(calculate_lpips)
