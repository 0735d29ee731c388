import json

import pytest
import torch
from helpers.small_evaluation import given, run, state_dict, weights  # noqa: F401 - fixtures

from gpen_plugin.baselines.method import Sample
from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate.cost import cost_columns, machine, measure_cost
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.results import merge_results
from gpen_plugin.evaluate.stats import Summary
from gpen_plugin.evaluate.tables import compare_markdown, latex, markdown

CPU = torch.device("cpu")
ALL = ("parameters", "multiply_adds", "seconds")


class Convolution:
    """3 to 8 channels, 3 x 3, and the number of its calls."""

    def __init__(self):
        self.net, self.parameters, self.calls = torch.nn.Conv2d(3, 8, 3, padding=1), 3 * 8 * 9 + 8, 0

    @torch.inference_mode()
    def __call__(self, sample):
        self.calls += 1
        return self.net(torch.zeros(1, 3, 16, 16))


def measured(method, folder, digest="a", names=ALL):
    return measure_cost(method, lambda: Sample("face", "", None, None, 16), names, CPU, folder, digest)


def test_cost_of_a_convolution(tmp_path):
    found = measured(Convolution(), tmp_path)
    assert found["parameters"] == pytest.approx(224 / 1e6)
    assert found["multiply_adds"] == pytest.approx(16 * 16 * 8 * 27 / 1e9)
    assert 0 < found["seconds"] < 10


def test_cost_is_measured_once(tmp_path):
    first, method = measured(Convolution(), tmp_path), Convolution()
    assert measured(method, tmp_path) == first
    assert method.calls == 0
    measured(method, tmp_path, digest="another")
    assert method.calls == 6
    assert json.loads((tmp_path / "cost.json").read_text())["machine"] == machine(CPU)


def test_interpolation_has_no_parameters(tmp_path):
    assert measured(lambda sample: sample.size, tmp_path, names=("parameters", "multiply_adds")) == {}


def test_unknown_cost_is_refused():
    with pytest.raises(OptionError, match="cost: got flops; expected some of parameters, multiply_adds, seconds"):
        cost_columns(["flops"])


def test_metric_does_not_take_the_name_of_a_cost(given):
    given["metrics"]["seconds"] = given["metrics"]["psnr"]
    EvaluationOptions.from_mapping(given)
    with pytest.raises(OptionError, match="metrics:seconds: is the name of another column"):
        EvaluationOptions.from_mapping({**given, "cost": ["seconds"]})


def test_cost_stands_beside_the_metrics(given, tmp_path):
    results = run({**given, "cost": ["parameters", "seconds"], "report": {**given["report"], "against": "GPEN"}})
    numbers = sum(tensor.numel() for tensor in state_dict().values()) / 1e6
    assert results.sets["GPEN"][""]["parameters"] == pytest.approx(numbers, rel=0.01)  # the filters are no parameters
    assert {*results.sets["Bilinear"][""]} == {"swd", "seconds"}
    summary = Summary.of(results, 100, 0)
    table = markdown(summary)
    assert "| Params (M) | Seconds | Images |" in table
    assert "No intervals for SWD ×10³ (GT): " in table
    assert "Params (M), Seconds of Bilinear, Bicubic, GPEN: seconds per face are the median" in table
    assert "MACs" not in table
    bilinear = next(line for line in table.splitlines() if line.startswith("| Bilinear"))
    assert bilinear.split(" | ")[3] == "-"
    assert "Params (M) & Seconds & Images" in latex(summary)
    assert "Seconds" not in compare_markdown(summary, "GPEN")

    other = {**given, "output": str(tmp_path / "other"), "methods": {"Bilinear": given["methods"]["Bilinear"]}}
    run({**other, "cost": ["seconds"]})
    cost = tmp_path / "other" / "methods" / "bilinear" / "cost.json"
    cost.write_text(json.dumps({**json.loads(cost.read_text()), "cost": {"seconds": 7.0}}))
    assert run({**other, "cost": ["seconds"]}).sets["Bilinear"][""]["seconds"] == 7
    merged = merge_results([tmp_path / "small", tmp_path / "other"], tmp_path / "both")
    assert merged.sets["Bilinear"] == results.sets["Bilinear"]
