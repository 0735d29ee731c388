"""ONNX files whose answers are known in closed form: each face beside itself, four times, its channels weighed."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def tiled(
    path: Path,
    *,
    batch: int | str = "n",
    shape: tuple = (3, 8, 8),
    declared: tuple = (3, 16, 16),
    gains: tuple[float, ...] = (1, 1, 1),
    half: bool = False,
    inside: tuple = (0, 0, 0, 0),
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a network.

    Args:
        path: of the file.
        batch: faces at once; a name for any number.
        shape: of each, (C, H, W).
        declared: what the file says of its output's shape, (C, H, W).
        gains: factor of each channel.
        half: whether it computes in float16.
        inside: what it takes its input to be, whatever the file says; 0 for what comes.
        metadata: texts by name.
    """
    kind, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    nodes = [
        helper.make_node("Reshape", ["input", "inside"], ["faces"]),
        helper.make_node("Concat", ["faces", "faces"], ["wide"], axis=3),
        helper.make_node("Concat", ["wide", "wide"], ["large"], axis=2),
        helper.make_node("Mul", ["large", "gains"], ["output"]),
    ]
    constants = {"gains": np.array(gains, dtype).reshape(-1, 1, 1), "inside": np.array(inside)}
    graph = helper.make_graph(
        nodes,
        "tiled",
        [helper.make_tensor_value_info("input", kind, [batch, *shape])],
        [helper.make_tensor_value_info("output", kind, [batch, *declared])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return _written(path, graph, metadata or {})


def embedding(path: Path) -> Path:
    """A network that gives three numbers for each face of 8 px."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "embedding",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])],
    )
    return _written(path, graph, {})


def _written(path: Path, graph: onnx.GraphProto, metadata: dict[str, str]) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path
