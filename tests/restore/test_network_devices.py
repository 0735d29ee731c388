"""Networks on devices and in precisions that are there, or are not."""

import numpy as np
import pytest
import torch
from helpers.published_folders import lonely_machine
from helpers.small_networks import NETWORKS, saved, weights

from gpen_plugin.errors import OptionError
from gpen_plugin.restore.network import FaceNetwork, faces_to_network, open_network

GPENS = [name for name in NETWORKS if name.startswith("GPEN ")]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    return lonely_machine(tmp_path, monkeypatch)


def face(seed: int, height: int = 16, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def opened(path, **arguments) -> FaceNetwork:
    return open_network(path, device="cpu", **arguments)


def test_unsupported_mps_operation_falls_back_to_cpu(tmp_path, monkeypatch):
    """Here is no mps: a network that says it is there, and lacks an operation, stands for one."""
    network = opened(saved(tmp_path / "net_g.pth", weights(NETWORKS["GPEN concat"])))
    expected, forward = network([face(0)]), network.net.forward

    def lacking(tensor):
        if network.device.type == "mps":
            raise NotImplementedError("The operator 'aten::lacking' is not implemented for the MPS device.\nMore of it")
        return forward(tensor)

    monkeypatch.setattr(network.net, "forward", lacking)
    monkeypatch.setattr(network, "to_tensor", lambda faces: faces_to_network(faces, 32, (-1, 1)))
    monkeypatch.setattr(network, "device", torch.device("mps"))
    with pytest.warns(UserWarning, match=r"^mps cannot run this network; .*\(The operator 'aten::lacking'.*\.\)$"):
        np.testing.assert_array_equal(network([face(0)]), expected)
    assert network.description.endswith("on cpu")


def test_out_of_memory_suggests_a_smaller_batch(tmp_path, monkeypatch):
    def full(tensor):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    network = opened(saved(tmp_path / "net_g.pth", weights(NETWORKS["GPEN concat"])))
    monkeypatch.setattr(network.net, "forward", full)
    with pytest.raises(OptionError, match=r"^batch: got 2 faces, .*; expected fewer faces\. Use a smaller batch"):
        network([face(0), face(1)])


@pytest.mark.parametrize("precision", ["fp16", "", None])
def test_another_precision(tmp_path, precision):
    with pytest.raises(OptionError, match=r"^precision: got .*; expected one of auto, fp32, bf16"):
        opened(tmp_path / "net_g.pth", precision=precision)


def test_unsupported_bf16_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path / "net_g.pth", weights(NETWORKS["GPEN concat"]))
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda kind: False)
    with pytest.raises(OptionError, match=r"^precision: got bf16, which cpu does not have; expected fp32"):
        opened(path, precision="bf16")
