"""Methods and metrics that return wrong values: the evaluation reports them and continues."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from helpers.small_evaluation import given, run, weights, written  # noqa: F401 - fixtures

from gpen_plugin.cli.evaluate import main
from gpen_plugin.errors import DataError, MissingFileError
from gpen_plugin.evaluate import measure
from gpen_plugin.evaluate import run as run_module
from gpen_plugin.evaluate.results import format_error
from gpen_plugin.evaluate.run import in_order
from gpen_plugin.host import registered
from gpen_plugin.metrics.base import SetAccumulator


@pytest.fixture
def bicubic(monkeypatch):
    """Lets a function answer in place of the bicubic method."""

    def answer_with(function):
        build = run_module.build_method

        def build_odd(entry, where, device, folder):
            method = build(entry, where, device, folder)
            if entry["type"] != "bicubic":
                return method

            class Odd:
                description, identity = method.description, method.identity

                def __call__(self, sample):
                    return function(sample)

            return Odd()

        monkeypatch.setattr(run_module, "build_method", build_odd)

    return answer_with


@pytest.fixture
def metric(monkeypatch):
    def add(function):
        known = {**registered("metric"), function.__name__: function}
        monkeypatch.setattr(measure, "resolve", lambda kind, name: known.get(name))
        return {"type": function.__name__}

    return add


def leaving(sample):
    raise SystemExit(0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (leaving, "SystemExit: 0 "),
        (lambda sample: sample.lq, "ValueError: gave"),
        (lambda sample: sample.gt.astype(np.float32) * np.nan, "float32 instead of"),
        (lambda sample: None, "ValueError: gave NoneType instead of an image"),
    ],
)
def test_wrong_output_fails_only_its_method(given, bicubic, answer, reason):
    bicubic(answer)
    results = run(given)
    assert [failure.method for failure in results.failures()] == ["Bicubic"] * 4
    assert all(reason in failure.reason for failure in results.failures())
    assert results.restored("GPEN", "") == 4
    assert "Bicubic" in written(given)["table.md"].decode()


def test_system_exit_while_building_fails_only_its_method(given, monkeypatch):
    build = run_module.build_method

    def build_leaving(entry, *rest):
        return leaving(None) if entry["type"] == "bicubic" else build(entry, *rest)

    monkeypatch.setattr(run_module, "build_method", build_leaving)
    assert "SystemExit" in run(given).rows[1].failure


def test_metric_that_exits_has_no_value(given, metric):
    def calculate_leaving(img, img2):
        raise SystemExit("good\nbye")

    given["metrics"]["leaving"] = metric(calculate_leaving)
    results = run(given)
    assert "12 without a value" in results.columns[-1].note
    assert "SystemExit: good (test_faulty_methods.py:" in results.columns[-1].note


def test_infinite_psnr_has_a_note(given, bicubic):
    bicubic(lambda sample: sample.gt)
    first = run(given)
    table = written(given)
    assert math.isnan(first.value("Bicubic", "", first.columns[0]))
    assert "4 are infinite, the first Bicubic face_0" in first.columns[0].note
    again = run(given)
    assert written(given) == table
    assert again.columns == first.columns
    assert "are infinite" in table["table.md"].decode()


def test_infinite_set_value_is_nan_at_every_run(given, metric):
    class Endless(SetAccumulator):
        def check_fits(self, other):
            return None

        def value(self):
            return math.inf

    def calculate_endless(img, img2) -> Endless:
        return Endless(img.tobytes(), None)

    calculate_endless.__module__ = "gpen_plugin.metrics.endless"  # as ours say what they return
    given["metrics"]["endless"] = metric(calculate_endless)
    first = run(given)
    table = written(given)
    assert math.isnan(first.value("GPEN", "", first.columns[-1]))
    run(given)
    assert written(given) == table


def test_metric_with_lost_file_keeps_cached_values(given, metric):
    lost = []

    def calculate_lost(img, img2):
        if lost:
            raise MissingFileError("weights", "lost.pth is not there", "the network", "Put it into the folder.")
        return 1.5

    given["metrics"]["lost"] = metric(calculate_lost)
    given["protocol"]["num_images"] = 3
    run(given)
    lost.append(True)
    given["methods"] = {"New": {"type": "bicubic"}, **given["methods"]}
    results = run(given)
    assert [results.value(row.name, "", results.columns[-1]) for row in results.rows[1:]] == [1.5, 1.5, 1.5]
    assert math.isnan(results.value("New", "", results.columns[-1]))


def test_results_are_in_the_order_of_the_option_file(given, faces):
    given["protocol"] = {"type": "fsr", "dataroot_gt": str(faces), "out_size": 32, "scales": [4, 8], "num_images": 1}
    given["metrics"] = {
        name: {"type": "calculate_swd", "better": "lower", "patches": 16, "directions": 8 * (1 + i)}
        for i, name in enumerate("bca")
    }
    results = run(given)
    measured = {(c, "", name): value for c, of_c in results.sets["GPEN"].items() for name, value in of_c.items()}
    shuffled = dict(sorted(measured.items(), reverse=True))
    assert list(in_order(shuffled, results)) == [(c, "", name) for c in ("4x", "8x") for name in "bca"]


def test_results_contain_no_home_folder(given, faces, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "faces"
    folder.mkdir()
    for path in faces.glob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "face_1.png").write_bytes(b"no image")
    given["protocol"]["dataroot_gt"] = str(folder)
    given["methods"]["Lost"] = {"type": "gpen", "weights": str(tmp_path / "nowhere.pth")}
    results = run(given)
    assert "~/nowhere.pth" in results.rows[-1].failure
    (note,) = results.notes
    assert note.startswith(
        "left out: face_1: cannot be decoded: it is no image of a kind that can be read (8 bytes); expected"
    )
    for name, content in written(given).items():
        assert str(tmp_path).encode() not in content, name


@pytest.mark.parametrize(
    ("home", "text", "expected"),
    [
        ("/home/al", "in /home/al/x and /home/alice/x: /home/al", "in ~/x and /home/alice/x: ~"),
        ("/", "in /home/al", "in /home/al"),
    ],
)
def test_only_the_home_folder_is_redacted(monkeypatch, home, text, expected):
    monkeypatch.setattr(Path, "home", lambda: Path(home))
    assert format_error(DataError(text)) == expected


def test_ctrl_c_ends_with_status_130_and_a_hint(given, monkeypatch, capsys, tmp_path):
    path = tmp_path / "small.yml"
    path.write_text(json.dumps(given))

    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "evaluate", stopped)
    assert main(["-opt", str(path), "--device", "cpu"]) == 130
    assert "To resume, run the same command." in capsys.readouterr().err
    assert main(["-opt", str(path), "--device", "cpu", "--restart"]) == 130
    assert "without --restart" in capsys.readouterr().err
