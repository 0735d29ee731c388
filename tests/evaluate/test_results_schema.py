"""results.schema.json describes results.json, and nothing else."""

import copy
import dataclasses
import json
from importlib import resources

import pytest
from helpers.results_for_report import nasty_results
from helpers.small_evaluation import given, run, weights  # noqa: F401 - fixtures

from gpen_plugin.errors import DataError
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.results import FORMAT, Column, Results, Row, read_results, write_results

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = json.loads(resources.files("gpen_plugin.evaluate").joinpath("results.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def content(given):
    """results.json of an evaluation with a failed method, cost, and two test sets."""
    bfr = {key: value for key, value in given["protocol"].items() if key != "out_size"}
    given["protocol"] = {"type": "sets", "out_size": 32, "sets": {"a": bfr, "b": {**bfr, "num_images": 2}}}
    given["methods"]["broken"] = {"type": "gpen", "weights": "nowhere.pth"}
    given["cost"] = ["seconds"]
    run(given)
    return json.loads((EvaluationOptions.from_mapping(given).root / "results.json").read_text(encoding="utf-8"))


def test_schema_is_valid_and_has_the_format():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["format"] == {"const": FORMAT}
    assert SCHEMA["title"].endswith(f"format {FORMAT}")
    properties = SCHEMA["properties"]
    for cls, section in (
        (Column, properties["columns"]["items"]),
        (Row, properties["rows"]["items"]),
        (Results, SCHEMA),
    ):
        fields = {field.name for field in dataclasses.fields(cls)} | ({"format"} if cls is Results else set())
        assert fields == {*section["properties"]} == {*section["required"]}


def test_results_follow_the_schema(content):
    VALIDATOR.validate(content)
    assert content["test_sets"]["b"] == ["b/face_0", "b/face_1"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 1),
        (("extra",), 1),
        (("size",), "32"),
        (("fingerprint", "digest"), "xyz"),
        (("columns", 0, "decimals"), -1),
        (("rows", 0, "other"), ""),
        (("images", "GPEN", "", "a/face_0", "psnr"), "20"),
        (("images", "GPEN", "", "a/face_0", "failure"), None),
        (("sets", "GPEN", "a", "swd"), [1]),
        (("test_sets", "a"), {}),
    ],
)
def test_schema_refuses_other_contents(content, path, value):
    changed = copy.deepcopy(content)
    part = changed
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(changed)


def test_missing_values_and_failures_follow_the_schema(tmp_path):
    results = nasty_results()
    write_results(tmp_path, results)
    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    del content["fingerprint"]  # made up
    errors = [error.message for error in VALIDATOR.iter_errors(content)]
    assert errors == ["'fingerprint' is a required property"]


def test_another_format_is_refused(tmp_path):
    write_results(tmp_path, nasty_results())
    file = tmp_path / "results.json"
    file.write_text(file.read_text(encoding="utf-8").replace(f'"format": {FORMAT}', '"format": 1'), encoding="utf-8")
    with pytest.raises(DataError, match=f"it has format 1, and this version reads format {FORMAT}"):
        read_results(tmp_path)
