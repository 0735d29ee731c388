"""The four protocols: what their cases hold, and every clear refusal."""

import re
import shutil

import cv2
import lmdb
import make_lmdb
import numpy as np
import pytest

from gpen_plugin.data.degradation import DegradationRanges, degrade_lowres, resize_bilinear, sample_recipe
from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.data.image_source import LmdbSource, resize_square
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import DataError, GPENError, OptionError
from gpen_plugin.evaluate.protocols import all_samples, build_protocol, reduce_bicubic

SMALL = {"kernel_size": [3, 5], "downsample_range": [1, 4]}


@pytest.fixture
def pairs(faces, tmp_path):
    """Options of pairs of 8 px and 32 px."""
    (tmp_path / "lq").mkdir()
    for path in faces.iterdir():
        cv2.imwrite(str(tmp_path / "lq" / path.name), resize_square(cv2.imread(str(path)), 8))
    shutil.copytree(faces, tmp_path / "gt")
    return {"type": "pairs", "dataroot_lq": str(tmp_path / "lq"), "dataroot_gt": str(tmp_path / "gt")}


@pytest.mark.parametrize("degradation", [SMALL, {"type": "realesrgan", "scale": 2}])
def test_bfr_equals_the_validation_data_set(faces, degradation):
    data = {"dataroot_gt": str(faces), "out_size": 24, "seed": 5, "degradation": degradation}
    protocol = build_protocol({"type": "bfr", **data})
    dataset = GPENDegradationDataset(
        {**data, "name": "val", "type": "GPENDegradationDataset", "phase": "val", "value_range": [0, 1]}
    )
    assert protocol.keys == dataset.keys
    for key, item in zip(protocol.keys, dataset, strict=True):
        sample = protocol.sample(key, "")
        assert sample.lq.dtype == sample.gt.dtype == np.uint8
        assert (sample.key, sample.condition, sample.size, sample.gt.shape) == (key, "", 24, (24, 24, 3))
        lq, gt = (item[name].numpy().transpose(1, 2, 0)[:, :, ::-1] for name in ("lq", "gt"))
        # OpenCV resizes planes and images by different code; each rounds two interpolations of values up to 1
        np.testing.assert_allclose(resize_bilinear(sample.lq, 24), lq, rtol=0, atol=4 * np.finfo(np.float32).eps)
        np.testing.assert_array_equal(sample.gt.astype(np.float32) / 255, gt)


def test_bfr_depends_on_seed_and_key(faces):
    protocol = build_protocol({"type": "bfr", "dataroot_gt": str(faces), "out_size": 32})
    recipe = sample_recipe(DegradationRanges(), rng_from_key(0, "face_3"))
    sample = protocol.sample("face_3", "")
    np.testing.assert_array_equal(sample.lq, degrade_lowres(sample.gt, recipe))
    assert protocol.degradation("face_3", "") == str(recipe)
    assert protocol.options()["degradation"]["jpeg_range"] == [5, 50]
    other = build_protocol({"type": "bfr", "dataroot_gt": str(faces), "out_size": 32, "seed": 1})
    assert other.degradation("face_3", "") != str(recipe)


def test_fsr_has_a_condition_per_possible_scale(faces):
    protocol = build_protocol({"type": "fsr", "dataroot_gt": str(faces), "out_size": 32})
    assert protocol.conditions == ["8x", "16x", "32x"]
    assert [protocol.sample("face_0", condition).lq.shape[0] for condition in protocol.conditions] == [4, 2, 1]
    assert [note.split()[0] for note in protocol.notes] == ["64x", "128x", "256x"]
    assert protocol.notes[0] == "64x is left out: 32 px / 64 is less than one pixel"
    assert protocol.options() == {"out_size": 32, "scales": [8, 16, 32]}
    sample = protocol.sample("face_0", "8x")
    np.testing.assert_array_equal(sample.lq, reduce_bicubic(sample.gt, 4))
    assert protocol.degradation("face_0", "8x") == "bicubic, 1/8"


def test_fsr_notes_rounded_sizes(faces):
    protocol = build_protocol({"type": "fsr", "dataroot_gt": str(faces), "out_size": 31, "scales": [16, 3]})
    assert protocol.conditions == ["3x", "16x"]
    assert protocol.notes[0] == "3x: the inputs have 10 px, 31 / 3 rounded"
    assert protocol.sample("face_0", "3x").lq.shape == (10, 10, 3)


def test_pairs_are_matched_by_name(pairs, faces):
    protocol = build_protocol(pairs)
    assert protocol.size == 32
    assert protocol.has_truth
    for key in protocol.keys:
        sample = protocol.sample(key, "")
        np.testing.assert_array_equal(sample.gt, cv2.imread(str(faces / f"{key}.png")))
        np.testing.assert_array_equal(sample.lq, resize_square(sample.gt, 8))
    assert build_protocol({**pairs, "out_size": 20}).sample("face_1", "").gt.shape == (20, 20, 3)


def test_pairs_with_another_sort_order(pairs, tmp_path):
    (tmp_path / "lq" / "face_0.png").rename(tmp_path / "lq" / "face_0.webp")  # another suffix, the same key
    sample = build_protocol(pairs).sample("face_1", "")
    np.testing.assert_array_equal(sample.lq, resize_square(sample.gt, 8))


def test_lonely_images_of_both_sides_are_listed(pairs, tmp_path):
    (tmp_path / "lq" / "face_2.png").unlink()
    (tmp_path / "gt" / "face_5.png").unlink()
    with pytest.raises(
        DataError, match="protocol:dataroot_lq: lacks 1 of the 7 images of dataroot_gt: face_2"
    ) as caught:
        build_protocol(pairs)
    assert "protocol:dataroot_gt: lacks 1 of the 7 images of dataroot_lq: face_5" in str(caught.value)


def test_many_lonely_images_are_cut_to_twenty(pairs, tmp_path):
    for i in range(25):
        cv2.imwrite(str(tmp_path / "gt" / f"more_{i:02d}.png"), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r"lacks 25 of the 33 .* more_19 and 5 more"):
        build_protocol(pairs)


def test_truth_of_several_sizes_needs_an_out_size(pairs, tmp_path):
    cv2.imwrite(str(tmp_path / "gt" / "face_4.png"), np.zeros((40, 40, 3), np.uint8))
    protocol = build_protocol(pairs)
    with pytest.raises(DataError, match=r"face_4.png: has 40 x 40 px; expected 32 x 32 .* protocol:out_size"):
        protocol.sample("face_4", "")
    assert build_protocol({**pairs, "out_size": 32}).sample("face_4", "").gt.shape == (32, 32, 3)


def test_ground_truth_that_is_not_square_needs_out_size(pairs, tmp_path):
    cv2.imwrite(str(tmp_path / "gt" / "face_0.png"), np.zeros((40, 30, 3), np.uint8))
    with pytest.raises(DataError, match="30 x 40 px; expected square"):
        build_protocol(pairs)


def test_size_is_that_of_the_first_readable_ground_truth(pairs, tmp_path):
    (tmp_path / "gt" / "face_0.png").write_bytes(b"nothing")
    protocol = build_protocol(pairs)
    assert protocol.size == 32
    with pytest.raises(DataError, match=r"face_0\.png"):
        protocol.sample("face_0", "")


def test_wild_takes_the_central_square(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    (tmp_path / "folder").mkdir()
    cv2.imwrite(str(tmp_path / "folder" / "photo.png"), image)
    protocol = build_protocol({"type": "wild", "dataroot_lq": str(tmp_path), "out_size": 64})
    assert (protocol.keys, protocol.conditions, protocol.has_truth) == (["folder/photo"], [""], False)
    sample = protocol.sample("folder/photo", "")
    assert sample.gt is None
    assert sample.size == 64
    np.testing.assert_array_equal(sample.lq, image[:, 5:25])


def test_number_of_images(faces):
    options = {"type": "wild", "dataroot_lq": str(faces), "out_size": 32}
    assert build_protocol({**options, "num_images": 3}).keys == ["face_0", "face_1", "face_2"]
    many = build_protocol({**options, "num_images": 100})
    assert len(many.keys) == 8
    assert many.notes == ["100 images are asked for, 8 are there"]


def test_folder_zip_and_lmdb_are_one_set(faces, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "faces"), "zip", faces)
    stored = tmp_path / "faces.lmdb"
    make_lmdb.main(["--input", str(faces), "--output", str(stored), "--size", "32"])
    assert LmdbSource(stored, "").keys
    protocols = [
        build_protocol({"type": "bfr", "dataroot_gt": str(root), "out_size": 32, "degradation": SMALL})
        for root in (faces, archive, stored)
    ]
    for place in all_samples(protocols[0]):
        first, *others = (protocol.sample(*place) for protocol in protocols)
        for other in others:
            np.testing.assert_array_equal(first.lq, other.lq)
            np.testing.assert_array_equal(first.gt, other.gt)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "blind"}, "protocol:type: got 'blind'; expected one of bfr, fsr, pairs, wild"),
        ({"type": ["bfr"]}, "protocol:type: got ['bfr']"),
        ({"out_size": 0}, "protocol:out_size: got 0"),
        ({"out_size": None}, "protocol:out_size"),
        ({"num_images": 0}, "protocol:num_images: got 0"),
        ({"sed": 1}, "Did you mean 'seed'?"),
        ({"degradation": {"jpeg_rnge": [1, 2]}}, "protocol:degradation:jpeg_rnge"),
        ({"degradation": {"jpeg_range": [50, 5]}}, "protocol:degradation:jpeg_range"),
        ({"type": "fsr", "seed": 0}, "protocol:seed: unknown key"),
        ({"type": "fsr", "scales": [8, 8]}, "protocol:scales: got [8, 8]"),
        ({"type": "fsr", "scales": []}, "protocol:scales: got []"),
        ({"type": "fsr", "scales": [1]}, "protocol:scales: got [1]"),
        ({"type": "fsr", "scales": [64]}, "none leaves a pixel"),
        ({"dataroot_gt": "nowhere"}, "protocol:dataroot_gt: nowhere is not there"),
    ],
)
def test_wrong_options_are_named_by_key_path(faces, changes, words):
    given = {"type": "bfr", "dataroot_gt": str(faces), "out_size": 32, **changes}
    with pytest.raises(GPENError, match=re.escape(words)):
        build_protocol(given)


@pytest.mark.parametrize(("given", "words"), [(None, "protocol: got None"), ({}, "protocol:type: missing")])
def test_no_section(given, words):
    with pytest.raises(OptionError, match=words):
        build_protocol(given)


def test_wrong_values_are_reported_together(faces):
    with pytest.raises(OptionError, match="2 problems"):
        build_protocol({"type": "wild", "dataroot_lq": str(faces), "out_size": 0, "num_images": 0})


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"protocol:dataroot_lq: .* holds no images"):
        build_protocol({"type": "wild", "dataroot_lq": str(tmp_path), "out_size": 8})


def test_unreadable_image_is_named(tmp_path, faces):
    shutil.copytree(faces, tmp_path / "faces")
    (tmp_path / "faces" / "face_3.png").write_bytes(b"nothing")
    protocol = build_protocol({"type": "bfr", "dataroot_gt": str(tmp_path / "faces"), "out_size": 32})
    with pytest.raises(DataError, match=r"face_3\.png"):
        protocol.sample("face_3", "")


@pytest.mark.parametrize("key", ["../face", "a/../../face", "/face"])
def test_name_outside_the_folder_is_an_error(tmp_path, key):
    path = tmp_path / "faces.lmdb"
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(key.encode(), cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    (path / "meta_info.txt").write_text(f"{key}.png (8,8,3) 1\n")
    with pytest.raises(DataError, match="has an image called"):
        build_protocol({"type": "wild", "dataroot_lq": str(path), "out_size": 8})
