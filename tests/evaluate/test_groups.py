"""Means by groups of images: a difference that was planted is found, and none that was not."""

import csv
import io
import math

import numpy as np
import pytest
from helpers.results_for_report import FID, LPIPS, PSNR, draw_images, made_results
from helpers.small_evaluation import given, run, weights  # noqa: F401 - fixtures

from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.groups import GroupMeans, Labels
from gpen_plugin.evaluate.options import EvaluationOptions, ReportOptions
from gpen_plugin.evaluate.report import write_report
from gpen_plugin.evaluate.stats import Summary
from gpen_plugin.evaluate.tables import groups_csv, groups_markdown

DARK, LIGHT, FEW = 12, 20, 5


def planted(columns=(PSNR, FID), conditions=("",)) -> tuple[Summary, Labels]:
    """A method that is worse by 4 on 12 dark faces, and one that is not; five faces more, too few for an interval."""
    noise = np.tile([-1.0, 0.0, 1.0], 20)[: DARK + LIGHT + FEW]
    tone = ["dark"] * DARK + ["light"] * LIGHT + ["none"] * FEW
    biased = 25 + noise - 4 * (np.array(tone) == "dark")
    results = made_results({"biased": biased, "fair": 24 + noise}, columns=columns, conditions=conditions)
    labels = Labels(["tone"], {key: {"tone": name} for key, name in zip(results.keys, tone, strict=True)})
    return Summary.of(results, 500, 0), labels


def test_planted_difference_is_found_by_hand():
    summary, labels = planted()
    dark, light, few = GroupMeans.of(summary, labels).parts["biased", "", "psnr"]
    assert (dark.images, light.images, few.images) == (DARK, LIGHT, FEW)
    values = summary.results.image_values("biased", "", "psnr")
    assert dark.mean == pytest.approx(values[:DARK].mean())
    assert dark.difference == pytest.approx(values[:DARK].mean() - values[DARK:].mean())
    assert dark.interval.low < dark.mean < dark.interval.high
    assert dark.difference_interval.low < dark.difference < dark.difference_interval.high < -3
    assert dark.mark == "worse"
    assert light.mark == "better"


def test_no_difference_is_not_marked():
    summary, labels = planted()
    assert [part.mark for part in GroupMeans.of(summary, labels).parts["fair", "", "psnr"]] == ["", "", ""]


def test_lower_is_better_turns_the_marks_around():
    summary, labels = planted(columns=(LPIPS,))
    assert [part.mark for part in GroupMeans.of(summary, labels).parts["biased", "", "lpips"]] == [
        "better",
        "worse",
        "",
    ]


def test_difference_of_constants_is_exact():
    results = made_results({"m": [20.0] * 10 + [23.5] * 10}, columns=(PSNR,))
    labels = Labels(["c"], {key: {"c": "ab"[place // 10]} for place, key in enumerate(results.keys)})
    one, other = GroupMeans.of(Summary.of(results, 100, 0), labels).parts["m", "", "psnr"]
    assert (one.difference, one.difference_interval, one.interval) == (-3.5, (-3.5, -3.5), (20, 20))
    assert (other.difference, other.difference_interval) == (3.5, (3.5, 3.5))


def test_group_below_ten_images_has_no_interval():
    summary, labels = planted()
    few = GroupMeans.of(summary, labels).parts["biased", "", "psnr"][2]
    assert few.mean == pytest.approx(summary.results.image_values("biased", "", "psnr")[-FEW:].mean())
    assert (few.interval, few.difference_interval, few.mark) == (None, None, "")


def test_fewer_than_ten_others_give_no_difference():
    results = made_results({"m": [*np.arange(10.0), *np.arange(50.0, 59.0)]}, columns=(PSNR,))
    labels = Labels(["c"], {key: {"c": "ab"[place // 10]} for place, key in enumerate(results.keys)})
    one, other = GroupMeans.of(Summary.of(results, 100, 0), labels).parts["m", "", "psnr"]
    assert one.interval is not None
    assert one.difference == pytest.approx(4.5 - 54)
    assert one.difference_interval is None
    assert other.interval is None


def test_images_without_value_are_excluded_from_the_group():
    summary, labels = planted()
    summary.results.images["biased"][""]["face_0"] = {"failure": "no"}
    breakdown = GroupMeans.of(summary, labels)
    assert breakdown.parts["biased", "", "psnr"][0].images == DARK - 1
    assert f"(n = {DARK - 1}) ▼ |" in groups_markdown(breakdown)


def test_groups_markdown_has_a_table_per_metric():
    summary, labels = planted()
    page = groups_markdown(GroupMeans.of(summary, labels))
    assert page.count("## ") == page.count("## PSNR ↑") == 1
    assert "| Label | Group | Images | biased | fair |" in page
    lines = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert lines[0].startswith("| all |  | 37 | 23.68 | 23.97 |")
    assert [line.split(" | ")[1:3] for line in lines[1:]] == [["dark", "12"], ["light", "20"], ["none", "5"]]
    assert lines[1].endswith("| 21.00 ▼ | 24.00 |")
    assert "2 of 4 differences are marked; about 0.2 are expected by chance" in page
    assert "FID" not in page


def test_markdown_has_a_table_per_condition():
    summary, labels = planted(conditions=("8x", "16x"))
    page = groups_markdown(GroupMeans.of(summary, labels))
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## PSNR ↑, 8x", "## PSNR ↑, 16x"]


def test_groups_csv_has_a_line_per_value():
    summary, labels = planted(conditions=("8x", "16x"))
    lines = list(csv.DictReader(io.StringIO(groups_csv(GroupMeans.of(summary, labels)))))
    assert len(lines) == 2 * 3 * 2
    first, few = lines[0], lines[4]
    place = [first[head] for head in ("condition", "label", "group", "images", "method", "metric", "n")]
    assert place == ["8x", "tone", "dark", "12", "biased", "psnr", "12"]
    assert float(first["difference_low"]) < float(first["difference"]) < float(first["difference_high"]) < 0
    assert (first["mean"], first["mark"], first["fingerprint"]) == ("21", "worse", "0123456789ab")
    assert (few["group"], few["low"], few["difference_low"], few["mark"]) == ("none", "", "", "")


def test_no_label_that_fits_leaves_no_table():
    summary, _ = planted()
    page = groups_markdown(GroupMeans.of(summary, Labels(["tone"], {"stranger": {"tone": "dark"}})))
    assert "37 images are not labeled and in no group." in page
    assert "No group of images: nothing to compare." in page
    assert "|" not in page


@pytest.fixture
def labels_file(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("file,tone,name\n" + "".join(f"face_{n}.jpg,<i>{n % 2}|,{n}\n" for n in range(5)), encoding="utf-8")
    return file


def test_report_has_group_tables_with_labels(tmp_path, labels_file):
    results = made_results({"a": [20, 22, 24], "b": [30, 31, None]}, conditions=["8x", "16x"])
    draw_images(tmp_path, results)
    options = ReportOptions(bootstrap_resamples=100, sheet_tile=16, vector_figures=(), labels=str(labels_file))
    names = [file.name for file in write_report(tmp_path, results, options)]
    assert {"breakdown.md", "breakdown.csv"} <= set(names)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count('<th class="label"') == 2 * 2  # conditions and labels
    assert page.count("<details") == 2 + 1  # and what the methods are
    assert '<th scope="row">&lt;i&gt;0|</th>' in page
    assert "&lt;i&gt;1\\|" in (tmp_path / "breakdown.md").read_text(encoding="utf-8")
    plain = ReportOptions(bootstrap_resamples=100, sheet_tile=16, vector_figures=())
    assert "breakdown.md" not in [file.name for file in write_report(tmp_path, results, plain)]
    assert "By labels" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_evaluation_with_labels_and_runs(given, labels_file, weights):
    given["report"] |= {"labels": str(labels_file), "label_columns": ["tone"], "bootstrap_resamples": 100}
    given["methods"]["GPEN"] |= {"weights": str(weights).replace("net_g", "{run}"), "runs": ["net_g"]}
    results = run(given)
    root = EvaluationOptions.from_mapping(given).root
    lines = list(csv.DictReader(io.StringIO((root / "breakdown.csv").read_text(encoding="utf-8"))))
    assert {(line["label"], line["group"], line["n"]) for line in lines} == {
        ("tone", "<i>0|", "2"),
        ("tone", "<i>1|", "2"),
    }
    assert {line["method"] for line in lines} == {"Bilinear", "Bicubic", "GPEN"}
    own = next(line for line in lines if (line["method"], line["group"]) == ("GPEN", "<i>1|"))
    expected = results.image_values("GPEN, run net_g", "", "psnr")[[1, 3]].mean()
    assert math.isclose(float(own["mean"]), expected, rel_tol=1e-9)
    run({**given, "report": {}}, restart=True)
    assert not (root / "breakdown.csv").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": "nowhere.csv"}, DataError, "report:labels"),
        ({"label_columns": ["age"]}, OptionError, "report:label_columns: got age.*expected some of tone, name"),
    ],
)
def test_wrong_labels_are_an_error_before_restoring(given, labels_file, change, error, message):
    given["report"] = {"labels": str(labels_file), **change}
    with pytest.raises(error, match=message):
        run(given)
    assert not EvaluationOptions.from_mapping(given).root.exists()
