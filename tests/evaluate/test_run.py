"""A whole evaluation on small faces: what is written, kept, computed again and reported."""

import io
import json
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from helpers.small_evaluation import count_restored, given, run, weights, written  # noqa: F401 - fixtures
from helpers.small_networks import NETWORKS, built

from gpen_plugin.cli.evaluate import main
from gpen_plugin.errors import DataError
from gpen_plugin.evaluate import run as run_module
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.results import input_path, read_results, restored_path, truth_path


def crashing_on(key, build=run_module.build_method):
    """A `build_method` whose bicubic method crashes on one image."""

    def build_crashing(entry, where, device, folder):
        method = build(entry, where, device, folder)
        if entry["type"] != "bicubic":
            return method

        class Crashing:
            description, identity = method.description, method.identity

            def __call__(self, sample):
                if sample.key == key:
                    raise RuntimeError("out of luck\nsecond line")
                return method(sample)

        return Crashing()

    return build_crashing


def test_cells_equal_metrics_of_images_on_disk(given):
    results = run(given)
    root = EvaluationOptions.from_mapping(given).root
    assert [row.name for row in results.rows] == list(given["methods"])
    assert len(results.keys) == 4
    for row in results.rows:
        values = results.image_values(row.name, "", "psnr")
        for key, value in zip(results.keys, values, strict=True):
            image = cv2.imread(str(restored_path(root, row, "", key))).astype(float)
            truth = cv2.imread(str(truth_path(root, key))).astype(float)
            assert value == pytest.approx(10 * np.log10(255**2 / np.mean((image - truth) ** 2)), abs=1e-6)
        assert results.value(row.name, "", results.columns[0]) == pytest.approx(values.mean())
        assert results.value(row.name, "", results.columns[1]) > 0
    assert cv2.imread(str(input_path(root, "", results.keys[0]))).shape[0] < 32


def test_same_command_gives_the_same_bytes(given, tmp_path):
    run(given)
    first = written(given)
    run(given)
    assert written(given) == first
    run({**given, "output": str(tmp_path / "elsewhere")})
    assert written({**given, "output": str(tmp_path / "elsewhere")}) == first


def test_every_table_has_the_fingerprint(given):
    digest = run(given).fingerprint["digest"]
    for name, content in written(given).items():
        if name != "per_image.csv":
            assert digest in content.decode(), name


def test_stopped_run_resumes(given, monkeypatch):
    run(given)
    first, root = written(given), EvaluationOptions.from_mapping(given).root
    row = read_results(root).rows[0]
    restored_path(root, row, "", read_results(root).keys[1]).unlink()
    with (root / "methods" / row.folder / "values.0.jsonl").open("a") as file:
        file.write('["", "face_0", "psn')  # as a kill leaves it
    made = count_restored(monkeypatch)
    run(given)
    assert made == [("bilinear", read_results(root).keys[1])]
    assert written(given) == first


def test_crash_on_one_image_is_a_failure_of_that_image(given, monkeypatch):
    monkeypatch.setattr(run_module, "build_method", crashing_on("face_2"))
    results = run(given)
    (failure,) = results.failures()
    assert (failure.method, failure.key) == ("Bicubic", "face_2")
    assert "RuntimeError: out of luck (test_run.py:" in failure.reason
    assert results.restored("Bicubic", "") == 3
    assert results.restored("GPEN", "") == 4
    assert np.isnan(results.image_values("Bicubic", "", "psnr")).sum() == 1
    assert results.value("Bicubic", "", results.columns[1]) > 0  # of the three
    table = written(given)["table.md"].decode()
    assert "face\\_2" in table
    assert "out of luck" in table
    assert "3/4" in table


def test_next_run_retries_failures(given, monkeypatch, tmp_path):
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "build_method", crashing_on("face_2"))
        run(given)
    run(given)
    assert not list(read_results(EvaluationOptions.from_mapping(given).root).failures())
    run({**given, "output": str(tmp_path / "unharmed")})
    assert written(given) == written({**given, "output": str(tmp_path / "unharmed")})


def test_missing_weights_fail_only_their_method(given, tmp_path):
    given["methods"]["Lost"] = {"type": "gpen", "weights": str(tmp_path / "nowhere.pth")}
    results = run(given)
    assert "nowhere.pth" in results.rows[-1].failure
    assert np.isfinite(results.value("GPEN", "", results.columns[0]))
    assert "Lost" in written(given)["table.md"].decode()


def test_other_weights_are_restored_again(given, weights):
    before = run(given)
    torch.save({"params_ema": built(NETWORKS["GPEN concat"], seed=5).state_dict()}, weights)
    after = run(given)
    assert after.value("GPEN", "", after.columns[0]) != before.value("GPEN", "", before.columns[0])
    assert after.value("GPEN", "", after.columns[1]) != before.value("GPEN", "", before.columns[1])
    assert after.value("Bilinear", "", after.columns[0]) == before.value("Bilinear", "", before.columns[0])


def test_other_metric_arguments_are_measured_again(given):
    before = run(given)
    given["metrics"]["psnr"]["crop_border"] = 4
    after = run(given)
    assert after.value("GPEN", "", after.columns[0]) != before.value("GPEN", "", before.columns[0])


def test_folder_of_another_protocol_is_an_error(given):
    run(given)
    given["protocol"]["seed"] = 1
    with pytest.raises(DataError, match=r"another protocol \(its options differ\).*--restart"):
        run(given)
    assert run(given, restart=True).fingerprint["digest"]


def test_restart_keeps_foreign_files(given, tmp_path):
    run(given)
    note = tmp_path / "small" / "notes.txt"
    note.write_text("mine")
    run(given, restart=True)
    assert note.read_text() == "mine"


def test_unreadable_image_is_left_out_for_all_methods(given, faces, tmp_path):
    folder = tmp_path / "faces"
    shutil.copytree(faces, folder)
    (folder / "face_1.png").write_bytes(b"no image")
    given["protocol"]["dataroot_gt"] = str(folder)
    results = run(given)
    assert results.keys == ["face_0", "face_2", "face_3"]
    (note,) = results.notes
    assert note.startswith(
        "left out: face_1: cannot be decoded: it is no image of a kind that can be read (8 bytes); expected"
    )


def test_metric_for_larger_images_has_a_note(given):
    given["metrics"]["niqe"] = {"type": "calculate_niqe", "crop_border": 0, "better": "lower"}
    results = run(given)
    assert "192 px" in results.columns[-1].note
    assert np.isnan(results.value("GPEN", "", results.columns[-1]))
    assert "192 px" in written(given)["table.md"].decode()


def test_scales_are_conditions(given, faces):
    given["protocol"] = {
        "type": "fsr",
        "dataroot_gt": str(faces),
        "out_size": 32,
        "scales": [4, 8, 64],
        "num_images": 2,
    }
    results = run(given)
    assert results.conditions == ["4x", "8x"]
    assert any("64" in note for note in results.notes)
    column = results.columns[0]
    assert results.value("Bicubic", "4x", column) > results.value("Bicubic", "8x", column)
    assert (EvaluationOptions.from_mapping(given).root / "curves.png").is_file()


def test_wild_has_no_reference_metrics(given, faces):
    given["protocol"] = {"type": "wild", "dataroot_lq": str(faces), "out_size": 32, "num_images": 2}
    given["metrics"]["own"] = {"type": "calculate_psnr", "crop_border": 0, "against": "input"}
    results = run(given)
    assert "ground truth" in results.columns[0].note
    assert "input" in results.columns[-1].label
    assert results.restored("Bilinear", "") == 2
    assert not results.has_truth


def test_command(given, tmp_path, capsys):
    path = tmp_path / "small.yml"
    path.write_text(json.dumps(given))
    assert main(["-opt", str(path), "--force_yml", "protocol:num_images=2", "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    assert "Bilinear" in output
    assert "report.html" in output
    given["methods"]["Lost"] = {"type": "gpen", "weights": str(tmp_path / "nowhere.pth")}
    path.write_text(json.dumps(given))
    assert main(["-opt", str(path), "--force_yml", "protocol:num_images=2", "--device", "cpu"]) == 1


def test_terminal_that_knows_no_arrows(given, tmp_path, monkeypatch):
    path = tmp_path / "small.yml"
    path.write_text(json.dumps(given))
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    assert main(["-opt", str(path), "--device", "cpu"]) == 0
    assert b"PSNR ?" in shown.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": {}}, "unknown key.*methods"),
        ({"methods": {}}, "methods"),
        ({"methods": {"a": {"type": "bilinear"}, "A": {"type": "bicubic"}}}, "methods:A.*folder a"),
        ({"methods": {"a": "bilinear"}}, "methods:a"),
        ({"metrics": {"x": {"type": "calculate_psn"}}}, "metrics:x:type.*calculate_psnr"),
        ({"report": {"embeded_images": 1}}, "report:embeded_images.*embedded_images"),
        ({"protocol": {"type": "bfx"}}, "protocol:type"),
    ],
)
def test_wrong_options_are_an_error_before_writing(given, tmp_path, capsys, change, message):
    path = tmp_path / "wrong.yml"
    path.write_text(json.dumps({**given, **change}))
    assert main(["-opt", str(path), "--device", "cpu"]) == 1
    assert re.search(message, capsys.readouterr().err, re.S)
    assert not (tmp_path / "small").exists()
