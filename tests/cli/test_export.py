import contextlib
import io

import numpy as np
import pytest
import torch
from helpers.small_networks import SMALL, built

from gpen_plugin import GPEN, GPENDiscriminator
from gpen_plugin.checkpoints.metadata import digest
from gpen_plugin.cli.export import main
from gpen_plugin.restore.network import open_network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxslim")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net_g_latest.pth"
    raw, averaged = (built(lambda: GPEN(32, in_size=16, **SMALL), seed).state_dict() for seed in (1, 2))
    torch.save({"params": raw, "params_ema": averaged}, path)
    return path


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory):
    """A file by the command's defaults, and what the command printed."""
    path = tmp_path_factory.mktemp("exported") / "deeper" / "model.onnx"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main([str(weights), "-o", str(path)]) == 0
    assert not err.getvalue()
    return path, out.getvalue()


def metadata(path):
    return {each.key: each.value for each in onnx.load(path).metadata_props}


def face(seed=0):
    return np.random.default_rng(seed).random((16, 16, 3), dtype=np.float32)


def difference(weights, path, key=None):
    """The largest one between the faces of a network and of the file that was exported."""
    faces = [face(seed) for seed in range(3)]
    ours, exported = open_network(weights, key=key, device="cpu"), open_network(path, device="cpu")
    return max(np.abs(one - other).max() for one, other in zip(ours(faces), exported(faces), strict=True))


def test_file_restores_as_the_weights_do(weights, exported):
    path, printed = exported
    assert "GPEN 32 px, input 16 px" in printed
    assert "ONNX opset 17, fp32, (N, 3, 16, 16) -> (N, 3, 32, 32)" in printed
    assert "on 4 images" in printed
    assert difference(weights, path) < 1e-4


def test_options_reach_the_file(weights, tmp_path, capsys):
    path = tmp_path / "model.onnx"
    words = ["--template", "dlib", "--task", "seg2face", "--precision", "fp16", "--key", "params", "--batch", "2"]
    assert main([str(weights), "-o", str(path), *words]) == 0
    assert "(2, 3, 16, 16) -> (2, 3, 32, 32)" in capsys.readouterr().out
    assert difference(weights, path, "params") < 0.1 < difference(weights, path)
    printed = metadata(path)
    held = torch.load(weights, weights_only=True)["params"]
    assert printed["gpen.weights_sha256"] == digest(held)
    assert printed["gpen.architecture"] == "GPEN"
    assert '"out_size": 32, "in_size": 16' in printed["gpen.arguments"]
    assert {key: printed[f"gpen.{key}"] for key in ("task", "template", "value_range", "precision", "alpha")} == {
        "task": "seg2face",
        "template": "dlib",
        "value_range": "[-1, 1]",
        "precision": "fp16",
        "alpha": "1",
    }
    network = open_network(path, device="cpu")
    assert (network.task, network.template) == ("seg2face", "dlib")


def test_default_task_and_template_are_the_models(exported):
    printed = metadata(exported[0])
    assert (printed["gpen.task"], printed["gpen.template"], printed["gpen.value_range"]) == (
        "restore",
        "ffhq",
        "[-1, 1]",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "model.bin"], "--output: got model.bin; expected a name that ends in .onnx or .pt2"),
        (["-o", "model.pt2", "--format", "onnx"], "--output: got model.pt2; expected a name that ends in .onnx"),
        (["-o", "model.onnx", "--opset", "3"], "opset: got 3; expected a number from 13 to 20"),
        (["-o", "model.onnx", "--device", "meta2"], "device: got meta2"),
        (["-o", "model.onnx", "--key", "other"], "other"),
        (["-o", "model.onnx", "--precision", "fp16", "--tolerance", "1e-13"], "so the file is not kept"),
    ],
)
def test_errors_are_one_line(weights, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main([str(weights), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_discriminators_and_onnx_files_are_refused(exported, tmp_path, capsys):
    torch.save(GPENDiscriminator(32, narrow=0.04).state_dict(), tmp_path / "net_d.pth")
    assert main([str(tmp_path / "net_d.pth"), "-o", str(tmp_path / "d.onnx")]) == 1
    assert "expected a whole GPEN" in capsys.readouterr().err
    assert main([str(exported[0]), "-o", str(tmp_path / "again.onnx")]) == 1
    assert "is an ONNX file already" in capsys.readouterr().err


@pytest.mark.parametrize("batch", ["0", "-1", "many", "1.5"])
def test_invalid_batch(weights, tmp_path, capsys, batch):
    with pytest.raises(SystemExit, match="2"):
        main([str(weights), "-o", str(tmp_path / "model.onnx"), f"--batch={batch}"])
    assert "expected a number from 1, or dynamic" in capsys.readouterr().err
