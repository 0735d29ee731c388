import json
import re

import pytest
from helpers.results_for_report import draw_images, made_results, nasty_results

from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate import report
from gpen_plugin.evaluate.options import ReportOptions
from gpen_plugin.evaluate.report import write_report
from gpen_plugin.evaluate.results import read_results, write_results

QUICK = ReportOptions(bootstrap_resamples=100, sheet_tile=16, sheet_images=2, vector_figures=())


@pytest.fixture
def scales(tmp_path):
    """Results with two conditions, with images."""
    results = made_results({"a": [20, 22, 24], "b": [30, 31, None]}, conditions=["8x", "16x"])
    draw_images(tmp_path, results)
    return results


def data_of(page: str) -> dict:
    """What the page's script is given."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_report_is_deterministic(tmp_path, scales):
    write_results(tmp_path, scales)
    files = write_report(tmp_path, scales, QUICK)
    names = {str(file.relative_to(tmp_path)) for file in files}
    tables = {"table.md", "table.tex", "table.csv", "table.json", "per_image.csv"}
    assert names == tables | {"sheets/8x.png", "sheets/16x.png", "curves.png", "report.html"}
    first = [file.read_bytes() for file in files]
    assert write_report(tmp_path, read_results(tmp_path), QUICK) == files
    assert [file.read_bytes() for file in files] == first


def test_figures_are_also_pdf_and_svg(tmp_path, scales):
    options = ReportOptions(bootstrap_resamples=100, sheet_tile=16, sheet_images=1)
    files = write_report(tmp_path, scales, options)
    figures = {f"{stem}.{suffix}" for stem in ("sheets/8x", "sheets/16x", "curves") for suffix in ("pdf", "svg")}
    assert figures <= {str(file.relative_to(tmp_path)) for file in files}
    page = (tmp_path / "report.html").read_text()
    assert all(f'href="{file}"' in page and (tmp_path / file).is_file() for file in figures)


def test_metrics_of_several_conditions_are_separated(tmp_path, scales):
    write_report(tmp_path, scales, QUICK)
    page = (tmp_path / "report.html").read_text()
    assert page.count('<th class="group"') == 2 * 2  # metrics: their names, and below these the first condition
    assert page.count('<td class="group"') == 2 * 2  # metrics and methods


def test_one_condition_has_no_curves(tmp_path):
    results = made_results({"a": [20, 22], "b": [30, 31]}, kind="wild")
    draw_images(tmp_path, results)
    names = [file.name for file in write_report(tmp_path, results, QUICK)]
    assert "sheet.png" in names
    assert "curves.png" not in names


def test_curves_can_be_left_out(tmp_path, scales):
    options = ReportOptions(bootstrap_resamples=100, sheet_tile=16, curves=False, vector_figures=())
    assert "curves.png" not in [file.name for file in write_report(tmp_path, scales, options)]


def test_page_has_no_external_address(tmp_path, scales):
    page = write_report(tmp_path, scales, QUICK)[-1].read_text(encoding="utf-8")
    assert not re.findall(r"(?:https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", page))
    assert not re.findall(r"<link|@import|<iframe|url\(", page)
    sources = re.findall(r'<img src="([^"]{0,20})', page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/") for source in sources)


def test_names_are_escaped_in_the_page(tmp_path):
    results = nasty_results()
    draw_images(tmp_path, results)
    page = write_report(tmp_path, results, QUICK)[-1].read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img src=x" not in page
    data = data_of(page)
    assert data["keys"] == results.keys
    assert data["methods"][3]["failure"] == "CheckpointError: no file <i>"
    assert data["failures"][1][0]["1"] == "RuntimeError: <b>no</b> & $"
    assert data["values"][1][0][0][:3] == [None, None, 22.0]


def test_images_beyond_the_limit_are_not_embedded(tmp_path, scales):
    options = ReportOptions(bootstrap_resamples=100, sheet_tile=16, embedded_images=2, vector_figures=())
    page = write_report(tmp_path, scales, options)[-1].read_text(encoding="utf-8")
    assert "This page contains 2 of 6 images" in page
    assert len({path.rpartition("/")[2] for path in data_of(page)["images"] if path.startswith("inputs")}) <= 2
    whole = write_report(tmp_path, scales, QUICK)[-1].read_text(encoding="utf-8")
    assert len(data_of(whole)["images"]) > len(data_of(page)["images"])


def test_no_metric_at_all_still_gives_a_page(tmp_path):
    results = made_results({"a": [20, 22], "b": [30, 31]})
    results.columns.clear()
    draw_images(tmp_path, results)
    assert data_of(write_report(tmp_path, results, QUICK)[-1].read_text(encoding="utf-8"))["metrics"] == []


def test_unknown_image_is_named(tmp_path, scales):
    with pytest.raises(OptionError, match="report:sheet_images: got stranger, none of the 3 images"):
        write_report(tmp_path, scales, ReportOptions(sheet_images=["face_0", "stranger"]))


def test_missing_package_is_named(tmp_path, scales, monkeypatch):
    find = report.importlib.util.find_spec
    monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None if name == "jinja2" else find(name))
    with pytest.raises(OptionError, match=r'needs jinja2, .* pip install "gpen_plugin\[evaluate\]"'):
        write_report(tmp_path, scales, QUICK)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sheet_image": 3}, "report:sheet_image: unknown key.*sheet_images"),
        ({"sheet_images": "face_0"}, "report:sheet_images: got 'face_0'"),
        ({"sheet_images": 0}, "report:sheet_images: got 0; expected 1 or more"),
        ({"sheet_images": []}, "report:sheet_images: got an empty list"),
        ({"bootstrap_resamples": 10}, "report:bootstrap_resamples: got 10; expected 100 or more"),
        ({"embedded_megabytes": -1}, "report:embedded_megabytes: got -1; expected 0 or more"),
    ],
)
def test_options_are_checked(given, message):
    with pytest.raises(OptionError, match=message):
        ReportOptions.from_options(given)


def test_options_from_yaml():
    options = ReportOptions.from_options({"sheet_images": ["a", "b"], "embedded_images": 3})
    assert options.sheet_images == ("a", "b")
    assert options.embedded_images == 3
