"""A method that was trained several times: its runs are measured apart, and are one row of every table."""

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.results_for_report import FID, PSNR, draw_images, made_results
from helpers.small_evaluation import count_restored, given, run, weights, written  # noqa: F401 - fixtures
from helpers.small_networks import NETWORKS, built

from gpen_plugin.cli.evaluate import main
from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate.options import EvaluationOptions, ReportOptions, runs_of
from gpen_plugin.evaluate.report import write_report
from gpen_plugin.evaluate.results import Results, merge_results, read_results, restored_path, write_results
from gpen_plugin.evaluate.stats import Head, Summary, average_runs
from gpen_plugin.evaluate.tables import latex, markdown, table_json, wide_csv


def as_runs(results: Results, method: str = "GPEN") -> Results:
    """The rows whose names begin with ``GPEN,`` as runs of GPEN."""
    run_of = [method if row.name.startswith(f"{method},") else "" for row in results.rows]
    results.rows = [replace(row, run_of=name) for row, name in zip(results.rows, run_of, strict=True)]
    return results


@pytest.fixture
def three():
    """Three runs between two other methods: two images, with means over images of 21, 24 and 27."""
    values = {"Bilinear": [10, 12], "GPEN, run 0": [20, 22], "GPEN, run 1": [25, 23], "GPEN, run 2": [27, 27]}
    results = as_runs(made_results({**values, "Other": [20, 20]}))
    for name, value in zip(list(values)[1:], [3.0, 4.0, 8.0], strict=True):
        results.sets[name][""]["fid"] = value
    return results


def test_entry_without_runs_is_one_run():
    entry = {"type": "gpen", "weights": "a.pth"}
    assert runs_of("GPEN", entry) == [("GPEN", "GPEN", entry)]
    assert runs_of("GPEN", entry)[0].run_of == ""


def test_each_run_has_its_own_weights_and_name():
    first, second = runs_of("GPEN", {"type": "gpen", "weights": "s{run}/{run}.pth", "runs": [0, "b"], "param_key": "p"})
    assert first == ("GPEN, run 0", "GPEN", {"type": "gpen", "weights": "s0/0.pth", "param_key": "p"})
    assert (second.name, second.entry["weights"], second.run_of) == ("GPEN, run b", "sb/b.pth", "GPEN")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "gpen", "weights": "a_{run}.pth"}, r"methods:X:weights: got a_\{run\}.pth, and no runs"),
        ({"type": "gpen", "weights": "a.pth", "runs": [0, 1]}, r"methods:X:runs: given, and weights has no \{run\}"),
        ({"type": "bilinear", "runs": [0]}, r"methods:X:runs: given, and weights has no \{run\}"),
        ({"type": "gpen", "weights": "{run}.pth", "runs": []}, r"methods:X:runs: got \[\]"),
        ({"type": "gpen", "weights": "{run}.pth", "runs": 3}, "methods:X:runs: got 3"),
        ({"type": "gpen", "weights": "{run}.pth", "runs": [0.5]}, r"methods:X:runs: got \[0.5\]"),
        ({"type": "gpen", "weights": "{run}.pth", "runs": [0, 1, "0"]}, "methods:X:runs: got 0 more than once"),
        ({"type": "gpen", "weights": "{run}.pth", "runs": [0, 1], "param": 1}, "methods:X:param.*param_key"),
        ({"type": "gpen", "weights": "{run}.pth", "runs": ["a b", "a-b"]}, "methods:X.*folder x_run_a_b"),
        ({"type": "bicubic", "weights": "{run}.pth", "runs": [0]}, "methods:X:weights: unknown key"),
    ],
)
def test_wrong_runs_are_an_error_before_reading(given, entry, message):
    given["methods"]["X"] = entry
    with pytest.raises(OptionError, match=message):
        EvaluationOptions.from_mapping(given)


def test_method_named_like_a_run_is_an_error(given):
    given["methods"]["X"] = {"type": "gpen", "weights": "{run}.pth", "runs": [0]}
    given["methods"]["X, run 0"] = {"type": "bilinear"}
    with pytest.raises(OptionError, match="would share the folder x_run_0"):
        EvaluationOptions.from_mapping(given)


def test_averaged_row_equals_mean_of_runs(three):
    table = average_runs(three)
    assert [row.name for row in table.rows] == ["Bilinear", "GPEN", "Other"]
    assert table.rows[1].folder == three.rows[1].folder
    assert table.image_values("GPEN", "", "psnr").tolist() == [24, 24]
    assert table.value("GPEN", "", FID) == 5
    assert table.images["Bilinear"] == three.images["Bilinear"]
    assert len(three.rows) == 5


def test_equal_parts_of_descriptions_stand_once(three):
    parts = ("s0.pth; 64 px", "s1.pth; 64 px", "s2.pth; 64 px; odd")
    for place, part in enumerate(parts, start=1):
        three.rows[place] = replace(three.rows[place], description=f"GPEN; {part}")
    assert average_runs(three).rows[1].description == "mean over 3 runs; GPEN; s0.pth, s1.pth, s2.pth; 64 px; odd"


def test_results_without_runs_stay_as_they_are():
    results = made_results({"a": [1, 2], "b": [3, None]})
    assert average_runs(results) == results


def test_spread_equals_std_of_run_means(three):
    summary = Summary.of(three, 100, 0)
    assert set(summary.spreads) == {("GPEN", "", "psnr"), ("GPEN", "", "fid")}
    assert summary.spreads["GPEN", "", "psnr"].values == (21, 24, 27)
    assert summary.spreads["GPEN", "", "psnr"].deviation == pytest.approx(3)
    assert summary.spreads["GPEN", "", "fid"].deviation == pytest.approx(math.sqrt(7))
    assert summary.spread_text(summary.results.rows[1], Head(PSNR, "")) == "± 3.00"
    assert summary.spread_text(summary.results.rows[0], Head(PSNR, "")) == ""


def test_every_form_of_the_table_has_the_spread(three, tmp_path):
    draw_images(tmp_path, three)
    summary = Summary.of(three, 100, 0)
    assert "| GPEN | **24.00** ± 3.00 | **5.00** ± 2.65 | 2 |" in markdown(summary)
    assert r"\textbf{24.00} $\pm$ 3.00" in latex(summary)
    lines = {line["method"]: line for line in csv.DictReader(io.StringIO(wide_csv(summary)))}
    assert (lines["GPEN"]["psnr_sd"], lines["Bilinear"]["psnr_sd"]) == ("3", "")
    cells = {(cell["row"], cell["column"]): cell for cell in json.loads(table_json(summary))["cells"]}
    assert cells["GPEN", "psnr"]["runs"] == {"values": [21, 24, 27], "deviation": 3}
    assert cells["Other", "psnr"]["runs"] is None
    options = ReportOptions(bootstrap_resamples=100, sheet_tile=16, vector_figures=())
    page = write_report(tmp_path, three, options)[-1].read_text(encoding="utf-8")
    assert ">± 3.00</span>" in page
    notes = [note for note in summary.notes() if note.startswith("± is the standard deviation (n - 1)")]
    assert len(notes) == 1
    assert "GPEN (3)" in notes[0]


def test_no_note_on_runs_without_runs():
    summary = Summary.of(made_results({"a": [1, 2], "b": [3, 4]}), 100, 0)
    assert "±" not in markdown(summary)


def test_one_run_has_no_spread():
    results = as_runs(made_results({"GPEN, run 0": [20, 22], "b": [3, 4]}))
    summary = Summary.of(results, 100, 0)
    assert summary.spreads == {}
    assert [row.name for row in summary.results.rows] == ["GPEN", "b"]


def test_failure_of_one_run_is_a_failure_of_the_method(three):
    three.images["GPEN, run 1"][""]["face_0"] = {"failure": "RuntimeError: out of luck"}
    summary = Summary.of(three, 100, 0)
    (failure,) = summary.results.failures()
    assert (failure.method, failure.reason) == ("GPEN", "run 1: RuntimeError: out of luck")
    assert summary.spreads["GPEN", "", "psnr"].values == (22, 23, 27)  # of the image that all runs have
    assert "24.00† ± 2.65" in markdown(summary)


def test_missing_value_of_one_run_is_missing_in_the_mean(three):
    three.images["GPEN, run 2"][""]["face_1"]["psnr"] = math.nan
    table = average_runs(three)
    assert table.image_values("GPEN", "", "psnr")[0] == 24
    assert np.isnan(table.image_values("GPEN", "", "psnr")[1])


def test_run_that_cannot_be_built_fails_the_method(three):
    lost = three.rows[2] = replace(three.rows[2], failure="MissingFileError: no file")
    del three.images[lost.name], three.sets[lost.name]
    summary = Summary.of(three, 100, 0)
    assert summary.results.rows[1].failure == "run 1: MissingFileError: no file"
    assert "GPEN could not run: run 1: MissingFileError: no file" in summary.notes()
    assert math.isnan(summary.results.value("GPEN", "", PSNR))
    assert summary.spreads == {}


@pytest.fixture
def two_runs(given, tmp_path):
    """The small evaluation, with two runs of GPEN in place of one."""
    for number in (0, 1):
        net = built(NETWORKS["GPEN concat"], seed=number)
        torch.save({"params_ema": net.state_dict()}, tmp_path / f"s{number}.pth")
    given["methods"]["GPEN"] = {"type": "gpen", "weights": str(tmp_path / "s{run}.pth"), "runs": [0, 1]}
    given["protocol"]["num_images"] = 2
    return given


def test_runs_are_restored_separately_and_shown_as_one_row(two_runs, tmp_path, monkeypatch):
    results = run(two_runs)
    root = EvaluationOptions.from_mapping(two_runs).root
    assert [row.name for row in results.rows] == ["Bilinear", "Bicubic", "GPEN, run 0", "GPEN, run 1"]
    assert read_results(root) == results
    first, second = (restored_path(root, row, "", "face_0").read_bytes() for row in results.rows[2:])
    assert first != second
    table = written(two_runs)["table.md"].decode()
    mean = np.mean([results.value(row.name, "", results.columns[0]) for row in results.rows[2:]])
    assert f"{mean:.2f}" in table
    assert "GPEN, run 0" not in table.partition("Methods:")[0]
    assert "GPEN, run 1,face_0" not in table
    made = count_restored(monkeypatch)
    torch.save({"params_ema": built(NETWORKS["GPEN concat"], seed=7).state_dict()}, tmp_path / "s1.pth")
    run(two_runs)
    assert made == [("gpen", "face_0"), ("gpen", "face_1")]  # of the run whose weights are others


def test_runs_in_two_folders_merge_into_one_row(two_runs, tmp_path):
    methods = two_runs["methods"]
    roots = [tmp_path / "run_0", tmp_path / "run_1"]
    for number, root in enumerate(roots):
        own = {"Bilinear": methods["Bilinear"], "GPEN": {**methods["GPEN"], "runs": [number]}}
        run({**two_runs, "output": str(root), "methods": own})
    run({**two_runs, "methods": {name: methods[name] for name in ("Bilinear", "GPEN")}})
    assert main(["--merge", *map(str, roots), "-o", str(tmp_path / "both")]) == 0
    assert (tmp_path / "both" / "table.md").read_bytes() == written(two_runs)["table.md"]


def test_merging_runs_with_a_whole_method_is_an_error(two_runs, tmp_path):
    run({**two_runs, "output": str(tmp_path / "runs"), "methods": {"GPEN": two_runs["methods"]["GPEN"]}})
    whole = {"GPEN": {"type": "bilinear"}}
    run({**two_runs, "output": str(tmp_path / "whole"), "methods": whole})
    with pytest.raises(OptionError, match="'GPEN' is one row in one folder, and runs in another"):
        merge_results([tmp_path / "runs", tmp_path / "whole"], tmp_path / "both")


def test_results_without_runs_are_readable(tmp_path):
    results = made_results({"a": [1, 2]})
    write_results(tmp_path, results)
    file = tmp_path / "results.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["rows"][0].pop("run_of") == ""
    file.write_text(json.dumps(content), encoding="utf-8")
    assert read_results(tmp_path) == results
