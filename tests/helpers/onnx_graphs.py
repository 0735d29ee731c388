"""What every provider of ONNX Runtime takes from an exported graph."""

# those of the CoreML provider's list for ML programs that GPEN needs: without Gather, Expand, Flatten and Shape.
# TensorRT, OpenVINO and DirectML have all of them
OPERATORS = {
    *("Add", "Cast", "Concat", "Conv", "ConvTranspose", "Div", "Gemm", "LeakyRelu", "MatMul", "Mul", "ReduceMean"),
    *("Reshape", "Slice", "Sqrt", "Sub", "Unsqueeze"),
}
CONSTANT_INPUTS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "Slice": 1, "Reshape": 1, "Unsqueeze": 1}  # and all after


def assert_runs_everywhere(path):
    """No operator outside `OPERATORS`; kernels, and whatever else shapes a result, are constants of the file."""
    import onnx  # which not every test environment has

    graph = onnx.load(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    assert {node.op_type for node in graph.node} <= OPERATORS
    computed = [
        (node.op_type, name)
        for node in graph.node
        for name in node.input[CONSTANT_INPUTS.get(node.op_type, len(node.input)) :]
        if name and name not in constants
    ]
    assert not computed
