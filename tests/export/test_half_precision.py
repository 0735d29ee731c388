import copy

import numpy as np
import pytest
import torch
from helpers.onnx_graphs import assert_runs_everywhere
from helpers.small_networks import NETWORKS, SMALL, built, rounding_error

from gpen_plugin import GPEN
from gpen_plugin.archs.inference import fuse
from gpen_plugin.export.exporter import PEAK, export, make_test_inputs, scale_for_half
from gpen_plugin.export.options import ExportOptions

KINDS = [kind for kind in NETWORKS if kind.startswith("GPEN ")]
LARGE_IN_ENCODER, LARGE_IN_DECODER, LONG_KERNELS = 3e3, 3e4, 1e3


def with_large_features(net):
    """The same function, computed with numbers that half precision does not hold."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        net.encoder.stem.weight *= LARGE_IN_ENCODER
        for layer in (net.encoder.stem, *net.encoder.down.values()):
            layer.bias *= LARGE_IN_ENCODER
        net.encoder.to_z.weight /= LARGE_IN_ENCODER
        net.decoder.constant *= LARGE_IN_DECODER
        for block in net.decoder.blocks.values():
            for conv in block.convs:
                conv.weight *= LONG_KERNELS
                conv.bias *= LARGE_IN_DECODER
                if conv.noise_mode != "none":
                    conv.noise_weight *= LARGE_IN_DECODER / LARGE_IN_ENCODER
            block.to_rgb.weight /= LARGE_IN_DECODER
    return net


def with_a_long_code(net):
    """A code whose square is beyond half precision, as trainings make them; its length says nothing."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        net.encoder.to_z.weight *= 1e4
        net.encoder.to_z.bias *= 1e4
    return net


def to_half(net, images):
    return fuse(scale_for_half(net, images), torch.float16, traceable=True)


@pytest.mark.parametrize(
    ("grown", "kind"), [*((with_large_features, kind) for kind in KINDS), (with_a_long_code, "GPEN concat")]
)
@torch.no_grad()
def test_networks_that_overflow_in_plain_half_precision(kind, grown):
    usual = built(NETWORKS[kind]).eval()
    net, images = grown(usual), torch.cat(make_test_inputs(usual.in_size, None))
    expected = net(images)
    assert torch.allclose(expected, usual(images), atol=1e-3)  # the test's own premise
    plain = copy.deepcopy(net).half()(images.half()).float()
    assert not (plain - expected).abs().max() < 0.1
    half = to_half(net, make_test_inputs(net.in_size, None, seed=9))
    gap = half(images) - expected
    largest, rms = rounding_error(usual, images, torch.float16)
    assert gap.abs().max() < largest < 0.1
    assert gap.square().mean().sqrt() < rms


@torch.no_grad()
def test_features_are_float16_near_the_peak():
    net = with_large_features(built(NETWORKS["GPEN concat"]).eval())
    batches = make_test_inputs(net.in_size, None)
    half = to_half(net, batches)
    z, features = half.encoder(batches[1])
    assert z.dtype == torch.float32
    assert {each.dtype for each in features} == {torch.float16}
    peaks = [
        max(half.encoder(batch)[1][index].abs().max().item() for batch in batches) for index in range(len(features))
    ]
    assert peaks == pytest.approx([PEAK] * len(peaks), rel=0.01)
    assert half(batches[1]).dtype == torch.float32
    kernels = {name: tensor for name, tensor in half.named_buffers() if name.endswith("weight") and tensor.ndim == 4}
    assert len(kernels) > 12
    assert {tensor.dtype for tensor in kernels.values()} == {torch.float16}
    styles = {tensor.dtype for name, tensor in half.named_buffers() if "modulation" in name or "mapping" in name}
    assert styles == {torch.float32}


def test_source_stays_in_float32():
    net = built(NETWORKS["GPEN concat"]).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    to_half(net, make_test_inputs(net.in_size, None))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert {tensor.dtype for tensor in net.state_dict().values()} == {torch.float32}
    assert not net.encoder.stem._forward_hooks
    assert net.encoder.stem.scale != 1


@torch.no_grad()
def test_layer_of_zeros():
    net = built(NETWORKS["GPEN concat"]).eval()
    for layer in net.encoder.down.values():
        layer.weight.zero_()
        layer.bias.zero_()
    net.decoder.blocks["8"].conv1.weight[0] = 0
    net.decoder.blocks["8"].conv1.modulation.weight[0] = net.decoder.blocks["8"].conv1.modulation.bias[0] = 0
    batches = make_test_inputs(net.in_size, None)
    half = to_half(net, batches)
    assert (half(batches[1]) - net(batches[1])).abs().max() < rounding_error(net, batches[1], torch.float16)[0] < 0.1


def test_file_holds_float16_and_takes_float32(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    usual = built(lambda: GPEN(16, **SMALL)).eval()
    net = with_large_features(usual)
    exported = export(net, tmp_path / "model.onnx", ExportOptions(precision="fp16"), {})
    largest, _ = rounding_error(usual, torch.cat(make_test_inputs(net.in_size, None)), torch.float16)
    assert exported.difference.largest < largest / 2  # of the range from -1 to 1
    assert_runs_everywhere(exported.path)
    graph = onnx.load(exported.path).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kernels = [stored[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    blurs_of_images = [kernel for kernel in kernels if kernel.dtype == np.float32]
    assert len(kernels) > 8
    assert not blurs_of_images
    elements = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert elements == {onnx.TensorProto.FLOAT}
