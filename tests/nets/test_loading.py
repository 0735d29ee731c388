"""Weights of published files, ONNX files and devices."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError, ShapeError
from gpen_plugin.nets.loading import OnnxNetwork, load_frozen, load_tensors, select_device

CPU = torch.device("cpu")
needs_onnx = pytest.mark.skipif(not (find_spec("onnx") and find_spec("onnxruntime")), reason="needs onnx, onnxruntime")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize(
    ("entry", "prefix"),
    [
        (None, ""),
        ("params_ema", "module."),
        ("params", "module.module."),
        ("state_dict", "_orig_mod."),
        (None, "module._orig_mod."),
    ],
)
def test_layouts_of_files(tmp_path, entry, prefix):
    tensors = network().state_dict()
    content = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    torch.save(content if entry is None else {"epoch": 3, entry: content}, tmp_path / "file.pth")
    found = load_tensors(tmp_path / "file.pth")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"params": {"a": "text"}}])
def test_a_file_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_tensors(tmp_path / "file.pth")


def test_a_frozen_network_is_whole_and_only_measures():
    tensors = {name: tensor.half() for name, tensor in network().state_dict().items()}
    with torch.device("meta"):
        empty = network()
    ready = load_frozen(empty, tensors, "file.pth", CPU)
    assert not ready.training
    assert not any(parameter.requires_grad for parameter in ready.parameters())
    x = torch.ones(1, 2)
    weight, bias = tensors["0.weight"].float(), tensors["0.bias"].float()
    torch.testing.assert_close(ready(x), (x @ weight.T + bias) / (1 + 1e-5) ** 0.5)


def test_files_older_than_the_count_of_batches():
    tensors = network().state_dict()
    del tensors["1.num_batches_tracked"]
    with torch.device("meta"):
        empty = network()
    assert load_frozen(empty, dict(tensors), "file.pth", CPU)(torch.ones(1, 2)).shape == (1, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("0.bias"), "0.bias is missing"),
        (lambda tensors: tensors.update(more=torch.ones(1)), "more is not of it"),
        (lambda tensors: tensors.update({"0.bias": torch.ones(4)}), r"0.bias is \(4,\), not \(3,\)"),
    ],
)
def test_tensors_of_another_network(change, words):
    tensors = dict(network().state_dict())
    change(tensors)
    with pytest.raises(CheckpointError, match=f"file.pth: its tensors are not those of Sequential.*{words}"):
        load_frozen(network(), tensors, "file.pth", CPU)


def test_auto_takes_the_best_device(monkeypatch):
    def chosen(mps: bool = True) -> str:
        try:
            return select_device(mps=mps).type
        except OptionError as error:  # patched to be available, it still is not there
            return error.got.split()[1]

    available = {"cuda": False, "mps": False}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available["cuda"])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: available["mps"])
    assert chosen() == "cpu"
    available["mps"] = True
    assert chosen() == "mps"
    assert chosen(mps=False) == "cpu"
    available["cuda"] = True
    assert chosen() == "cuda"
    assert select_device("cpu") == select_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["meta2", "cuda:7", "privateuseone"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(OptionError, match=rf"^device: got {device} \(.*\); expected a device of this machine\."):
        select_device(device)


def test_device_error_names_the_option():
    with pytest.raises(OptionError, match=r"^--device: got gpu \(.*\); expected a device of this machine"):
        select_device("gpu", where="--device")


@needs_onnx
def test_outputs_by_name_and_what_the_file_fixes(tmp_path):
    from helpers.onnx_models import constant, mean_color

    free = OnnxNetwork(mean_color(tmp_path / "free.onnx"), CPU)
    assert (free.channels, free.sides) == (3, [None, None])
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    assert np.allclose(free(image)["embedding"], [[1.5, 5.5, 9.5]])
    fixed = OnnxNetwork(mean_color(tmp_path / "fixed.onnx", 1, 16), CPU)
    assert (fixed.channels, fixed.sides) == (1, [16, 16])
    with pytest.raises(ShapeError, match=r"fixed.onnx: does not take images of shape \(1, 3, 2, 2\)"):
        fixed(image)
    both = OnnxNetwork(
        constant(tmp_path / "both.onnx", {"b": np.ones(1, np.float32), "a": np.zeros(2, np.float32)}), CPU
    )
    assert [*both(image)] == ["b", "a"]


@needs_onnx
def test_a_damaged_file(tmp_path):
    (tmp_path / "damaged.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match=r"damaged.onnx: cannot be opened"):
        OnnxNetwork(tmp_path / "damaged.onnx", CPU)


def test_without_onnxruntime(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingFileError, match=r'pip install "gpen_plugin\[evaluate\]"'):
        OnnxNetwork(tmp_path / "any.onnx", CPU)
