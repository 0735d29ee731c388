"""Tables are put side by side only where one protocol made them."""

import dataclasses

import pytest
from helpers.small_evaluation import given, run, weights, written  # noqa: F401 - fixtures

from gpen_plugin.cli.evaluate import main
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.fingerprint import Fingerprint
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.results import merge_results, read_results, restored_path, write_results
from gpen_plugin.evaluate.stats import Summary


@pytest.fixture
def halves(given, tmp_path):
    """One evaluation in two folders, each with some of its methods."""
    names = list(given["methods"])
    roots = []
    for part in (names[:1], names[1:]):
        roots.append(tmp_path / f"half_{len(part)}")
        run({**given, "output": str(roots[-1]), "methods": {name: given["methods"][name] for name in part}})
    return roots


def test_two_halves_are_the_whole(given, halves, tmp_path):
    run(given)
    assert main(["--merge", *map(str, halves), "-o", str(tmp_path / "both")]) == 0
    whole, both = read_results(EvaluationOptions.from_mapping(given).root), read_results(tmp_path / "both")
    assert both == whole
    for row in both.rows:
        assert restored_path(tmp_path / "both", row, "", both.keys[0]).is_file()
    assert (tmp_path / "both" / "table.md").read_bytes() == written(given)["table.md"]


def test_merging_another_protocol_is_an_error(given, halves, tmp_path):
    given["protocol"]["num_images"] = 3
    given["methods"] = {"Other": {"type": "bicubic"}}
    run(given)
    with pytest.raises(DataError, match="differs from"):
        merge_results([halves[0], EvaluationOptions.from_mapping(given).root], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_merging_other_versions_needs_the_option(halves, tmp_path):
    results = read_results(halves[1])
    fingerprint = Fingerprint.from_dict(results.fingerprint)
    changed = dataclasses.replace(fingerprint, versions={**fingerprint.versions, "torch": "1.0"})
    results.fingerprint = changed.to_dict()
    write_results(halves[1], results)
    with pytest.raises(DataError, match="--other-versions"):
        merge_results(halves, tmp_path / "both")
    merged = merge_results(halves, tmp_path / "both", other_versions=True)
    assert any("other versions" in note for note in merged.notes)


def test_metric_measured_in_two_ways_is_refused(given, halves, tmp_path):
    given["metrics"]["psnr"]["crop_border"] = 2
    given["methods"] = {"Other": {"type": "bicubic"}}
    run(given)
    with pytest.raises(OptionError, match=r"metrics:psnr.*crop_border"):
        merge_results([halves[0], EvaluationOptions.from_mapping(given).root], tmp_path / "both")


def test_columns_with_opposite_directions_do_not_merge(given, halves, tmp_path):
    given["metrics"]["psnr"]["better"] = "lower"
    given["methods"] = {"Other": {"type": "bicubic"}}
    run(given)
    with pytest.raises(OptionError, match=r"metrics:psnr.*lower is better in one"):
        merge_results([EvaluationOptions.from_mapping(given).root, halves[0]], tmp_path / "both")


def test_shared_baseline_is_merged_once(given, halves, tmp_path):
    whole = run({**given, "output": str(tmp_path / "whole")})
    merged = merge_results([halves[0], tmp_path / "whole"], tmp_path / "both")
    assert [row.name for row in merged.rows] == [row.name for row in whole.rows]
    assert merged.images == whole.images


def test_shared_baseline_may_have_other_metrics(given, halves, tmp_path):
    del given["metrics"]["swd"]
    given["metrics"]["ssim"] = {"type": "calculate_ssim", "crop_border": 0, "label": "SWD ×10³ (GT)"}
    run({**given, "output": str(tmp_path / "whole")})
    merged = merge_results([halves[0], tmp_path / "whole"], tmp_path / "both")
    assert [row.name for row in merged.rows] == list(given["methods"])
    assert [column.label for column in merged.columns] == ["PSNR", "SWD ×10³ (GT) (swd)", "SWD ×10³ (GT) (ssim)"]
    assert {*merged.images["Bilinear"][""][merged.keys[0]]} == {"psnr", "ssim"}
    assert {*merged.sets["Bilinear"][""]} == {"swd"}
    notes = Summary.of(merged, 100, 0).notes()
    assert "SWD ×10³ (GT) (swd) has no values for Bicubic, GPEN." in notes
    assert not any(note.startswith("†") for note in notes)


def test_two_methods_of_one_name_are_refused(given, halves, tmp_path):
    run({**given, "output": str(tmp_path / "other"), "methods": {"Bilinear": {"type": "bicubic"}}})
    with pytest.raises(OptionError, match="'Bilinear'"):
        merge_results([halves[0], tmp_path / "other"], tmp_path / "both")
