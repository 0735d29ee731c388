"""The benchmark of a training step, from its options to its results."""

import json

import measure
import training_step
from training_step import main


def test_dry_run(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "peak_flop", lambda device, dtype: 1e12)
    monkeypatch.setattr(training_step, "peak_memory", lambda code, arm, *settings: {"plain": 3, "ours": 2}[arm])
    found, model_of = tmp_path / "found.json", training_step.model_of
    monkeypatch.setattr(training_step, "model_of", lambda size, device, narrow: model_of(size, device, 1 / 16))
    main(["--size", "32", "--rounds", "1", "--threads", "1", "--json", str(found)])
    whole, usual, lazy = json.loads(found.read_text())["comparisons"]
    assert whole["what"] == "fine-tuning at 32 px, fp32, batch of 1: an iteration, R1 at every 16th"
    assert (whole["target"], whole["memory"]) == (2.0, [3, 2])
    assert whole["our_seconds"][0] == usual["our_seconds"][0] + lazy["our_seconds"][0] / 16
