"""All benchmarks in one go, and the page that they end up in; the benchmarks here are made by the tests."""

import getpass
import json
import os
import socket
from datetime import date

import pytest
import results
import torch
from bench_report import Comparison, Plot
from helpers import REPOSITORY
from machine import facts
from measure import not_measured
from results import Part, page, run, scripts

ROW = {"what": "a face | fp32", "baseline": "slow", "ours": "quick", "baseline_seconds": [2.0], "our_seconds": [1.0]}
FOUND = {
    "title": "Faces",
    "day": "2026-11-30",
    "machine": {},
    "settings": "threads 1",
    "comparisons": [ROW],
    "plots": [],
    "left_out": [],
}
GOOD = f"""
import json, sys
if __name__ == "__main__":
    with open(sys.argv[sys.argv.index("--json") + 1], "w") as file:
        json.dump({FOUND!r}, file)
"""
BAD = "if __name__ == '__main__':\n    raise SystemExit('the arms differ')\n"
SILENT = "if __name__ == '__main__':\n    print('nothing to tell')\n"


@pytest.fixture
def folder(tmp_path):
    for name, code in {"zebra": GOOD, "inference": BAD, "part": "VALUE = 1\n", "results": GOOD}.items():
        (tmp_path / f"{name}.py").write_text(code)
    return tmp_path


def test_benchmarks_are_found_in_order(folder):
    assert [path.stem for path in scripts(folder)] == ["inference", "zebra"]


def test_every_benchmark_of_the_repository_is_found():
    found = {path.stem for path in scripts(REPOSITORY / "benchmarks")}
    assert found >= {"inference", "onnx_runtime", "memory", "training_step", "growth", "reference_cost"}
    assert not found & {"gpu", "measure", "results", "machine", "bench_report", "face_images", "training_cost"}


def test_failed_benchmark_is_reported_and_others_run(folder, monkeypatch, capsys):
    monkeypatch.setattr(results, "FOLDER", folder)
    assert results.main(["--threads", "1", "--rounds", "2", "--out", str(folder / "RESULTS.md")]) == 1
    written = (folder / "RESULTS.md").read_text()
    assert "**inference.py failed:** the arms differ" in written
    assert "| a face \\| fp32 | slow: 2.00 s" in written
    assert "inference.py failed" in capsys.readouterr().err
    (folder / "inference.py").unlink()
    assert results.main(["--threads", "1", "--rounds", "2", "--out", str(folder / "RESULTS.md")]) == 0
    assert "failed" not in (folder / "RESULTS.md").read_text()


@pytest.mark.parametrize(
    ("code", "why"), [(SILENT, "no figures"), ("import time\ntime.sleep(60)\n", "took more than 0.5 s")]
)
def test_one_without_figures_and_one_without_end_fail(tmp_path, code, why):
    script = tmp_path / "odd.py"
    script.write_text(code)
    assert why in run(script, [], timeout=0.5 if "sleep" in code else 60).failure


def test_the_page():
    rows = [
        Comparison(
            "256 px", "reference", "fused", (6.0, 6.0), (2.0, 2.0), target=3, memory=(2**21, 2**20), error="same"
        ),
        Comparison("512 px", "reference", "fused", (6.0, 6.0), (3.0, 3.0), target=3, note="the bus"),
        not_measured("H200", "no GPU here", target=4),
        Comparison("shown", "one way", "another", (1.0,), (1.0,)),
    ]
    plot = Plot("plots/latency.png", "It bends at 256 px.")
    faces = Part("inference", "One face", {"processor": "P"}, "threads 2", rows, [plot], ["Winograd gave 0.9."])
    written = page([faces, Part("face_reading", failure="no disk")], date(2026, 11, 23), 12.4)
    assert "on 2026-11-23, in 12 minutes." in written
    assert "- met (1 of 3): 256 px\n- NOT met (1 of 3): 512 px\n- not measured (1 of 3): H200\n" in written
    assert "- processor: P\n" in written
    assert "## One face\n\n`benchmarks/inference.py`: threads 2.\n" in written
    cells = [line.strip("|").split(" | ") for line in written.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row] for row in cells]
    assert cells[2] == [
        "256 px", "reference: 6.00 s (6.00 s to 6.00 s)", "fused: 2.00 s (2.00 s to 2.00 s)", "3.00", "3x: met",
        "2 MiB against 1 MiB, ratio 2.00", "",
    ]  # fmt: skip
    assert [row[4] for row in cells[3:]] == ["3x: NOT met", "4x: not measured", ""]
    assert "- 256 px: Same.\n- 512 px: The bus.\n- H200: Not measured: no GPU here.\n" in written
    assert "![latency](plots/latency.png)\n\nIt bends at 256 px." in written
    assert "**face_reading.py failed:** no disk" in written
    assert written.endswith("## Tried without gain\n\n- Winograd gave 0.9.\n")


def test_results_of_a_gpu_are_a_section_with_its_machine(folder, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert results.gpu_part() is None
    assert page([], date(2026, 11, 23), 1).endswith(f"{results.NO_GPU}\n")
    (folder / "gpu.json").write_text(json.dumps(FOUND | {"title": "On a GPU", "machine": {"GPU": "H200"}}))
    part = results.gpu_part()
    cpu = Part("inference", "One face", {"processor": "P"}, "threads 2", [])
    written = page([cpu, part], date(2026, 11, 23), 1)
    assert "- processor: P\n\n" in written
    assert "## On a GPU\n\n`benchmarks/gpu.py`: threads 1.\n\nMeasured on 2026-11-30.\n\n- GPU: H200\n" in written
    assert results.NO_GPU not in written


def test_where_there_is_a_gpu_its_benchmark_runs(folder, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    (folder / "gpu.py").write_text(GOOD)
    assert [row.what for row in results.gpu_part().comparisons] == ["a face | fp32"]
    os.utime(folder / "gpu.json", (0, 0))
    (folder / "gpu.py").write_text(BAD)
    assert results.gpu_part().failure == "no figures"


def test_nothing_of_this_machine_is_on_a_page(monkeypatch):
    monkeypatch.chdir(REPOSITORY / "benchmarks")
    printed = str(facts())
    assert socket.gethostname() not in printed
    assert getpass.getuser() not in printed.replace("'", " ").split()
    assert str(REPOSITORY) not in printed
