"""`gpen-restore`, run in an empty folder with a small network."""

import pytest
import torch
from helpers.restorer_parts import FACES, Detector

from gpen_plugin import GPEN
from gpen_plugin.cli.restore import main
from gpen_plugin.restore import restorer


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    net = GPEN(32, in_size=16, num_style_feat=16, num_mlp=2, narrow=0.03125).eval()
    path = tmp_path_factory.mktemp("weights") / "net_g_latest.pth"
    torch.save({"params_ema": net.state_dict()}, path)
    return path


@pytest.fixture
def run(weights, tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder, with a detector that returns the given faces."""
    found = Detector(*FACES)
    monkeypatch.setattr(restorer, "open_detector", lambda *arguments, **options: found)
    monkeypatch.chdir(tmp_path)

    def run(*words, model=weights, detector=found):
        monkeypatch.setattr(restorer, "open_detector", lambda *arguments, **options: detector)
        status = main([*map(str, words), "--model", str(model), "--device", "cpu", "--mask", "soft"])
        return status, capsys.readouterr()

    return run
