import json
import math
import sys

import numpy as np
import pytest
import torch
from helpers.onnx_graphs import assert_runs_everywhere
from helpers.small_networks import SMALL, built, rounding_error, same

from gpen_plugin import GPEN
from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError
from gpen_plugin.export.exporter import Difference, export, make_test_inputs, measure_difference
from gpen_plugin.export.options import ExportOptions

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxslim")

METADATA = {"gpen.task": "restore"}
RANGE = 2  # from -1 to 1


def images(size, count, seed=5):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def run(path, batch):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": batch.numpy()})[0])


def small(out_size=16, **arguments):
    return built(lambda: GPEN(out_size, **SMALL, **arguments)).eval()


@pytest.mark.parametrize(
    ("arguments", "opset"),
    [({}, 17), ({"out_size": 32, "in_size": 16, "noise_mode": "add"}, 13), ({"noise_mode": "none"}, 20)],
)
def test_any_batch_size_matches_pytorch(arguments, opset, tmp_path):
    net = small(**arguments)
    exported = export(net, tmp_path / "model.onnx", ExportOptions(opset=opset), METADATA)
    assert onnx.load(exported.path).opset_import[0].version == opset
    compared = torch.cat([images(net.in_size, 5), *make_test_inputs(net.in_size, None)])
    largest, _ = rounding_error(net, compared, torch.float32)
    assert exported.difference.largest * RANGE < largest < 0.1
    for count in (1, 2, 5):
        batch = images(net.in_size, count)
        with torch.no_grad():
            assert (run(exported.path, batch) - net(batch)).abs().max() < largest
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert_runs_everywhere(exported.path)


def test_names_sizes_and_metadata_of_the_file(tmp_path):
    net = small()
    model = onnx.load(export(net, tmp_path / "model.onnx", ExportOptions(batch=2), METADATA).path)
    (given,), (result,) = model.graph.input, model.graph.output
    assert (given.name, result.name) == ("input", "output")
    for value in (given, result):
        assert [side.dim_value for side in value.type.tensor_type.shape.dim] == [2, 3, 16, 16]
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert {each.key: each.value for each in model.metadata_props} == METADATA
    batch = images(16, 2)
    with torch.no_grad():
        tolerance, _ = rounding_error(net, batch, torch.float32)
        assert (run(tmp_path / "model.onnx", batch) - net(batch)).abs().max() < tolerance < 1e-3


def test_network_in_training_with_another_range_is_exported_unchanged(tmp_path, capfd, recwarn):
    """In half precision, whose scaling works on a copy. The file takes and gives -1 to 1."""
    net = small(value_range=(0, 1)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    path = export(net, tmp_path / "model.onnx", ExportOptions(precision="fp16"), METADATA).path
    assert same(net.state_dict(), before)
    assert (net.training, net.value_range) == (True, (0, 1))
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert capfd.readouterr() == ("", "")
    assert not [str(warning.message) for warning in recwarn]
    for count in (1, 3):
        batch = images(16, count)
        with torch.no_grad():
            tolerance = RANGE * rounding_error(net, (batch + 1) / 2, torch.float16)[0]
            assert (run(path, batch) - (net((batch + 1) / 2) * 2 - 1)).abs().max() < tolerance < 0.1


def test_weight_blends_result_and_input(tmp_path):
    net = small()
    path = export(net, tmp_path / "model.onnx", ExportOptions(weight=True), METADATA).path
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    weight = session.get_inputs()[1]
    assert (weight.name, weight.shape, weight.type) == ("weight", [1], "tensor(double)")
    batch = images(16, 2)
    with torch.no_grad():
        result, (tolerance, _) = net(batch), rounding_error(net, batch, torch.float32)
    for value in (0.0, 0.3, 1.0):
        (blended,) = session.run(None, {"input": batch.numpy(), "weight": np.array([value])})
        assert np.abs(blended - torch.lerp(batch, result, value).numpy()).max() < tolerance + 1e-6
    assert_runs_everywhere(path)


def test_weight_needs_input_and_result_of_one_size(tmp_path):
    net = built(lambda: GPEN(32, in_size=16, **SMALL))
    with pytest.raises(OptionError, match="--weight: got it for a network of 16 px whose result has 32 px"):
        export(net, tmp_path / "model.onnx", ExportOptions(weight=True), METADATA)


def test_kernels_are_stored_once_and_constants_are_folded(tmp_path):
    net = built(lambda: GPEN(16, num_style_feat=64, num_mlp=1, channel_multiplier=1, narrow=0.2)).eval()
    exported = export(net, tmp_path / "model.onnx", ExportOptions(), METADATA)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in net.parameters())
    assert exported.path.stat().st_size < 1.3 * weights
    graph = onnx.load(exported.path).graph
    constants = {tensor.name for tensor in graph.initializer}
    assert all(set(node.input) - constants for node in graph.node)
    kinds = {node.op_type for node in graph.node}
    assert "Conv" in kinds
    assert not kinds & {"Identity", "Cast", "Constant", "Where", "Resize"}


def test_file_that_differs_does_not_replace_an_earlier_one(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an earlier file")
    with pytest.raises(CheckpointError, match=r"model.onnx: differs from PyTorch by .* expected 1e-12 or less"):
        export(small(), path, ExportOptions(tolerance=1e-12), METADATA)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"an earlier file"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxslim"])
def test_missing_packages(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingFileError, match=rf"the package {package} is not installed.*gpen_plugin\[export\]"):
        export(small(), tmp_path / "model.onnx", ExportOptions(), METADATA)


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match="cannot be written"):
        export(small(), tmp_path / "file" / "model.onnx", ExportOptions(), METADATA)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "tflite"}, "format: got 'tflite'; expected one of onnx, program"),
        ({"batch": 0}, "batch: got 0"),
        ({"precision": "int8"}, "precision: got 'int8'; expected one of fp32, fp16"),
        ({"opset": 9}, "opset: got 9; expected a number from 13 to 20"),
        ({"tolerance": 0}, "tolerance: got 0"),
        ({"format": "program", "weight": True}, "weight: got it for the format program; expected onnx"),
    ],
)
def test_options_out_of_range(arguments, message):
    with pytest.raises(OptionError, match=message):
        ExportOptions(**arguments)


@pytest.mark.parametrize(("batch", "counts"), [(None, [1, 3]), (1, [1] * 4), (3, [3, 3]), (4, [4]), (6, [6])])
def test_four_test_images_in_batches(batch, counts):
    batches = make_test_inputs(32, batch)
    assert [len(each) for each in batches] == counts
    images = torch.cat(batches)
    assert len({image.numpy().tobytes() for image in images}) == 4
    assert images.dtype == torch.float32
    assert images.shape[1:] == (3, 32, 32)
    assert -1 <= images.min() < -0.9
    assert 0.9 < images.max() <= 1


def test_seeds_give_different_images():
    assert not any(
        torch.equal(a, b) for a, b in zip(make_test_inputs(16, 1), make_test_inputs(16, 1, seed=100), strict=True)
    )


def test_difference_is_a_fraction_of_the_range_over_all_batches():
    batches = [torch.zeros(1, 3, 2, 2), torch.zeros(2, 3, 2, 2)]

    def off(images):
        shifted = images.clone()
        shifted[0, 0, 0, 0] = 0.2 * len(images)
        return shifted

    gap = measure_difference(lambda images: images, off, batches)
    assert gap.largest == pytest.approx(0.2)
    assert gap.rms == pytest.approx(math.sqrt((0.1**2 + 0.2**2) / 36))


@pytest.mark.parametrize("first", [True, False])
def test_nan_in_any_batch_is_found(first):
    batches = [torch.full((1, 3, 2, 2), math.nan), torch.zeros(1, 3, 2, 2)][:: 1 if first else -1]
    gap = measure_difference(torch.zeros_like, lambda images: images, batches)
    assert math.isnan(gap.largest)
    with pytest.raises(CheckpointError, match=r"file: differs from PyTorch by nan.*Do this"):
        gap.check(1e9, "file", "Do this.")


def test_difference_up_to_the_tolerance_passes():
    Difference(0.5, 0.1).check(0.5, "file", "")
    with pytest.raises(CheckpointError, match=r"differs from PyTorch by 5.0e-01 of the value range \(rms 1.0e-01\)"):
        Difference(0.5, 0.1).check(0.49, "file", "")


def test_program_gives_what_the_network_gives(tmp_path, capfd):
    net = small()
    exported = export(net, tmp_path / "model.pt2", ExportOptions("program", precision="fp16"), METADATA)
    largest, _ = rounding_error(net, torch.cat([images(16, 5), *make_test_inputs(16, None)]), torch.float16)
    assert 0 < exported.difference.largest * RANGE < largest < 0.1
    assert capfd.readouterr() == ("", "")
    stored = {"gpen.json": ""}
    program = torch.export.load(str(exported.path), extra_files=stored).module()
    assert json.loads(stored["gpen.json"]) == METADATA
    for count in (1, 2, 5):
        with torch.no_grad():
            assert (program(images(16, count)) - net(images(16, count))).abs().max() < largest
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]
