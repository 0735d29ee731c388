"""Weights of other people's files: read safely, loaded whole."""

import pytest
import torch
from torch import nn

from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.nets.loading import load_frozen, load_tensors, select_device

CPU = torch.device("cpu")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize("entry", [None, "params_ema", "params", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.module.", "_orig_mod.", "module._orig_mod."])
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


def test_devices():
    assert select_device("cpu") == CPU
    assert select_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(OptionError, match="device: got 'gpu'"):
        select_device("gpu")
