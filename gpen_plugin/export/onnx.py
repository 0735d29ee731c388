"""Write a GPEN as an ONNX file."""

import io
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxslim
import torch
from torch import nn

from gpen_plugin.nets.loading import OnnxNetwork

INPUT, OUTPUT = "input", "output"  # the names that tools which run GPEN use


class _ImageOnly(nn.Module):
    """A GPEN without its options, which a tracer would take for inputs."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return self.net(lq)


def write(
    path: Path,
    net: nn.Module,  # traceable, see `gpen_plugin.archs.inference.fuse`
    example: torch.Tensor,  # one image, (1, 3, S, S), on the network's device
    batch: int | None,  # number of images the file takes at once; None for any number
    opset: int,  # version of ONNX's operators
    metadata: Mapping[str, str],  # stored in the file
) -> None:
    """Write a network as an ONNX file. Raises OSError if that fails."""
    # The older exporter traces, because it needs no other package. No constant of the graph depends on the number of
    # images, so the graph takes any number, or the one that its input declares.
    stream = io.BytesIO()
    torch.onnx.export(
        _ImageOnly(net),
        (example,),
        stream,
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=opset,
        do_constant_folding=False,  # leaves copies of the kernels behind
        dynamo=False,
    )
    model = onnxslim.slim(onnx.load_model_from_string(stream.getvalue()))
    del model.graph.value_info[:]  # shapes for one image
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if batch is None:
            first.dim_param = "batch"
        else:
            first.dim_value = batch
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)


def open_for_check(path: Path, device: torch.device):
    """Open what `write` wrote with onnxruntime: (N, 3, S, S) -> (N, 3, T, T) on the CPU."""
    network = OnnxNetwork(path, device)
    return lambda images: torch.from_numpy(network(images.numpy())[OUTPUT])
