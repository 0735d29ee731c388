"""A dry run of the GPU's rows on the CPU with tiny networks, and rows that fail, end their process or hang."""

import argparse
import json
import pickle

import gpu
import group_photograph
import inference
import measure
import pytest
from gpu import Row
from helpers import odd_worker


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "peak_flop", lambda device, dtype: 1e12)
    monkeypatch.setattr(inference, "AT_ONCE", dict.fromkeys(inference.AT_ONCE, 3))
    monkeypatch.setattr(group_photograph, "ROWS", 1)
    monkeypatch.setattr(group_photograph, "COLUMNS", 2)
    monkeypatch.setattr(group_photograph, "FILES", 1)
    return argparse.Namespace(
        device="cpu", size=32, narrow=1 / 16, width=800, compile="eager", rounds=1, threads=1, budget=60.0,
        json=tmp_path / "gpu.json",
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "GPEN 32 px, batch 4, bf16, one CUDA graph",
        "GPEN 32 px, batch 1, fp32, one CUDA graph",
        "GPEN 32 px, batch 1, bf16, one CUDA graph, against bf16, contiguous, one CUDA graph",
        "GPEN 32 px, batch 1, bf16, eager, one CUDA graph, against bf16, one CUDA graph",
        "fine-tuning at 32 px, bf16",
        "30 faces of a photograph, GPEN 32 px",
        "photographs from file to file, GPEN 32 px",
    ],
)
def test_rows_that_need_no_gpu_are_measured(name, options):
    (row,) = [row for row in gpu.rows(options) if row.name == name]
    found, failed = gpu.outcome(row, options)
    assert not failed
    assert all(each.our_seconds for each in found)


def test_rows_that_need_a_gpu_say_so(options):
    needing = [row for row in gpu.rows(options) if row.needs_gpu]
    assert {row.name for row in needing} >= {
        "GPEN 32 px, batch 1, bf16, one CUDA graph, against bf16",
        "peak memory of fine-tuning at 64 px, bf16, above the networks",
        "GPEN 32 px in onnxruntime, provider tensorrt",
    }
    for row in needing:
        (left_out,), failed = gpu.outcome(row, options)
        assert (left_out.what, left_out.note, failed) == (row.name, "not measured: needs a GPU", False)


def test_names_of_rows_differ_and_their_limits_fit(options):
    rows = gpu.rows(options)
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.seconds < gpu.BUDGET for row in rows)


def test_failed_row_keeps_its_target(options):
    def fail(options, target):
        raise SystemExit("The arms differ.")

    (row,), failed = gpu.outcome(Row("a row", fail, 1, {"target": 4}), options)
    assert failed
    assert (row.target, row.note) == (4, "not measured: SystemExit: The arms differ.")


def test_no_row_depends_on_another(options, monkeypatch):
    rows = [Row(f"row {number}", None, 0.5 if number == odd_worker.HANGS else 30) for number in range(5)]
    monkeypatch.setattr(gpu, "rows", lambda options: rows)
    options.answers = [pickle.dumps((row.left_out("a test"), row.name == "row 3")) for row in rows]
    gpu.run(options, rows, odd_worker.work)
    saved = json.loads(options.json.read_text())
    assert saved["machine"] == {"GPU": "none"}
    assert [(row["what"], row["note"].removeprefix("not measured: ")) for row in saved["comparisons"]] == [
        ("row 0", "a test"),
        ("row 1", "it was stopped after 0.5 s"),
        ("row 2", "its process ended"),
        ("row 3", "a test"),
        ("row 4", "a test"),
    ]


def test_no_row_begins_after_the_budget(options, monkeypatch):
    rows = [Row("a row", None, 30, {"limit": 0.003})]
    monkeypatch.setattr(gpu, "rows", lambda options: rows)
    options.budget = 0.0
    (row,) = gpu.run(options, rows, odd_worker.work)
    assert (row.note, row.limit) == ("not measured: the 0 s were over", 0.003)
    assert options.json.is_file()
