"""Metrics over an evaluation: those without their files or values do not stop the others."""

import math
import sys

import cv2
import numpy as np
import pytest
from helpers.small_evaluation import given, run, weights  # noqa: F401 - fixtures

from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError
from gpen_plugin.evaluate import measure
from gpen_plugin.evaluate import run as run_module
from gpen_plugin.evaluate.measure import metric_columns
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.results import read_sample, restored_path
from gpen_plugin.host import registered
from gpen_plugin.metrics import iqa
from gpen_plugin.metrics.swd import calculate_swd


@pytest.fixture
def metric(monkeypatch):
    """Adds a function to the host's metrics for one test."""

    def add(function):
        known = {**registered("metric"), function.__name__: function}
        monkeypatch.setattr(measure, "resolve", lambda kind, name: known.get(name))
        return {"type": function.__name__}

    return add


@pytest.mark.parametrize("error", [MissingFileError, CheckpointError])
def test_missing_metric_file_is_named_in_its_column(given, metric, error):
    calls = []

    def calculate_lost(img, img2):
        calls.append(1)
        raise error("weights", "lost.pth is not there", "the network", "Put it into the folder.")

    given["metrics"] = {"lost": metric(calculate_lost), **given["metrics"]}
    results = run(given)
    assert "lost.pth" in results.columns[0].note
    assert len(calls) == 1
    assert math.isnan(results.value("GPEN", "", results.columns[0]))
    assert math.isfinite(results.value("GPEN", "", results.columns[1]))
    assert math.isfinite(results.value("GPEN", "", results.columns[2]))


def test_file_that_came_later_is_used(given, metric):
    there = []

    def calculate_lost(img, img2):
        if not there:
            raise MissingFileError("weights", "lost.pth is not there", "the network", "Put it into the folder.")
        return 1.5

    given["metrics"]["lost"] = metric(calculate_lost)
    run(given)
    there.append(True)
    results = run(given)
    assert results.value("GPEN", "", results.columns[-1]) == 1.5
    assert not results.columns[-1].note


def test_images_without_value_are_counted_in_the_note(given, metric):
    def calculate_sometimes(img, img2):
        if img2[0, 0, 0] == first_truth[0, 0, 0] and np.array_equal(img2, first_truth):
            raise ValueError("no face in the image")
        return 2.0

    run(given)
    root = EvaluationOptions.from_mapping(given).root
    first_truth = read_sample(root, "face_0", "", 32, True).gt
    given["metrics"]["sometimes"] = metric(calculate_sometimes)
    results = run(given)
    values = results.image_values("GPEN", "", "sometimes")
    assert np.isnan(values).tolist() == [True, False, False, False]
    assert results.value("GPEN", "", results.columns[-1]) == 2.0
    assert "3 without a value" in results.columns[-1].note  # one for each of the methods
    assert "no face in the image" in results.columns[-1].note


def test_set_metric_equals_sum_over_pairs(given):
    results = run(given)
    root = EvaluationOptions.from_mapping(given).root
    total = 0
    for key in results.keys:
        image = cv2.imread(str(restored_path(root, results.rows[2], "", key)))
        total = total + calculate_swd(image, read_sample(root, key, "", 32, True).gt, patches=16, directions=16)
    assert results.value("GPEN", "", results.columns[1]) == pytest.approx(total / 4)


def test_measured_values_are_cached(given, metric):
    calls = []

    def calculate_counted(img, img2):
        calls.append(1)
        return float(len(calls))

    given["metrics"]["counted"] = metric(calculate_counted)
    first = run(given)
    assert len(calls) == 12
    assert run(given).images == first.images
    assert len(calls) == 12


@pytest.mark.parametrize(
    ("entry", "label", "lower"),
    [
        ({"type": "calculate_psnr", "crop_border": 0}, "PSNR", False),
        ({"type": "calculate_niqe", "crop_border": 0, "better": "lower"}, "NIQE", True),
        ({"type": "calculate_swd", "better": "lower"}, "SWD ×10³ (GT)", True),
        ({"type": "calculate_fid", "better": "lower"}, "FID (GT)", True),
        ({"type": "calculate_fid", "better": "lower", "statistics": "a/ffhq_512.npz"}, "FID (ffhq_512)", True),
        ({"type": "calculate_identity", "against": "input"}, "Identity (input)", False),
        ({"type": "calculate_identity", "unit": "degrees"}, "Identity, degrees", True),
        ({"type": "calculate_lpips", "better": "lower", "label": "LPIPS-VGG"}, "LPIPS-VGG", True),
    ],
)
def test_labels_name_the_reference(entry, label, lower):
    (column,) = metric_columns({"x": entry})
    assert (column.column.label, column.column.lower_is_better) == (label, lower)


def test_set_metrics_are_recognized():
    entries = {"fid": "calculate_fid", "kid": "calculate_kid", "swd": "calculate_swd", "lpips": "calculate_lpips"}
    found = metric_columns({name: {"type": kind, "better": "lower"} for name, kind in entries.items()})
    assert [column.of_sets for column in found] == [True, True, True, False]


def test_settings_contain_no_folder(tmp_path):
    settings = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.npz").write_bytes(b"the same")
        entry = {"type": "calculate_fid", "better": "lower", "statistics": str(tmp_path / folder / "s.npz")}
        settings.append(metric_columns({"fid": entry})[0].column.settings)
    assert settings[0] == settings[1]
    (tmp_path / "b" / "s.npz").write_bytes(b"another")
    assert metric_columns({"fid": entry})[0].column.settings != settings[0]


def test_columns_of_one_metric_have_different_labels():
    columns = metric_columns(
        {
            "psnr": {"type": "calculate_psnr", "crop_border": 0},
            "psnr_y": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": True},
            "ssim": {"type": "calculate_ssim", "crop_border": 0},
        }
    )
    assert [column.column.label for column in columns] == ["PSNR (psnr)", "PSNR (psnr_y)", "SSIM"]
    named = metric_columns(
        {
            "psnr": {"type": "calculate_psnr", "crop_border": 0},
            "psnr_y": {"type": "calculate_psnr", "crop_border": 0, "label": "PSNR, luma"},
        }
    )
    assert [column.column.label for column in named] == ["PSNR", "PSNR, luma"]


def test_column_compares_with_another_method(given):
    given["metrics"] = {"ind": {"type": "calculate_rmse", "against": "Bicubic", "better": "lower"}}
    results = run(given)
    assert results.columns[0].label == "RMSE (Bicubic)"
    root, (bilinear, bicubic, _) = EvaluationOptions.from_mapping(given).root, results.rows
    squares = []
    for key in results.keys:
        one, other = (cv2.imread(str(restored_path(root, row, "", key))).astype(float) for row in (bilinear, bicubic))
        squares.append(np.square(one - other).mean())
    assert results.sets["Bilinear"][""]["ind"] == pytest.approx(np.sqrt(np.mean(squares)))
    assert "Bicubic" not in results.sets  # not with itself
    given["methods"]["Bicubic"] = {"type": "bilinear"}
    assert run(given).sets["Bilinear"][""]["ind"] == 0


def test_unknown_method_to_compare_with_is_refused(given):
    given["metrics"]["psnr"]["against"] = "Bicubical"
    with pytest.raises(OptionError, match="metrics:psnr:against: got 'Bicubical'; expected gt, input, or a method"):
        EvaluationOptions.from_mapping(given)


def test_missing_package_is_reported_before_the_restoring(given, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    iqa._create.cache_clear()
    given["metrics"]["musiq"] = {"type": "calculate_iqa", "name": "musiq"}
    seen = []
    restore_all = run_module.restore_all
    monkeypatch.setattr(run_module, "restore_all", lambda *rest: seen.append(caplog.text) or restore_all(*rest))
    results = run(given)
    assert "metrics:musiq will have no values." in seen[0]
    assert "PolyForm Noncommercial" in seen[0]
    assert results.columns[-1].label == "MUSIQ"
    assert "the package pyiqa is not installed" in results.columns[-1].note
