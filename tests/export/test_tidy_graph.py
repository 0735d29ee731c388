import numpy as np
import pytest

from gpen_plugin.export.tidy_graph import simplify

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

WEIGHT = np.float32([[1, 2, 3], [4, 5, 6]])


def model_of(nodes, constants, result_shape=(1, 3)):
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3))
    result = helper.make_tensor_value_info("output", TensorProto.FLOAT, result_shape)
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph([helper.make_node(*node) for node in nodes], "g", [given], [result], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def tidied(nodes, constants, result_shape=(1, 3)):
    """The kinds of the nodes that are left, the names of the constants; what is computed has to stay the same."""
    model = model_of(nodes, constants, result_shape)
    x = np.float32([[1, -2, 3]])
    (before,) = ReferenceEvaluator(model).run(None, {"input": x})
    simplify(model)
    onnx.checker.check_model(model)
    (after,) = ReferenceEvaluator(model).run(None, {"input": x})
    assert np.array_equal(before, after)
    return [node.op_type for node in model.graph.node], [tensor.name for tensor in model.graph.initializer]


def test_what_constants_alone_tell_is_computed_and_the_rest_forgotten():
    nodes = [
        ("Mul", ["weight", "weight"], ["squares"]),
        ("Transpose", ["squares"], ["turned"]),
        ("MatMul", ["input", "turned"], ["output"]),
    ]
    assert tidied(nodes, {"weight": WEIGHT}, (1, 2)) == (["MatMul"], ["turned"])


def test_a_node_that_changes_nothing_goes():
    nodes = [
        ("Identity", ["input"], ["same"]),
        ("Shape", ["input"], ["shape"]),
        ("Expand", ["same", "shape"], ["as_large"]),
        ("Mul", ["as_large", "two"], ["output"]),
    ]
    assert tidied(nodes, {"two": np.float32(2)}) == (["Mul"], ["two"])


def test_a_node_that_enlarges_or_makes_the_output_stays():
    nodes = [("Expand", ["input", "shape"], ["larger"]), ("Identity", ["larger"], ["output"])]
    assert tidied(nodes, {"shape": np.int64([2, 3])}, (2, 3)) == (["Expand", "Identity"], ["shape"])


def test_casts_go_where_the_type_is_the_same_and_stay_where_it_is_not():
    model = model_of([("Mul", ["input", "input"], ["output"])], {})
    casts = [
        helper.make_node("Cast", ["input"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half"], ["again"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["again"], ["output"], to=TensorProto.FLOAT),
    ]
    del model.graph.node[:]
    model.graph.node.extend(casts)
    simplify(model)
    assert [(node.op_type, list(node.input)) for node in model.graph.node] == [("Cast", ["input"]), ("Cast", ["half"])]
    (result,) = ReferenceEvaluator(model).run(None, {"input": np.float32([[1, 2, 1e-9]])})
    assert np.array_equal(result, np.float32([[1, 2, 0]]))
