"""Means over pictures of which some have no value, and a training that goes on without the files of its metrics."""

import logging
import math
import pickle

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from gpen_plugin.metrics import availability, inception_features
from gpen_plugin.metrics.frechet_distance import FrechetSets, calculate_fid
from gpen_plugin.metrics.kernel_distance import calculate_kid  # noqa: F401 - registers it
from gpen_plugin.models import validation
from gpen_plugin.models.gpen_model import GPENModel
from gpen_plugin.models.validation import Tally

NAN = math.nan


@pytest.mark.parametrize("nan", [NAN, np.float64("nan"), np.float32("nan"), torch.tensor(NAN)])
def test_pictures_without_a_value_do_not_count(nan, caplog):
    values = {2: 5.0, 0: 1.0, 1: nan, 3: nan}
    with caplog.at_level(logging.INFO, "basicsr"):
        assert Tally({"angle": values, "whole": {0: 1.0, 1: 2.0}}).results() == {"angle": 3.0, "whole": 1.5}
    assert [record.getMessage() for record in caplog.records] == ["angle: 2 of 4 images have no value."]


def test_no_value_at_all_is_no_value():
    assert math.isnan(Tally({"angle": {0: NAN, 1: NAN}}).results()["angle"])


def test_of_sets_too_pictures_without_a_value_do_not_count(monkeypatch):
    """As where one rank found the weights and another did not."""
    stand_in_for_inception(monkeypatch)
    pictures = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    values = {i: calculate_fid(picture, picture // 2) for i, picture in enumerate(pictures)}
    expected = Tally({"fid": values}).results()["fid"]
    assert expected > 0
    assert Tally({"fid": values | {4: NAN, 5: NAN}}).results()["fid"] == expected


def test_sets_are_the_same_to_the_bit_whoever_measured_them(monkeypatch):
    stand_in_for_inception(monkeypatch)
    pictures = [*np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)]
    loader = DataLoader(pictures, collate_fn=lambda batch: batch[0])
    metrics = {name: {"type": f"calculate_{name}", "better": "lower"} for name in ("fid", "kid")}
    monkeypatch.setattr(validation, "of_every_rank", lambda tally: [pickle.loads(pickle.dumps(tally))])

    def share(rank, world_size):
        restore = lambda picture, index: {"result": picture // 2, "gt": picture}  # noqa: E731
        return validation.measure(loader, restore, metrics, 0, rank=rank, world_size=world_size)

    together = Tally()
    for rank in (2, 0, 1):
        together.merge(share(rank, 3))
    results = share(0, 1).results()
    assert together.results() == results
    assert min(results.values()) > 0
    assert {type(value) for value in results.values()} == {float}


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_no_value_is_never_the_best(better):
    model = object.__new__(GPENModel)
    model.opt = {"val": {"metrics": {"it": {"type": "x", "better": better}}}}
    model._initialize_best_metric_results("val")
    for iteration, value in enumerate([NAN, 3.0, NAN, 5.0, NAN], 1):
        model._update_best_metric_result("val", "it", value, iteration)
    best = {"higher": (5.0, 4), "lower": (3.0, 2)}[better]
    found = model.best_metric_results["val"]["it"]
    assert (found["val"], found["iter"]) == best


def stand_in_for_inception(monkeypatch) -> None:
    def extract(pictures, device, weights):
        return np.array([[*p.mean(axis=(0, 1)), *p.std(axis=(0, 1))] for p in pictures], np.float32)

    monkeypatch.setattr(inception_features, "extract", extract)
    for store in ("_of_restored", "_of_ground_truth"):
        monkeypatch.setattr(inception_features, store, inception_features.Remembered(99))


def scalars(folder, name: str) -> list[float]:
    events = EventAccumulator(str(folder.parents[1] / "tb_logger" / folder.name))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def test_a_training_without_the_weights_goes_on(options, train, monkeypatch, tmp_path):
    for name in ("XDG_CACHE_HOME", "TORCH_HOME", "GPEN_PLUGIN_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    availability._tell_once.cache_clear()
    for name in ("fid", "kid"):
        options["val"]["metrics"][name] = {"type": f"calculate_{name}", "better": "lower"}
    folder = train(options)
    state = torch.load(folder / "training_states/6.state", weights_only=True)
    best = state["best_metric_results"]["val"]
    assert best["fid"] == {"better": "lower", "val": math.inf, "iter": -1}
    assert best["psnr"]["iter"] in (3, 6)
    assert all(map(math.isnan, scalars(folder, "metrics/val/fid")))
    assert all(map(math.isfinite, scalars(folder, "metrics/val/psnr")))
    (log,) = folder.glob("train_*.log")
    told = [line for line in log.read_text().splitlines() if "gives no values" in line]
    assert len(told) == 2  # one per metric, in two validations of two pictures
    assert "calculate_fid gives no values. weights: pt_inception-2015-12-05-6726825d.pth" in told[0]


def test_a_priors_samples_are_compared_as_a_set(prior_options, train, monkeypatch):
    """The formula is asked once per validation, about all of its samples, and its answer is logged and kept."""
    stand_in_for_inception(monkeypatch)
    seen, formula = [], FrechetSets.value

    def value(sets):
        seen.append((len(sets), formula(sets)))
        return seen[-1][1]

    monkeypatch.setattr(FrechetSets, "value", value)
    prior_options["val"]["metrics"] = {"fid": {"type": "calculate_fid", "better": "lower"}}
    folder = train(prior_options)
    assert [count for count, _ in seen] == [4, 4]
    assert min(fid for _, fid in seen) > 1
    assert scalars(folder, "metrics/val/fid") == pytest.approx([fid for _, fid in seen])
    best = torch.load(folder / "training_states/6.state", weights_only=True)["best_metric_results"]["val"]["fid"]
    assert best["val"] == pytest.approx(min(fid for _, fid in seen))
