"""Make an ONNX graph that PyTorch wrote as small as what it computes."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator


def simplify(model: ModelProto) -> None:
    """Tidy a graph in place: what the weights alone tell is computed, what changes nothing and what nobody reads goes.

    Args:
        model: traced with one image, so that all shapes are known. Batches of any size pass through it afterwards.
    """
    _fold_constants(model)
    _skip_idle_nodes(model)
    _drop_unread(model.graph)
    del model.graph.value_info[:]  # shapes for one image


def _constants(graph: GraphProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _fold_constants(model: ModelProto) -> None:
    """Compute every node that reads nothing but constants; the results become constants."""
    graph = model.graph
    opsets = {each.domain: each.version for each in model.opset_import}
    known, rest = _constants(graph), []
    for node in graph.node:
        if all(name in known for name in node.input if name):
            given = {name: known[name] for name in node.input if name}
            known |= zip(node.output, ReferenceEvaluator(node, opsets=opsets).run(None, given), strict=True)
        else:
            rest.append(node)
    _replace(graph.node, rest)
    _replace(graph.initializer, [numpy_helper.from_array(np.asarray(value), name) for name, value in known.items()])


def _skip_idle_nodes(model: ModelProto) -> None:
    """Take out nodes that give what they are given: identities, casts to the same type, expansions to the same size."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    kinds = {each.name: each.type for each in (*inferred.input, *inferred.value_info, *inferred.output)}
    outputs = {each.name for each in model.graph.output}
    instead: dict[str, str] = {}
    rest = []
    for node in model.graph.node:
        _rename(node.input, instead)
        source, result = node.input[0], node.output[0]
        idle = node.op_type == "Identity" or (
            node.op_type in ("Cast", "Expand") and source in kinds and kinds[source] == kinds.get(result)
        )
        if idle and result not in outputs:
            instead[result] = source
        else:
            rest.append(node)
    _replace(model.graph.node, rest)


def _drop_unread(graph: GraphProto) -> None:
    """Drop nodes and constants that lead to no output."""
    read, rest = {each.name for each in graph.output}, []
    for node in reversed(graph.node):
        if read & set(node.output):
            read |= set(node.input)
            rest.append(node)
    _replace(graph.node, rest[::-1])
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in read])


def _rename(names: Iterable[str], instead: Mapping[str, str]) -> None:
    for index, name in enumerate(names):
        names[index] = instead.get(name, name)


def _replace(field, items: list[NodeProto]) -> None:
    items = list(items)
    del field[:]
    field.extend(items)
