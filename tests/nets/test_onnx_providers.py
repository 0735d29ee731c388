"""Providers of onnxruntime by name. Those that are not installed are known by their documented options only."""

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.nets.loading import OnnxNetwork
from gpen_plugin.nets.onnx_providers import PROVIDERS, open_session

pytestmark = pytest.mark.skipif(not find_spec("onnxruntime"), reason="needs onnxruntime")


@pytest.fixture
def opened(monkeypatch):
    """What onnxruntime is asked for, where it has all providers and starts the first."""
    import onnxruntime

    asked = SimpleNamespace(starts=True)

    def start(path, options, providers):
        asked.options, asked.providers = options, providers
        names = [name for name, _ in providers] if asked.starts else ["CPUExecutionProvider"]
        return SimpleNamespace(get_providers=lambda: names)

    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    every = [f"{provider.name}ExecutionProvider" for provider in PROVIDERS.values()]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: every)
    return asked


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("cpu", [("CPU", {})]),
        ("cuda:1", [("CUDA", {"device_id": "1", "cudnn_conv_algo_search": "HEURISTIC"}), ("CPU", {})]),
        ("coreml", [("CoreML", {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}), ("CPU", {})]),
        (
            "openvino",
            [("OpenVINO", {"device_type": "CPU", "precision": "FP32", "num_of_threads": "3"}), ("CPU", {})],
        ),
        ("openvino:GPU.1", [("OpenVINO", {"device_type": "GPU.1", "precision": "FP32"}), ("CPU", {})]),
        ("openvino:NPU", [("OpenVINO", {"device_type": "NPU"}), ("CPU", {})]),
        ("directml", [("Dml", {"device_id": "0"}), ("CPU", {})]),
    ],
)
def test_options_of_each_provider(provider, expected, opened, tmp_path):
    open_session(tmp_path / "model.onnx", provider, 3, required=True)
    assert opened.providers == [(f"{name}ExecutionProvider", options) for name, options in expected]
    assert opened.options.intra_op_num_threads == 3
    assert opened.options.enable_mem_pattern == (provider != "directml")


def test_engines_of_tensorrt_are_stored_per_file(opened, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = []
    for content in (b"one", b"another"):
        (tmp_path / "model.onnx").write_bytes(content)
        open_session(tmp_path / "model.onnx", "tensorrt:1", 1, required=True)
        (first, options), (second, of_cuda), (third, _) = opened.providers
        assert [name[:-17] for name in (first, second, third)] == ["Tensorrt", "CUDA", "CPU"]
        assert options["device_id"] == of_cuda["device_id"] == "1"
        folders.append(options["trt_engine_cache_path"])
    assert sorted(folders) == sorted(str(each) for each in (tmp_path / "cache" / "gpen_plugin" / "tensorrt").iterdir())


def test_a_device_of_pytorch_chooses_the_provider_without_requiring_it(opened, tmp_path, monkeypatch):
    opened.starts = False
    with pytest.raises(OptionError, match="provider: got openvino:GPU, which onnxruntime could not start"):
        open_session(tmp_path / "model.onnx", "openvino:GPU", 1, required=True)
    with pytest.raises(AttributeError, match="get_inputs"):  # of the session, which is a stand-in
        OnnxNetwork(tmp_path / "model.onnx", torch.device("cuda:1"))
    assert opened.providers[0] == (
        "CUDAExecutionProvider",
        {"device_id": "1", "cudnn_conv_algo_search": "HEURISTIC"},
    )


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        ("vulkan", "provider: got 'vulkan'; expected one of cpu, cuda, tensorrt, coreml, openvino, directml"),
        ("cpu:0", "provider: got cpu:0; expected cpu. It has no devices."),
        ("directml", "provider: got directml, but the installed onnxruntime .* has .*cpu.*onnxruntime-directml"),
    ],
)
def test_providers_that_are_not_there(provider, message, tmp_path):
    with pytest.raises(OptionError, match=message):
        open_session(tmp_path / "model.onnx", provider, 1, required=True)


@pytest.mark.skipif(not find_spec("onnx"), reason="needs onnx")
def test_named_provider_runs_the_file(tmp_path):
    from helpers.onnx_models import mean_color

    path = mean_color(tmp_path / "model.onnx")
    network = OnnxNetwork(path, torch.device("cpu"), "cpu")
    assert network.provider == "CPU"
    assert np.allclose(network(np.ones((1, 3, 2, 2), np.float32))["embedding"], 1)
    (tmp_path / "damaged.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match=r"damaged.onnx: cannot be opened"):
        OnnxNetwork(tmp_path / "damaged.onnx", torch.device("cpu"), "cpu")


def test_openvino_gives_what_pytorch_gives(tmp_path):
    import onnxruntime
    from helpers.small_networks import SMALL, built, rounding_error

    from gpen_plugin import GPEN
    from gpen_plugin.export.exporter import export, make_test_inputs
    from gpen_plugin.export.options import ExportOptions

    if "OpenVINOExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs onnxruntime-openvino in place of onnxruntime")
    net = built(lambda: GPEN(32, **SMALL)).eval()
    path = export(net, tmp_path / "model.onnx", ExportOptions(), {}).path
    network = OnnxNetwork(path, torch.device("cpu"), "openvino")
    assert network.provider == "OpenVINO"
    images = torch.cat(make_test_inputs(32, None))
    with torch.no_grad():
        expected = net(images)
    tolerance, _ = rounding_error(net, images, torch.float32)
    assert np.abs(network(images.numpy())["output"] - expected.numpy()).max() < tolerance < 0.1
