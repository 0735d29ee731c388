"""The file that the field would have, and the benchmark with a tiny network."""

import json

import measure
import onnx
import onnx_runtime
from inference import network
from onnx_runtime import export_as_the_field, main


def test_the_fields_file_pads_and_convolves_with_kernels_of_its_own(tmp_path):
    net = network(16, 1 / 16)
    graph = onnx.load(export_as_the_field(net, tmp_path / "field.onnx")).graph
    operators = {node.op_type for node in graph.node}
    assert {"Pad", "Conv", "ConvTranspose"} <= operators
    assert "ScatterND" not in operators
    weights = {tensor.name for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert sum(node.input[1] not in weights for node in convolutions) >= sum(
        len(block.convs) + 1 for block in net.decoder.blocks.values()
    )


def test_dry_run(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "peak_flop", lambda device, dtype: 1e12)
    found = tmp_path / "found.json"
    main(["--size", "16", "--narrow", "0.0625", "--rounds", "1", "--threads", "1", "--json", str(found)])
    rows = json.loads(found.read_text())["comparisons"]
    assert [row["what"].partition(": ")[2] for row in rows] == [
        f"{ours} against {base}" for base, ours, _ in onnx_runtime.PAIRS
    ]
    assert all(row["our_seconds"] and "largest difference" in row["error"] for row in rows)
