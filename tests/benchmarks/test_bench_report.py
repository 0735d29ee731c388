"""The arithmetic of the benchmarks, on times that are given."""

import json
import math
import time

import measure
import pytest
import torch
from bench_report import Comparison, arithmetic, describe, duration, memory, report, spread, target_line, throughput
from measure import busy, check_close, compare, flop_of, not_measured, parser, peak_flop, peak_memory, union
from results import Part


def made(baseline=(4.0, 9.0, 2.0), ours=(2.0, 3.0, 2.0), **more):
    return Comparison("a face", "slow", "quick", baseline, ours, **more)


def test_ratio_is_median_of_pairs():
    assert made((10.0, 1.0, 3.0), (1.0, 2.0, 3.0)).ratio == 1.0
    assert made().ratio == 2.0


@pytest.mark.parametrize(
    ("wants", "met"),
    [
        ({}, None),
        ({"target": 2.0}, True),
        ({"target": 2.1}, False),
        ({"limit": 2.0}, True),
        ({"limit": 1.9}, False),
        ({"target": 2.0, "limit": 1.9}, False),
        ({"memory": (30, 10), "memory_target": 3}, True),
        ({"memory": (29, 10), "memory_target": 3}, False),
        ({"target": 1.0, "memory": (29, 10), "memory_target": 3}, False),
        ({"memory_target": 3}, None),
    ],
)
def test_met_only_if_all_targets_are(wants, met):
    assert made(**wants).met is met


def test_a_row_without_figures_meets_nothing_and_says_why():
    row = not_measured("a GPU's row", "no GPU here", target=3, limit=0.003)
    assert math.isnan(row.ratio)
    assert row.met is None
    assert describe(row) == ["a GPU's row", "  target 3x and 3 ms at most: not measured", "  not measured: no GPU here"]


def test_both_arms_run_as_often_and_in_turns():
    order = []
    row = compare("a", ("slow", lambda: order.append("s")), ("quick", lambda: order.append("q")), rounds=3)
    assert len(row.baseline_seconds) == len(row.our_seconds) == 3
    turns = "".join(order).replace("ss", "s").replace("qq", "q")
    while "ss" in turns or "qq" in turns:
        turns = turns.replace("ss", "s").replace("qq", "q")
    assert turns.endswith("sqsqsq")


def test_seconds_are_of_one_call():
    row = compare("a", ("slow", lambda: time.sleep(0.03)), ("quick", lambda: time.sleep(0.003)), rounds=2)
    assert min(row.baseline_seconds) >= 0.03
    assert 0.003 <= min(row.our_seconds) < 0.03


def test_results_that_differ_end_the_benchmark():
    expected = torch.tensor([0.0, 2.0])
    assert check_close(expected, expected + 1e-4) == "largest difference 5.0e-05 of the range"
    for wrong, reason in (
        (expected + 1e-3, "differ by 5.0e-04 of the range"),
        (expected * float("nan"), "differ by nan"),
        (expected[:1], "differ in shape"),
    ):
        with pytest.raises(SystemExit, match=reason):
            check_close(expected, wrong)


def test_operations_of_a_convolution():
    x, weight = torch.zeros(2, 3, 8, 8), torch.zeros(4, 3, 3, 3)
    assert flop_of(lambda: torch.nn.functional.conv2d(x, weight, padding=1)) == 2 * 2 * 4 * 8 * 8 * 3 * 9


def test_peak_is_the_best_of_some_calls_measured_once(monkeypatch):
    seconds = iter([0.5, 0.25, *[1.0] * 8])
    monkeypatch.setattr(measure, "clock", lambda call, device: next(seconds))
    peak_flop.cache_clear()
    largest = peak_flop("cpu", "fp32")
    assert largest == peak_flop("cpu", "fp32") == 2 * 4 * 64**2 * 256 * 256 * 9 / 0.25
    peak_flop.cache_clear()


def test_peak_memory_counts_from_the_mark():
    code = "import sys, torch\nkept = torch.ones(20_000_000)\nmark()\nmore = torch.ones(int(sys.argv[1]))\ndel more"
    held = peak_memory(code, 10_000_000)
    assert 39e6 < held < 60e6  # 40 MB of the 120 MB


def test_overlapping_spans_count_once():
    assert union([(4, 5), (0, 2), (1, 3), (1, 2)]) == 4
    assert union([]) == 0


def test_busy_is_the_fraction_of_a_call_with_operations():
    x = torch.ones(400, 400)
    assert 0.5 < busy(lambda: [x @ x for _ in range(20)], "cpu") <= 1
    assert busy(lambda: time.sleep(0.05), "cpu") < 0.1


def test_code_that_fails_ends_the_benchmark_with_its_words(monkeypatch):
    monkeypatch.setattr(measure, "_IN_OWN_PROCESS", "import sys; exec(sys.argv[1], {'mark': int})")  # without PyTorch
    with pytest.raises(SystemExit, match="NameError"):
        peak_memory("mark()\nnowhere")


@pytest.mark.parametrize(("seconds", "words"), [(1.254, "1.25 s"), (0.0031, "3.1 ms"), (0.12345, "123 ms")])
def test_seconds_in_words(seconds, words):
    assert duration(seconds) == words


def test_words_of_a_row():
    row = made(target=3, items=8, flop=4e9, peak=8e9, memory=(2**21, 2**20), error="exact", note="the bus is full")
    assert spread(row.baseline_seconds) == "4.00 s (2.00 s to 9.00 s)"
    assert throughput(row) == "2 against 4 a second"
    assert arithmetic(row) == "2 GFLOP/s, 25% of the measured fp32 peak"
    assert memory(row) == "peak memory 2 MiB against 1 MiB, ratio 2.00"
    assert target_line(row) == "target 3x: NOT met"
    assert describe(row)[3:] == [
        "  ratio 2.00",
        *(f"  {fact}" for fact in (throughput(row), arithmetic(row), memory(row))),
        "  target 3x: NOT met",
        "  exact",
        "  the bus is full",
    ]


def test_report_is_printed_and_saved(tmp_path, capsys):
    options = parser("Title.\n\nMore.").parse_args(["--json", str(tmp_path / "found.json"), "--threads", "1"])
    report("One face", [made(target=2)], options, left_out=["Trying harder gave 1.0."])
    printed = capsys.readouterr().out
    assert "ratio 2.00" in printed
    assert "Tried without gain: Trying harder" in printed
    found = json.loads((tmp_path / "found.json").read_text())
    part = Part.read("faces", found)
    assert (part.title, part.left_out) == ("One face", ["Trying harder gave 1.0."])
    assert part.settings == "device cpu, threads 1, rounds 5"
    assert [row.ratio for row in part.comparisons] == [2.0]
    assert found["machine"]["torch"].startswith(torch.__version__)
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
