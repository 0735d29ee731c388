"""Every method against one of them: differences by hand, marks, and errors."""

import csv
import io
import math
from dataclasses import replace

import pytest
from helpers.results_for_report import FID, LPIPS, PSNR, draw_images, made_results

from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate.options import EvaluationOptions, ReportOptions
from gpen_plugin.evaluate.report import write_report
from gpen_plugin.evaluate.results import Results
from gpen_plugin.evaluate.stats import Head, Summary
from gpen_plugin.evaluate.tables import compare, compare_csv, compare_markdown


def summary_of(values: dict, sets: dict | None = None, column=PSNR) -> Summary:
    """What is named ``GPEN, run 0`` is a run of GPEN."""
    results = made_results(values, columns=(column, FID))
    runs = {row.name: row.name.partition(", run")[0] for row in results.rows if ", run" in row.name}
    results.rows = [replace(row, run_of=runs.get(row.name, "")) for row in results.rows]
    for name, value in (sets or {}).items():
        results.sets[name][""]["fid"] = value
    return Summary.of(results, 200, 0)


def against(summary: Summary, name: str, column=PSNR):
    row = next(row for row in summary.results.rows if row.name == name)
    return compare(summary, row, "GPEN", Head(column, ""))


GPEN = {"GPEN, run 0": [20.0, 22.0, 24.0], "GPEN, run 1": [22.0, 24.0, 26.0]}


def test_difference_by_hand():
    found = against(summary_of({"Bilinear": [20.0, 21.0, 22.0], **GPEN}), "Bilinear")
    assert found.mean == pytest.approx(-2)  # the runs' mean is 21, 23, 25
    assert found.by_run == pytest.approx((-1, -3))
    assert -3 <= found.interval.low < found.mean < found.interval.high <= -1
    assert found.mark == "worse"


def test_lower_may_be_better():
    assert (
        against(summary_of({"Bilinear": [20.0, 21.0, 22.0], **GPEN}, column=LPIPS), "Bilinear", LPIPS).mark == "better"
    )


def test_runs_that_disagree_have_no_mark():
    values = {"Rival, run 0": [23.0, 25.0, 27.0], "Rival, run 1": [21.5, 23.5, 25.5], **GPEN}
    found = against(summary_of(values), "Rival")
    assert found.interval.low > 0
    assert found.by_run == pytest.approx((3, -0.5))
    assert found.mark == ""


def test_images_that_disagree_have_no_mark():
    found = against(summary_of({"Bilinear": [30.0, 14.0, 24.0], **GPEN}), "Bilinear")
    assert found.interval.low < 0 < found.interval.high
    assert found.mark == ""


def test_set_metrics_are_marked_by_runs():
    values = {"Rival, run 0": [1, 2, 3], "Rival, run 1": [1, 2, 3], "Single": [1, 2, 3], **GPEN}
    sets = {"Rival, run 0": 9.0, "Rival, run 1": 7.0, "Single": 5.0, "GPEN, run 0": 6.0, "GPEN, run 1": 4.0}
    summary = summary_of(values, sets)
    rival, single = (against(summary, name, FID) for name in ("Rival", "Single"))
    assert (rival.mean, rival.interval, rival.by_run, rival.mark) == (3, None, (3, 3), "worse")
    assert (single.mean, single.by_run, single.mark) == (0, (-1, 1), "")


def test_runs_are_compared_on_shared_images():
    """A rival that fails on the one easy image is no worse for it: on the others it is better, in every run."""
    values = {"Rival, run 0": [21.0, 23.0, None], "Rival, run 1": [23.0, 25.0, 60.0]}
    values |= {"GPEN, run 0": [20.0, 22.0, 60.0], "GPEN, run 1": [22.0, 24.0, 62.0]}
    summary = summary_of(values)
    rival, single = against(summary, "Rival"), against(summary_of({"One": [21.5, 23.5, None], **GPEN}), "One")
    assert rival.mean == pytest.approx(1)
    assert rival.by_run == pytest.approx((1, 1))
    assert rival.mark == "better"
    assert single.by_run == pytest.approx((1.5, -0.5))


def test_one_image_has_no_mark():
    found = against(summary_of({"Bilinear": [20.0], "GPEN, run 0": [21.0], "GPEN, run 1": [22.0]}), "Bilinear")
    assert found.by_run == pytest.approx((-1, -2))
    assert (found.interval, found.mark) == (None, "")


def test_failed_run_has_no_comparison():
    summary = summary_of(
        {"Rival, run 0": [1.0, 2.0], "Rival, run 1": [None, None], **{k: v[:2] for k, v in GPEN.items()}}
    )
    found = against(summary, "Rival")
    assert math.isnan(found.mean)
    assert (found.interval, found.by_run, found.mark) == (None, (), "")
    assert "| Rival | - |" in compare_markdown(summary, "GPEN")


def test_no_run_no_verdict_on_a_set():
    summary = Summary.of(made_results({"Bilinear": [1, 2], "GPEN": [3, 4]}, columns=(FID,)), 200, 0)
    assert against(summary, "Bilinear", FID).mark == ""


def test_tables():
    summary = summary_of({"Bilinear": [20.0, 21.0, 22.0], **GPEN})
    text = compare_markdown(summary, "GPEN")
    assert "| Bilinear | ▼ -2.00 [" in text
    assert "], 2/2 |" in text
    assert "| GPEN |" not in text
    lines = list(csv.DictReader(io.StringIO(compare_csv(summary, "GPEN"))))
    psnr = next(line for line in lines if line["metric"] == "psnr")
    assert (psnr["method"], psnr["against"], psnr["difference"], psnr["by_run"]) == ("Bilinear", "GPEN", "-2", "-1 -3")
    assert psnr["mark"] == "worse"


def test_nothing_is_never_minus_nothing():
    text = compare_markdown(summary_of({"Bilinear": [21.001, 22.999, 25.0], **GPEN}), "GPEN")
    assert "≈ +0.00 [+0.00, +0.00]" in text
    assert "-0.00" not in text


def test_note_explains_agreeing_runs():
    text = compare_markdown(summary_of({"Bilinear": [20.0, 21.0, 22.0], **GPEN}), "GPEN")
    assert "- By chance alone, two runs agree in one of two cases, and three in one of four.\n" in text


def test_report_replaces_an_earlier_comparison(tmp_path):
    results: Results = made_results({"Bilinear": [20.0, 21.0], "GPEN": [22.0, 23.0]})
    draw_images(tmp_path, results)
    against = {tmp_path / "against.md", tmp_path / "against.csv"}
    assert against <= set(write_report(tmp_path, results, ReportOptions(against="GPEN", vector_figures=())))
    assert all(file.is_file() for file in against)
    assert not against & set(write_report(tmp_path, results, ReportOptions(vector_figures=())))
    assert not any(file.exists() for file in against)


def test_stranger_is_refused_by_the_report_too(tmp_path):
    results = made_results({"Bilinear": [20.0, 21.0], "GPEN": [22.0, 23.0]})
    with pytest.raises(OptionError, match=r"report:against: got 'GPEM'; expected one of .*GPEN"):
        write_report(tmp_path, results, ReportOptions(against="GPEM"))


def test_stranger_is_refused_before_the_work():
    given = {
        "name": "x",
        "protocol": {"type": "bfr", "dataroot_gt": "faces"},
        "methods": {"GPEN": {"type": "bilinear"}},
        "report": {"against": "GPEM"},
    }
    with pytest.raises(OptionError, match=r"report:against: got 'GPEM'; expected one of .*GPEN"):
        EvaluationOptions.from_mapping(given)
