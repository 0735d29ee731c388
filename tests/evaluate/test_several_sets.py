"""Several test sets in one evaluation, one of them without ground truth."""

import csv
import io

import cv2
import numpy as np
import pytest
from helpers.small_evaluation import given, run, weights  # noqa: F401 - fixtures

from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.protocols import build_protocol
from gpen_plugin.evaluate.results import merge_results, read_results
from gpen_plugin.evaluate.stats import Summary
from gpen_plugin.evaluate.tables import latex, markdown, wide_csv


@pytest.fixture
def several(given, faces, tmp_path):
    """Four degraded faces with ground truth, and three in the wild under the same names."""
    wild = tmp_path / "wild"
    wild.mkdir()
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
        cv2.imwrite(str(wild / f"face_{number}.png"), image)
    degraded = {key: value for key, value in given["protocol"].items() if key != "out_size"}
    sets = {"CelebA-Test": degraded, "LFW": {"type": "wild", "dataroot_lq": str(wild)}}
    given["protocol"] = {"type": "sets", "out_size": 32, "sets": sets}
    given["metrics"]["swd_in"] = {**given["metrics"]["swd"], "against": "input", "label": "SWD"}
    return given


def test_samples_are_those_of_each_set(several):
    alone = build_protocol({**several["protocol"]["sets"]["CelebA-Test"], "out_size": 32})
    protocol = build_protocol(several["protocol"])
    assert protocol.keys == [f"CelebA-Test/face_{n}" for n in range(4)] + [f"LFW/face_{n}" for n in range(3)]
    one, other = protocol.sample("CelebA-Test/face_1", ""), alone.sample("face_1", "")
    assert one.key == "CelebA-Test/face_1"
    np.testing.assert_array_equal(one.lq, other.lq)
    np.testing.assert_array_equal(one.gt, other.gt)
    assert protocol.sample("LFW/face_1", "").gt is None
    assert (protocol.has_truth, protocol.has_truth_of("LFW/face_1")) == (True, False)


def test_table_has_a_column_per_set(several, tmp_path):
    results = run(several)
    table = Summary.of(results, 100, 0).results
    assert table.conditions == ["CelebA-Test", "LFW", "All"]
    psnr, swd, swd_in = results.columns
    celeba = [results.images["GPEN"][""][f"CelebA-Test/face_{n}"]["psnr"] for n in range(4)]
    assert table.value("GPEN", "CelebA-Test", psnr) == pytest.approx(np.mean(celeba))
    assert np.isnan([table.value("GPEN", name, psnr) for name in ("LFW", "All")]).all()
    assert np.isnan(table.value("GPEN", "LFW", swd))
    of_sets = [table.value("GPEN", name, swd_in) for name in table.conditions]
    assert len({*of_sets}) == 3
    assert np.isfinite(of_sets).all()

    alone = {**several["protocol"]["sets"]["CelebA-Test"], "out_size": 32}
    whole = run({**several, "protocol": alone, "output": str(tmp_path / "alone")})
    assert whole.value("GPEN", "", swd) == table.value("GPEN", "CelebA-Test", swd)
    assert whole.value("GPEN", "", psnr) == table.value("GPEN", "CelebA-Test", psnr)


def test_pages_and_tables_of_several_sets(several):
    results = run(several)
    assert run(several) == results
    summary = Summary.of(results, 100, 0)
    text = markdown(summary)
    assert "| PSNR ↑ | CelebA-Test | LFW | All |" in text
    assert "7 images (CelebA-Test 4, LFW 3). Best" in text
    assert "PSNR ↑: only of the test sets with ground truth" in text
    assert r"\multicolumn{1}{c}{PSNR $\uparrow$}" in latex(summary)
    lines = list(csv.DictReader(io.StringIO(wide_csv(summary))))
    assert [(line["images"], line["restored"]) for line in lines[:3]] == [("4", "4"), ("3", "3"), ("7", "7")]
    root = EvaluationOptions.from_mapping(several).root
    assert (root / "inputs" / "LFW" / "face_2.png").is_file()
    assert (root / "truth" / "CelebA-Test" / "face_2.png").is_file()
    assert not (root / "truth" / "LFW").exists()
    assert (root / "methods" / "gpen" / "restored" / "LFW" / "face_2.png").is_file()
    assert '"without_truth":[4,5,6]' in (root / "report.html").read_text(encoding="utf-8")
    assert not (root / "curves.png").exists()


def test_failure_counts_in_its_set_and_in_all(several, tmp_path):
    results = run(several)
    results.images["GPEN"][""]["LFW/face_0"] = {"failure": "RuntimeError: no"}
    cells = Summary.of(results, 100, 0).cells
    complete = [cells["GPEN", name, "swd_in"].complete for name in ("CelebA-Test", "LFW", "All")]
    assert complete == [True, False, False]
    notes = Summary.of(results, 100, 0).notes()
    assert "† Not ranked, because it failed on images: GPEN, LFW (n = 2/3), GPEN, All (n = 6/7)." in notes
    assert sum(note.startswith("Failed:") for note in notes) == 1


def test_halves_of_several_sets_merge(several, tmp_path):
    whole, roots = run(several), []
    for number, names in enumerate((["Bilinear"], ["Bicubic", "GPEN"])):
        roots.append(tmp_path / f"half_{number}")
        run({**several, "output": str(roots[-1]), "methods": {name: several["methods"][name] for name in names}})
    assert merge_results(roots, tmp_path / "both") == whole == read_results(tmp_path / "both")


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({}, "protocol:sets: got none"),
        ({"All": {"type": "wild"}}, "protocol:sets:All: is no name of a set"),
        ({"a/b": {"type": "wild"}}, "protocol:sets:a/b: is no name of a set"),
        ({"a": {"type": "fsr"}}, "a section with a type: bfr, pairs, wild"),
        ({"a": {"type": "wild", "out_size": 8}}, "protocol:sets:a:out_size: given in a set"),
        ({"a": {"type": "wild", "dataroot": "x"}}, "protocol:sets:a:dataroot"),
    ],
)
def test_wrong_sets_are_refused(sets, message):
    with pytest.raises(OptionError, match=message):
        build_protocol({"type": "sets", "out_size": 32, "sets": sets})
