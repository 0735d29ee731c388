"""A GPEN as an ONNX file."""

import io
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from torch import nn

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.export.checking import Network
from gpen_plugin.export.few_passes import fuse_decoder
from gpen_plugin.export.quietly import suppress_warnings
from gpen_plugin.export.tidy_graph import simplify
from gpen_plugin.nets.loading import OnnxNetwork

INPUT, OUTPUT = "input", "output"  # as tools that run GPEN call them


class _ImageAlone(nn.Module):
    """A GPEN without its options, which a tracer would take for inputs."""

    def __init__(self, net: GPEN):
        super().__init__()
        self.net = net

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return self.net(lq)


def write(path: Path, net: GPEN, batch: int | None, opset: int, facts: Mapping[str, str]) -> None:
    """Write a network.

    The graph is traced with one image, by PyTorch's older exporter, which needs no other package. No number in it
    tells how many images there were, so that it takes any number, or the one that its input says.

    Args:
        path: of the file.
        net: on its device, evaluating.
        batch: how many images it takes at once; None if any number.
        opset: version of ONNX's operators.
        facts: what the file is to say about itself, by name.
    Raises:
        OSError: the file cannot be written.
    """
    size, stream = net.in_size, io.BytesIO()
    image = torch.zeros(1, 3, size, size, device=net.decoder.constant.device)
    with suppress_warnings():
        torch.onnx.export(
            _ImageAlone(fuse_decoder(net)),
            (image,),
            stream,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=opset,
            do_constant_folding=False,  # it leaves copies of the kernels behind
            dynamo=False,
        )
    model = onnx.load_model_from_string(stream.getvalue())
    simplify(model)
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if batch is None:
            first.dim_param = "batch"
        else:
            first.dim_value = batch
    onnx.helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)


def open_for_check(path: Path, device: torch.device) -> Network:
    """What `write` wrote, run by onnxruntime: (N, 3, S, S) -> (N, 3, T, T) on the CPU."""
    network = OnnxNetwork(path, device)
    return lambda images: torch.from_numpy(network(images.numpy())[OUTPUT])
