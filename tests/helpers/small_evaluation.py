"""An evaluation of four 32 px faces by three methods, for the tests of what is done with it."""

from functools import cache

import pytest
import torch

from gpen_plugin.evaluate import run as run_module
from gpen_plugin.evaluate.distributed import Ranks
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.run import evaluate
from helpers.small_networks import NETWORKS, built

ONE = Ranks(0, 1, torch.device("cpu"))
MADE_FROM_RESULTS = ("results.json", "table.md", "table.csv", "table.tex", "per_image.csv", "report.html")


@cache
def state_dict() -> dict[str, torch.Tensor]:
    return built(NETWORKS["GPEN concat"]).state_dict()


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "net_g.pth"
    torch.save({"params_ema": state_dict()}, path)
    return path


@pytest.fixture
def given(faces, tmp_path, weights):
    """An option file's content: 32 px, four faces, three methods."""
    return {
        "name": "small",
        "output": str(tmp_path / "small"),
        "protocol": {
            "type": "bfr",
            "dataroot_gt": str(faces),
            "out_size": 32,
            "num_images": 4,
            "degradation": {"kernel_size": [3, 5], "downsample_range": [2, 4]},
        },
        "methods": {
            "Bilinear": {"type": "bilinear"},
            "Bicubic": {"type": "bicubic"},
            "GPEN": {"type": "gpen", "weights": str(weights)},
        },
        "metrics": {
            "psnr": {"type": "calculate_psnr", "crop_border": 0},
            "swd": {"type": "calculate_swd", "better": "lower", "patches": 16, "directions": 16},
        },
        "report": {
            **{"embedded_images": 4, "embedded_size": 32, "sheet_tile": 32, "vector_figures": []},
            "bootstrap_resamples": 100,
        },
    }


def run(given, restart=False):
    return evaluate(EvaluationOptions.from_mapping(given), ONE, restart)


def written(given):
    root = EvaluationOptions.from_mapping(given).root
    return {name: (root / name).read_bytes() for name in MADE_FROM_RESULTS}


def count_restored(monkeypatch):
    """What a run restores, as (type, key), in the list that is returned."""
    made = []
    build = run_module.build_method

    def counting(entry, where, device, folder):
        method = build(entry, where, device, folder)

        class Counting:
            description, identity = method.description, method.identity

            def __call__(self, sample):
                made.append((entry["type"], sample.key))
                return method(sample)

        return Counting()

    monkeypatch.setattr(run_module, "build_method", counting)
    return made
