"""Weights by the labels of a table: frequencies in the epochs of all ranks, exact positions, and what is refused."""

from collections import Counter

import pytest
from basicsr.data.data_sampler import EnlargedSampler
from helpers.training_images import write_faces

from gpen_plugin.data.gpen_face_dataset import GPENFaceDataset
from gpen_plugin.errors import GPENError
from gpen_plugin.host.data_cursor import set_resume_iteration

TABLE = "file,age,race\nface_0.png,0-2,A\nface_1.png,3,B\nface_2.png,3,B\nface_3.png,3,\nface_4.png,,A\nmore.png,9,Z\n"
COMPLETE = {"weights": {"0-2": 2, 3: 1}, "other": 1}


@pytest.fixture
def build(tmp_path):
    set_resume_iteration(0, 0, 0)  # of an earlier test
    folder = str(write_faces(tmp_path / "faces", 5))
    (tmp_path / "labels.csv").write_text(TABLE)

    def dataset(weights: dict, **more) -> GPENFaceDataset:
        opt = {"name": "x", "type": "GPENFaceDataset", "phase": "train", "out_size": 32, "dataroot_gt": folder}
        given = {"labels": str(tmp_path / "labels.csv"), "column": "age", **weights}
        return GPENFaceDataset({**opt, "label_weights": given, **more})

    return dataset


@pytest.mark.parametrize(
    ("weights", "message", "times"),  # times: how often six epochs have each image
    [
        (COMPLETE, "by age 0-2 6 from 1, 3 3 from 3, other 3 from 1", [36, 6, 6, 6, 18]),
        ({"other": 1}, "by age 0-2 3 from 1, 3 3 from 3, other 3 from 1", [18, 6, 6, 6, 18]),
        (
            {"column": "race", "weights": {"A": 1, "B": 0.5}, "other": 0.25},
            "by race A 4 from 2, B 2 from 2, other 1 from 1",
            [12, 6, 6, 6, 12],
        ),
        ({"weights": {"3": 1}, "other": 1}, "by age 3 3 from 3, other 3 from 2", [9, 6, 6, 6, 9]),
    ],
)
def test_ranks_share_epochs_with_the_frequencies_of_the_weights(build, weights, message, times, caplog):
    with caplog.at_level("INFO", "basicsr"):
        data = build(weights)
    assert message in caplog.text
    found, ranks = Counter(), 1 if len(data) % 2 else 2  # the host repeats an image where ranks cannot share
    for epoch in range(6):
        for rank in range(ranks):
            sampler = EnlargedSampler(data, ranks, rank, 1)
            sampler.set_epoch(epoch)
            found += Counter(data[index]["gt_path"].rpartition("face_")[2] for index in sampler)
    assert [found[f"{number}.png"] for number in range(5)] == times


def test_an_item_is_a_function_of_epoch_and_position(build):
    first, second = build(COMPLETE), build(COMPLETE)
    sampler = EnlargedSampler(first, 1, 0, 1)
    sampler.set_epoch(4)
    assert [first[index]["gt_path"] for index in sampler] == [second[index]["gt_path"] for index in sampler]


@pytest.mark.parametrize(
    ("weights", "more", "message"),
    [
        ({}, {}, "label_weights:weights: 1 of 5 images have no label with a weight, such as 'face_4'.*set other"),
        ({"column": "sex"}, {}, "label_weights:column: got sex, .*one of age, race"),
        ({"weights": {"0-2": 0}}, {}, "label_weights:weights:0-2: got 0; expected a number above 0"),
        ({"weights": {"0-2": "1"}}, {}, "label_weights:weights:0-2: got '1'"),
        ({"weights": {}}, {}, "label_weights:weights: got none"),
        ({"weights": {"9": 1}, "other": 1}, {}, "label_weights:weights:9: no image has this label"),
        ({"weights": {"0-2": 5000}, "other": 1}, {}, "label_weights:weights:0-2: got 5000, which repeats"),
        ({"label": "x"}, {}, "label_weights:label: unknown key.*Did you mean 'labels'"),
        ({"labels": "nowhere.csv"}, {}, "label_weights:labels: nowhere.csv cannot be read"),
        (COMPLETE, {"phase": "val"}, "label_weights: given in val; expected weights in a training only"),
        (
            COMPLETE,
            {"dataroot_gt": [{"path": "a", "weight": 1}, {"path": "b", "weight": 1}]},
            "label_weights: given together with weights of dataroot_gt",
        ),
    ],
)
def test_wrong_label_weights_are_named(build, weights, more, message):
    with pytest.raises(GPENError, match=message):
        build(weights, **more)
