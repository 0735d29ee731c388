"""What happens to an evaluation's folder when it is continued: what is kept, made anew, refused and spared."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from basicsr.utils.registry import METRIC_REGISTRY
from helpers.small_evaluation import count_restored, given, run, weights, written  # noqa: F401 - fixtures

from gpen_plugin.config.imports import _package_digest
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate import run as run_module
from gpen_plugin.evaluate.measure import MetricCache
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.results import input_path, merge_results, restored_path, truth_path, write_text


@pytest.fixture
def own_faces(given, faces, tmp_path):
    """The faces in a folder that the test may change."""
    folder = tmp_path / "own_faces"
    shutil.copytree(faces, folder)
    given["protocol"]["dataroot_gt"] = str(folder)
    return folder


def as_if_new(given, tmp_path):
    """The files of the same evaluation in a folder of its own."""
    anew = {**given, "output": str(tmp_path / "anew")}
    run(anew)
    return written(anew)


def test_changed_source_image_is_processed_again(given, own_faces, tmp_path, monkeypatch):
    run(given)
    other = cv2.flip(cv2.imread(str(own_faces / "face_1.png")), 1)
    cv2.imwrite(str(own_faces / "face_1.png"), other)
    made = count_restored(monkeypatch)
    run(given)
    assert made == [("bilinear", "face_1"), ("bicubic", "face_1"), ("gpen", "face_1")]
    assert written(given) == as_if_new(given, tmp_path)


def test_other_faces_of_the_same_names_are_processed_again(given, own_faces, faces, tmp_path):
    given["protocol"]["dataroot_gt"] = str(faces)
    run(given)
    for path in own_faces.glob("*.png"):
        cv2.imwrite(str(path), cv2.flip(cv2.imread(str(path)), 0))
    given["protocol"]["dataroot_gt"] = str(own_faces)
    run(given)
    assert written(given) == as_if_new(given, tmp_path)


@pytest.mark.parametrize("kind", ["pairs", "wild"])
def test_changed_degraded_image_is_copied_again(given, own_faces, faces, tmp_path, kind):
    given["protocol"] = {"type": kind, "dataroot_lq": str(own_faces), "out_size": 32, "num_images": 2}
    if kind == "pairs":
        given["protocol"]["dataroot_gt"] = str(faces)
    run(given)
    cv2.imwrite(str(own_faces / "face_1.png"), np.full((20, 20, 3), 99, np.uint8))
    run(given)
    assert written(given) == as_if_new(given, tmp_path)


def test_lost_source_is_left_out(given, own_faces, tmp_path):
    run(given)
    (own_faces / "face_1.png").write_bytes(b"no image")
    assert run(given).keys == ["face_0", "face_2", "face_3"]
    assert written(given) == as_if_new(given, tmp_path)


def test_added_images_are_the_only_new_work(given, tmp_path, monkeypatch):
    given["protocol"]["num_images"] = 2
    run(given)
    given["protocol"]["num_images"] = 4
    made = count_restored(monkeypatch)
    run(given)
    assert made == [(kind, key) for kind in ("bilinear", "bicubic", "gpen") for key in ("face_2", "face_3")]
    assert written(given) == as_if_new(given, tmp_path)


def test_fewer_images_are_an_error(given):
    run(given)
    given["protocol"]["num_images"] = 2
    with pytest.raises(DataError, match=r"contains 2 images that.*face_2, face_3.*--restart"):
        run(given)


def test_edited_input_is_an_error(given, monkeypatch):
    before, root = run(given), EvaluationOptions.from_mapping(given).root
    path = input_path(root, "", "face_2")
    cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    made = count_restored(monkeypatch)
    after = run(given)
    assert after.fingerprint["digest"] != before.fingerprint["digest"]
    assert [key for _, key in made] == ["face_2"] * 3
    for column in after.columns:
        assert after.value("GPEN", "", column) != before.value("GPEN", "", column)
    kept = [key for key in after.keys if after.images["GPEN"][""][key] == before.images["GPEN"][""][key]]
    assert kept == ["face_0", "face_1", "face_3"]


def test_full_disk_ends_the_evaluation(given, monkeypatch):
    def full(path, image):
        raise DataError(str(path), "cannot be written ([Errno 28] No space left on device)", "space")

    monkeypatch.setattr(run_module, "write_image", full)
    with pytest.raises(DataError, match="No space left"):
        run(given)


def test_full_disk_while_measuring_is_a_data_error(tmp_path):
    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

    ledger = MetricCache(tmp_path, lambda key, column: "stamp", 0)
    with pytest.raises(DataError, match=r"values\.0\.jsonl.*No space left"):
        ledger.add(Full(), "", "face_0", "psnr", 1.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"values\.0\.jsonl"):
        MetricCache(tmp_path / "file", lambda key, column: "stamp", 0).open()


def test_foreign_folder_is_an_error(given, tmp_path):
    mine = tmp_path / "small" / "inputs" / "face_0.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    for restart in (False, True):
        with pytest.raises(DataError, match="small: contains inputs, and no evaluation wrote them"):
            run(given, restart)
    assert mine.read_bytes() == b"mine"


def test_restart_deletes_a_merged_evaluation(given, tmp_path):
    run(given)
    run({**given, "output": str(tmp_path / "other"), "methods": {"Other": {"type": "bilinear"}}})
    merge_results([tmp_path / "small", tmp_path / "other"], tmp_path / "both")
    with pytest.raises(DataError, match="no evaluation wrote them"):
        run({**given, "output": str(tmp_path / "both")})
    run({**given, "output": str(tmp_path / "both")}, restart=True)
    assert not (tmp_path / "both" / "methods" / "other").exists()


@pytest.mark.parametrize("key", ["dataroot_gt", "dataroot_lq"])
@pytest.mark.parametrize("nested", ["inputs", "output"])
def test_source_inside_the_output_is_an_error(given, tmp_path, key, nested):
    data, output = tmp_path / "data", tmp_path / "small"
    given["protocol"][key] = str(output / "truth" if nested == "inputs" else data)
    given["output"] = str(output if nested == "inputs" else data / "small")
    with pytest.raises(OptionError, match=f"protocol:{key}.*output"):
        EvaluationOptions.from_mapping(given)


def test_restored_folder_inside_the_output_is_an_error(given, tmp_path):
    given["methods"]["Own"] = {"type": "folder", "path": str(tmp_path / "small" / "methods" / "own" / "restored")}
    with pytest.raises(OptionError, match=r"methods:Own:path.*output"):
        EvaluationOptions.from_mapping(given)


def test_undeletable_folder_is_an_error(given, weights, monkeypatch):
    run(given)

    def refused(folder, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("gpen_plugin.evaluate.results.shutil.rmtree", refused)
    with pytest.raises(DataError, match=r"small.*cannot be deleted \(Permission denied\)"):
        run(given, restart=True)
    weights.write_bytes(weights.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"restored: cannot be deleted \(Permission denied\)"):
        run(given)


def test_restart_deletes_curves(given, faces, tmp_path):
    scales = {"type": "fsr", "dataroot_gt": str(faces), "out_size": 32, "scales": [4, 8], "num_images": 2}
    run({**given, "protocol": scales})
    assert (tmp_path / "small" / "curves.png").is_file()
    run(given, restart=True)
    assert not (tmp_path / "small" / "curves.png").exists()


def test_merge_into_an_evaluation_is_an_error(given, tmp_path):
    run(given)
    for name in ("a", "b"):
        run({**given, "output": str(tmp_path / name), "methods": {name: {"type": "bilinear"}}})
    with pytest.raises(OptionError, match=r"small.*an evaluation of its own"):
        merge_results([tmp_path / "a", tmp_path / "b"], tmp_path / "small")


def test_tilde_is_expanded(given, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert EvaluationOptions.from_mapping({**given, "output": "~/here"}).root == tmp_path / "here"


def test_names_as_long_as_a_disk_allows(given, own_faces):
    name = "a" * 251
    (own_faces / "face_0.png").rename(own_faces / f"{name}.png")
    results = run(given)
    assert results.keys[0] == name
    assert results.restored("GPEN", "") == 4


def test_undecodable_name_is_an_error_before_writing(given, own_faces, tmp_path):
    (own_faces / "face_0.png").rename(Path(str(own_faces)) / "face_\udcff.png")
    with pytest.raises(DataError, match=r"dataroot_gt.*face_\\udcff.*Rename it"):
        run(given)
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("below", ["", "deeper"])
def test_output_that_is_a_file_is_an_error(given, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="cannot be written"):
        run({**given, "output": str(tmp_path / "file" / below)})


@pytest.mark.parametrize("content", ["[]", "{", '{"kind": 1}'])
def test_damaged_protocol_file_is_an_error(given, tmp_path, content):
    write_text(tmp_path / "small" / "protocol.json", content)
    with pytest.raises(DataError, match="--restart"):
        run(given)


def test_image_restored_again_keeps_its_path(given, tmp_path):
    results, root = run(given), EvaluationOptions.from_mapping(given).root
    before = {row.name: restored_path(root, row, "", "face_1").read_bytes() for row in results.rows}
    truth_path(root, "face_1").unlink()
    first = written(given)
    run(given)
    assert written(given) == first
    assert {row.name: restored_path(root, row, "", "face_1").read_bytes() for row in results.rows} == before
    assert json.loads((root / "protocol.json").read_text())["keys"] == results.keys


OWN_CODE = """
from torch import nn

def calculate_own(img, img2, **kwargs):
    return {value}

class OwnNetwork(nn.Module):
    def forward(self, x):
        return x * {value} / 4

def degrade(image, rng):
    return image * {value} / 4
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """Returns a function that writes and imports a module of the user's, as a new process imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(value):
        (tmp_path / "own_code.py").write_text(OWN_CODE.format(value=value))
        sys.modules.pop("own_code", None)
        importlib.invalidate_caches()
        _package_digest.cache_clear()
        module = importlib.import_module("own_code")
        monkeypatch.setitem(METRIC_REGISTRY._obj_map, "calculate_own", module.calculate_own)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield write
    sys.modules.pop("own_code", None)
    _package_digest.cache_clear()


def test_changed_code_is_run_again(given, tmp_path, monkeypatch, own_code):
    own_code(1)
    network = {"type": "arch", "network": {"type": "own_code.OwnNetwork"}, "weights": "random", "value_range": [0, 1]}
    given["methods"] = {"Bilinear": {"type": "bilinear"}, "Own": network}
    given["metrics"] = {
        "own": {"type": "calculate_own", "better": "lower"},
        "psnr": {"type": "calculate_psnr", "crop_border": 0},
    }
    assert (run(given).image_values("Own", "", "own") == 1).all()
    own_code(3)
    made = count_restored(monkeypatch)
    assert (run(given).image_values("Bilinear", "", "own") == 3).all()
    assert {kind for kind, _ in made} == {"arch"}
    assert written(given) == as_if_new(given, tmp_path)


def test_changed_code_of_a_degradation_is_another_protocol(given, own_code):
    own_code(1)
    given["protocol"]["degradation"] = {"type": "own_code.degrade"}
    run(given)
    run(given)
    own_code(3)
    with pytest.raises(DataError, match="another protocol"):
        run(given)
