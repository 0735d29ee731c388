"""Several roots: keys, pairs, weights over epochs and ranks, and what is refused."""

import math
from collections import Counter

import numpy as np
import pytest
from basicsr.data.data_sampler import EnlargedSampler
from helpers.training_images import write_faces

from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.data.roots import WeightedEpoch, groups_of_roots
from gpen_plugin.errors import GPENError, OptionError
from gpen_plugin.models.validation import ImageNames


@pytest.fixture
def roots(tmp_path):
    """Folders of 5, 3 and 4 faces of the same names."""
    return [str(write_faces(tmp_path / name, count)) for name, count in (("a", 5), ("b", 3), ("c", 4))]


def dataset(dataroot_gt: object, phase: str = "train", **more: object) -> GPENDegradationDataset:
    opt = {"name": "x", "type": "GPENDegradationDataset", "phase": phase, "out_size": 32, "dataroot_gt": dataroot_gt}
    return GPENDegradationDataset({**opt, **more})


def weighted(roots: list[str], weights: tuple[float, ...] = (2, 1, 0.5)) -> list[dict]:
    return [{"path": path, "weight": weight} for path, weight in zip(roots, weights, strict=True)]


@pytest.mark.parametrize(
    ("images", "weights", "entries"),
    [
        ((5, 3, 4), (2, 1, 0.5), (16, 8, 4)),
        ((7, 2), (1, 1), (7, 7)),
        ((3, 10), (1, 2.5), (4, 10)),
        ((6,) * 2, (3, 1), (18, 6)),
    ],
)
def test_weights_are_frequencies_and_images_of_a_root_are_used_equally(images, weights, entries):
    keys = [f"{root}/{number}" for root, count in enumerate(images) for number in range(count)]
    order = WeightedEpoch(groups_of_roots(keys, weights, "here"), "root")
    assert len(order) == sum(entries)
    epochs = math.lcm(*images)
    used: Counter[str] = Counter()
    for epoch in range(epochs):
        of_epoch = Counter(keys[order.image(index, epoch)] for index in range(len(order)))
        assert set(of_epoch) == set(keys)
        for root, count in enumerate(entries):
            assert sum(times for key, times in of_epoch.items() if key.startswith(f"{root}/")) == count
        used += of_epoch
    for key in keys:
        root = int(key[0])
        assert used[key] == epochs * entries[root] // images[root]


@pytest.mark.parametrize("ratio", [1, 2])
def test_ranks_of_the_hosts_sampler_share_an_epoch(roots, ratio, caplog):
    with caplog.at_level("INFO", "basicsr"):
        data = dataset(weighted(roots), dataset_enlarge_ratio=ratio)
    assert "datasets:train:dataroot_gt: an epoch of 28 images, by root 16 from 5, 8 from 3, 4 from 4" in caplog.text
    assert (len(data), len(data.keys)) == (28, 12)
    found = Counter()
    for rank in range(2):
        sampler = EnlargedSampler(data, 2, rank, ratio)
        sampler.set_epoch(3)
        found += Counter(data[index]["gt_path"][0] for index in sampler)
    assert found == {"0": 16 * ratio, "1": 8 * ratio, "2": 4 * ratio}


def test_an_item_is_a_function_of_epoch_and_position(roots):
    first, second = dataset(weighted(roots)), dataset(weighted(roots))
    sampler = EnlargedSampler(first, 1, 0, 1)
    sampler.set_epoch(2)
    indices = [*sampler]
    for index in indices[20:24]:
        assert first[index]["lq"].equal(second[index]["lq"])
        assert first[index]["gt_path"] == second[index]["gt_path"]


def test_roots_without_weights_follow_each_other(roots):
    data = dataset(roots, phase="val", num_images=3)
    assert data.keys == [f"{root}/face_{number}" for root in range(3) for number in range(3)]
    one = dataset(roots[2], phase="val")
    np.testing.assert_array_equal(data[7]["gt"], one[1]["gt"])
    assert data[7]["gt_path"] == "2/face_1.png"
    assert ImageNames(data).of({"lq_path": ["2/face_1.png"]}) == "2/face_1"


def test_a_list_of_one_root_is_that_root(roots):
    data = dataset([{"path": roots[0], "weight": 3}])
    assert data.keys == dataset(roots[0]).keys
    assert len(data) == 5


def test_pairs_are_those_of_the_same_root(roots):
    data = dataset(weighted(roots[:2], (1, 1)), dataroot_lq=roots[:2])
    item = data[7]
    assert (item["gt_path"], item["lq_path"]) == ("1/face_2.png", "1/face_2.png")
    np.testing.assert_allclose(item["lq"], item["gt"], atol=1e-6)


A, B = {"path": "a", "weight": 1}, {"path": "b", "weight": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataroot_gt": []}, "dataroot_gt: got an empty list; expected a path, or a list of paths"),
        ({"dataroot_gt": [A, {"path": "b", "weight": 0}]}, "dataroot_gt:1:weight: got 0; expected a number above 0"),
        ({"dataroot_gt": [A, {"path": "b", "weight": "1"}]}, "dataroot_gt:1:weight: got '1' .*Write 1 without quotes"),
        ({"dataroot_gt": [A, {"path": "b"}]}, "dataroot_gt:1:weight: missing, and other roots have one"),
        ({"dataroot_gt": [A, {"paht": "b", "weight": 1}]}, "dataroot_gt:1:paht: unknown key.*Did you mean 'path'"),
        ({"dataroot_gt": [A, 3]}, "dataroot_gt: got .*expected a text or a list of a text or a mapping"),
        ({"dataroot_gt": [A, {"path": ["b"], "weight": 1}]}, "dataroot_gt:1:path: got a list; expected one path"),
        ({"dataroot_gt": [A, {"path": "none", "weight": 1}]}, "dataroot_gt:1: none is not there"),
        (
            {"dataroot_gt": [A, {"path": "b", "weight": 2000}]},
            r"dataroot_gt:1:weight: got 2000, which repeats .* 3,333 times",
        ),
        (
            {"dataroot_gt": [A, B], "phase": "val"},
            "dataroot_gt:0:weight: got 1 in val; expected weights in dataroot_gt",
        ),
        ({"dataroot_lq": [A, B], "dataroot_gt": [A, B]}, "dataroot_lq:0:weight: got 1; .*that of dataroot_gt counts"),
        ({"dataroot_lq": "a", "dataroot_gt": [A, B]}, "dataroot_lq: got 1 roots, and dataroot_gt has 2"),
        ({"references": {"dataroot": "b"}, "dataroot_gt": [A, B]}, "references: given together with a list of roots"),
    ],
)
def test_wrong_roots_are_named(roots, tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError if "none" not in message else GPENError, match=message):
        dataset(**given)
