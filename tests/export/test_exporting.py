import sys

import numpy as np
import pytest
import torch
from helpers.small_networks import NETWORKS, SMALL, built, rounding_error, same

from gpen_plugin import GPEN
from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError
from gpen_plugin.export.checking import make_test_inputs
from gpen_plugin.export.exporting import export
from gpen_plugin.export.plan import Plan

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

FACTS = {"gpen_task": "restore"}
RANGE = 2  # from -1 to 1
KINDS = [kind for kind in NETWORKS if kind.startswith("GPEN ")]


def images(size, count, seed=5):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def run(path, batch):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": batch.numpy()})[0])


def small(**arguments):
    return built(lambda: GPEN(16, **SMALL, **arguments)).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16)])
def test_any_number_of_images_gives_what_pytorch_gives(kind, precision, dtype, tmp_path):
    net = built(NETWORKS[kind]).eval()
    exported = export(net, tmp_path / "model.onnx", Plan(precision=precision), FACTS)
    largest, _ = rounding_error(net, torch.cat([images(net.in_size, 5), *make_test_inputs(net.in_size, None)]), dtype)
    assert exported.difference.largest * RANGE < largest < 0.1
    for count in (1, 2, 5):
        batch = images(net.in_size, count)
        with torch.no_grad():
            assert (run(exported.path, batch) - net(batch)).abs().max() < largest
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("opset", [13, 20])
def test_what_the_file_says_of_itself(opset, tmp_path):
    net = small()
    model = onnx.load(export(net, tmp_path / "model.onnx", Plan(batch=2, opset=opset), FACTS).path)
    (given,), (result,) = model.graph.input, model.graph.output
    assert (given.name, result.name) == ("input", "output")
    for value in (given, result):
        assert [side.dim_value for side in value.type.tensor_type.shape.dim] == [2, 3, 16, 16]
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert {each.key: each.value for each in model.metadata_props} == FACTS
    assert model.opset_import[0].version == opset
    batch = images(16, 2)
    with torch.no_grad():
        tolerance, _ = rounding_error(net, batch, torch.float32)
        assert (run(tmp_path / "model.onnx", batch) - net(batch)).abs().max() < tolerance < 1e-3


def test_the_network_is_left_as_it_is_and_nothing_is_said(tmp_path, capfd, recwarn):
    net = small(value_range=(0, 1)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    export(net, tmp_path / "model.onnx", Plan(precision="fp16"), FACTS)
    assert same(net.state_dict(), before)
    assert (net.training, net.value_range) == (True, (0, 1))
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert capfd.readouterr() == ("", "")
    assert not [str(warning.message) for warning in recwarn]


def test_images_are_between_minus_1_and_1_whatever_the_training_had(tmp_path):
    net = small(value_range=(0, 1))
    path = export(net, tmp_path / "model.onnx", Plan(), FACTS).path
    batch = images(16, 2)
    with torch.no_grad():
        tolerance = RANGE * rounding_error(net, (batch + 1) / 2, torch.float32)[0]
        assert (run(path, batch) - (net((batch + 1) / 2) * 2 - 1)).abs().max() < tolerance < 1e-3


def test_kernels_are_stored_once_and_nothing_is_computed_that_the_weights_alone_tell(tmp_path):
    net = built(lambda: GPEN(64, num_style_feat=64, num_mlp=2, channel_multiplier=1, narrow=0.1)).eval()
    exported = export(net, tmp_path / "model.onnx", Plan(), FACTS)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in net.parameters())
    assert exported.path.stat().st_size < 1.3 * weights
    graph = onnx.load(exported.path).graph
    constants = {tensor.name for tensor in graph.initializer}
    assert all(set(node.input) - constants for node in graph.node)
    kinds = {node.op_type for node in graph.node}
    assert "Conv" in kinds
    assert not kinds & {"Identity", "Cast", "Constant", "Where", "Resize"}


@pytest.mark.parametrize("earlier", [None, b"an earlier file"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_file_that_differs_is_not_kept(tmp_path, earlier, precision):
    path = tmp_path / "model.onnx"
    if earlier:
        path.write_bytes(earlier)
    with pytest.raises(CheckpointError, match=r"model.onnx: differs from PyTorch by .* expected 1e-12 or less"):
        export(small(), path, Plan(precision=precision, tolerance=1e-12), FACTS)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([earlier] if earlier else [])


def test_a_network_that_gives_no_numbers_is_not_kept(tmp_path):
    net = small()
    with torch.no_grad():
        net.encoder.to_z.bias[0] = np.nan
    with pytest.raises(CheckpointError, match="differs from PyTorch by nan"):
        export(net, tmp_path / "model.onnx", Plan(), FACTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_packages(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingFileError, match=rf"the package {package} is not installed.*gpen_plugin\[export\]"):
        export(small(), tmp_path / "model.onnx", Plan(), FACTS)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match="cannot be written"):
        export(small(), tmp_path / "file" / "model.onnx", Plan(), FACTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "tflite"}, "format: got 'tflite'; expected one of onnx, program"),
        ({"batch": 0}, "batch: got 0"),
        ({"precision": "int8"}, "precision: got 'int8'; expected one of fp32, fp16"),
        ({"opset": 9}, "opset: got 9; expected a number from 13 to 20"),
        ({"tolerance": 0}, "tolerance: got 0"),
    ],
)
def test_plans_that_are_none(arguments, message):
    with pytest.raises(OptionError, match=message):
        Plan(**arguments)
