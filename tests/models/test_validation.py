"""Means over images of which some have no value, and a training that goes on without the files of its metrics."""

import logging
import math
import pickle
import shutil
import sys

import basicsr.test
import make_lmdb
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, Dataset

from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.metrics import base, fid
from gpen_plugin.metrics.fid import FIDAccumulator, calculate_fid
from gpen_plugin.models import validation
from gpen_plugin.models.gpen_model import GPENModel
from gpen_plugin.models.validation import ImageNames, MetricSums
from gpen_plugin.nets import inception

NAN = math.nan


@pytest.mark.parametrize("nan", [NAN, np.float64("nan"), np.float32("nan"), torch.tensor(NAN)])
def test_images_without_a_value_do_not_count(nan, caplog):
    values = {2: 5.0, 0: 1.0, 1: nan, 3: nan}
    with caplog.at_level(logging.INFO, "basicsr"):
        assert MetricSums({"angle": values, "whole": {0: 1.0, 1: 2.0}}).results() == {"angle": 3.0, "whole": 1.5}
    assert [record.getMessage() for record in caplog.records] == ["angle: 2 of 4 images have no value."]


def test_no_value_at_all_is_no_value():
    assert math.isnan(MetricSums({"angle": {0: NAN, 1: NAN}}).results()["angle"])


def test_of_sets_too_images_without_a_value_do_not_count(monkeypatch):
    """As where one rank found the weights and another did not."""
    stand_in_for_inception(monkeypatch)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    values = {i: calculate_fid(image, image // 2) for i, image in enumerate(images)}
    expected = MetricSums({"fid": values}).results()["fid"]
    assert expected > 0
    assert MetricSums({"fid": values | {4: NAN, 5: NAN}}).results()["fid"] == expected


def test_sets_are_the_same_to_the_bit_whoever_measured_them(monkeypatch):
    stand_in_for_inception(monkeypatch)
    images = [*np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)]
    loader = DataLoader(images, collate_fn=lambda batch: batch[0])
    metrics = {name: {"type": f"calculate_{name}", "better": "lower"} for name in ("fid", "kid")}
    monkeypatch.setattr(validation, "all_gather_object", lambda tally: [pickle.loads(pickle.dumps(tally))])

    def share(rank, world_size):
        restore = lambda image, index: {"result": image // 2, "gt": image}  # noqa: E731
        return validation.compute_metrics(loader, restore, metrics, 0, rank=rank, world_size=world_size)

    together = MetricSums()
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
    def extract(images, device, weights):
        return np.array([[*p.mean(axis=(0, 1)), *p.std(axis=(0, 1))] for p in images], np.float32)

    monkeypatch.setattr(inception, "extract_features", extract)
    for store in ("_restored", "_ground_truth"):
        monkeypatch.setattr(fid, store, fid.ContentCache(99))


def scalars(folder, name: str) -> list[float]:
    events = EventAccumulator(str(folder.parents[1] / "tb_logger" / folder.name))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def test_a_training_without_the_weights_goes_on(options, train, monkeypatch, tmp_path):
    for name in ("XDG_CACHE_HOME", "TORCH_HOME", "GPEN_PLUGIN_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    base._warn_once.cache_clear()
    for name in ("fid", "kid"):
        options["val"]["metrics"][name] = {"type": f"calculate_{name}", "better": "lower"}
    folder = train(options)
    state = torch.load(folder / "training_states/4.state", weights_only=True)
    best = state["best_metric_results"]["val"]
    assert best["fid"] == {"better": "lower", "val": math.inf, "iter": -1}
    assert best["psnr"]["iter"] in (2, 4)
    assert all(map(math.isnan, scalars(folder, "metrics/val/fid")))
    assert all(map(math.isfinite, scalars(folder, "metrics/val/psnr")))
    (log,) = folder.glob("train_*.log")
    message = [line for line in log.read_text().splitlines() if "gives no values" in line]
    assert len(message) == 2  # one per metric, in two validations of two images
    assert "calculate_fid gives no values. weights: pt_inception-2015-12-05-6726825d.pth" in message[0]


def test_a_priors_samples_are_compared_as_a_set(prior_options, train, monkeypatch):
    """The formula is asked once per validation, about all of its samples, and its answer is logged and kept."""
    stand_in_for_inception(monkeypatch)
    seen, formula = [], FIDAccumulator.value

    def value(sets):
        seen.append((len(sets), formula(sets)))
        return seen[-1][1]

    monkeypatch.setattr(FIDAccumulator, "value", value)
    prior_options["val"]["metrics"] = {"fid": {"type": "calculate_fid", "better": "lower"}}
    folder = train(prior_options)
    assert [count for count, _ in seen] == [4, 4]
    assert min(fid for _, fid in seen) > 1
    assert scalars(folder, "metrics/val/fid") == pytest.approx([fid for _, fid in seen])
    best = torch.load(folder / "training_states/4.state", weights_only=True)["best_metric_results"]["val"]["fid"]
    assert best["val"] == pytest.approx(min(fid for _, fid in seen))


class Paths(Dataset):
    """A set as the host or a user may have it; its images are named by paths."""

    def __init__(self, paths, listed=True, **opt):
        self.opt = {"name": "set", **opt}
        self.items = [{"lq_path": path} for path in paths]
        if listed:
            self.paths = paths if listed == "texts" else self.items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def named(dataset) -> list[str]:
    names = ImageNames(dataset)
    return [names.of({key: [value] for key, value in dataset[i].items()}) for i in range(len(dataset))]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/d/ann/1.png", "/d/bob/2.png"], ["1", "2"]),
        (["/d/ann/1.png", "/d/bob/1.png", "/d/3.png"], ["ann/1", "bob/1", "3"]),
        (["/d/1.png", "/d/1.jpg"], ["1.png", "1.jpg"]),
        (["/d/ann/1.png", "/d/ann/1.jpg", "/d/bob/1.png"], ["ann/1.png", "ann/1.jpg", "bob/1.png"]),
        (["/elsewhere/a/1.png", "/d/../e/1.png"], ["elsewhere/a/1", "e/1"]),
        (["ann/00.1", "ann/00.2"], ["00.1", "00.2"]),  # keys of an LMDB, which have no suffix
        (["ann/1", "../bob/1", "/bob/2"], ["ann/1", "bob/1", "bob/2"]),
    ],
)
@pytest.mark.parametrize("root", ["/d", "/d/", "/d/./"])
@pytest.mark.parametrize("listed", ["texts", "mappings"])
def test_names_of_images_are_unique_and_stay_below_the_folder(paths, expected, root, listed):
    assert named(Paths(paths, listed, dataroot_lq=root)) == expected


def test_names_of_a_set_without_a_list_keep_their_folders():
    paths = ["/d/lq/ann/1.png", "/d/lq/bob/1.png", "shards/7.tar/2.png"]
    expected = ["ann/1", "bob/1", "shards/7.tar/2"]
    assert named(Paths(paths, listed=False, dataroot_gt="/d", dataroot_lq="/d/lq")) == expected


@pytest.fixture
def people(faces, tmp_path):
    """Two images of one name in two folders, one of them named by its parent folder as well, and a third."""
    for number, name in enumerate(("people/people/0001.png", "people/bob/0001.png", "people/cem.x.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(faces / f"face_{number}.png", tmp_path / name)
    return tmp_path / "people"


EXPECTED = ["bob/0001", "cem.x", "people/0001"]


@pytest.mark.parametrize("backend", ["disk", "lmdb"])
def test_names_of_our_sets(people, backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = "people"
    if backend == "lmdb":
        root = "people.lmdb"
        make_lmdb.main(["--input", "people", "--output", root, "--size", "32"])
    opt = {"name": "set", "type": "x", "dataroot_gt": root, "out_size": 32, "phase": "val"}
    opt["io_backend"] = {"type": backend}
    assert named(GPENDegradationDataset(opt)) == EXPECTED
    assert named(GPENDegradationDataset({**opt, "num_images": 2})) == ["0001", "cem.x"]


def test_a_test_writes_each_image_under_its_folder(test_options, people, tmp_path, monkeypatch, write_options):
    test_options["datasets"]["test_1"] |= {"dataroot_gt": str(people), "num_images": None}
    monkeypatch.setattr(sys, "argv", ["test.py", "-opt", str(write_options(test_options))])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    basicsr.test.test_pipeline(str(tmp_path))
    folder = tmp_path / "results/small_test/visualization"
    assert written(folder / "test") == [f"{name}_small_test.png" for name in EXPECTED]


@pytest.mark.parametrize("sets", [1, 2])
def test_a_training_writes_each_image_under_its_folder(options, train, people, sets):
    options["logger"] |= {"use_tb_logger": False}
    options["val"] |= {"val_freq": 4, "save_img": True, "grid_images": 0, "metrics": None}
    options["datasets"]["val"] |= {"dataroot_gt": str(people), "num_images": None}
    if sets == 2:
        options["datasets"]["val_2"] = {**options["datasets"]["val"], "name": "second", "seed": 1}
    folder = train(options)
    expected = [f"{name}/{name.rpartition('/')[2]}_4.png" for name in EXPECTED]
    if sets == 2:
        expected = sorted(f"{name}/{path}" for name in ("val", "second") for path in expected)
    assert written(folder / "visualization") == expected


def written(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
