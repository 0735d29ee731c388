"""Small ONNX files that the tests make."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def mean_color(path: Path, channels: int | str = 3, side: int | str = "side") -> Path:
    """A network whose embedding is the mean of each channel."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["face"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"]),
    ]
    return _written(path, nodes, ["n", channels, side, side], {"embedding": None})


def first_pixel(path: Path) -> Path:
    """A network whose embedding is the upper left pixel."""
    bounds = {"from": np.array([0, 0]), "to": np.array([1, 1]), "axes": np.array([2, 3])}
    nodes = [
        helper.make_node("Slice", ["face", *bounds], ["pixel"]),
        helper.make_node("Flatten", ["pixel"], ["embedding"]),
    ]
    return _written(path, nodes, ["n", 3, "height", "width"], {"embedding": None}, bounds)


def constant(path: Path, outputs: dict[str, np.ndarray], side: int | str = "side") -> Path:
    """A network that says the same of every image."""
    values = {f"{name}_value": value for name, value in outputs.items()}
    nodes = [helper.make_node("Identity", [f"{name}_value"], [name]) for name in outputs]
    return _written(path, nodes, ["n", 3, side, side], {name: value.shape for name, value in outputs.items()}, values)


def _written(path: Path, nodes: list, shape: list, outputs: dict, values: dict | None = None) -> Path:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (values or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
