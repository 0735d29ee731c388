"""Fingerprints: what changes them, what does not, and how they say it."""

import json
import random
import shutil
from dataclasses import replace

import cv2
import make_lmdb
import numpy as np
import pytest

from gpen_plugin.baselines.method import Sample
from gpen_plugin.data.image_source import resize_square
from gpen_plugin.errors import DataError
from gpen_plugin.evaluate import fingerprint
from gpen_plugin.evaluate.fingerprint import Fingerprint, compute_fingerprint, differences
from gpen_plugin.evaluate.protocols import all_samples, build_protocol

SMALL = {"kernel_size": [3, 5], "downsample_range": [1, 4]}


def fingerprint_of(**options) -> Fingerprint:
    protocol = build_protocol({"out_size": 32, **options})
    return compute_fingerprint(protocol, (protocol.sample(*place) for place in all_samples(protocol)))


@pytest.fixture
def bfr(faces):
    return fingerprint_of(type="bfr", dataroot_gt=str(faces), degradation=SMALL)


@pytest.fixture
def gt(faces, tmp_path):
    """A copy of the faces that a test may change."""
    return shutil.copytree(faces, tmp_path / "gt")


def changed_parts(one: Fingerprint, other: Fingerprint) -> set[str]:
    assert one.digest != other.digest
    return {name for name in one.parts if one.parts[name] != other.parts[name]}


def differing(one: Fingerprint, other: Fingerprint) -> list[str]:
    return differences(one.to_dict(), json.loads(json.dumps(other.to_dict())))


def test_line(bfr):
    parts = bfr.parts
    assert str(bfr) == (
        f"bfr {bfr.digest} · 8 images · 32 px · options {parts['options']} images {parts['images']} "
        f"inputs {parts['inputs']} versions {parts['versions']}"
    )
    assert len(bfr.digest) == 12
    assert bfr.to_dict()["line"] == str(bfr)


def test_json_and_back(bfr):
    text = json.dumps(bfr.to_dict())
    assert Fingerprint.from_dict(json.loads(text)) == bfr
    assert differing(bfr, bfr) == []


def test_image_takes_few_bytes(faces):
    protocol = build_protocol({"type": "fsr", "dataroot_gt": str(faces), "out_size": 32})
    samples = [protocol.sample(*place) for place in all_samples(protocol)]
    long = [replace(sample, key=f"{i:05d}") for i in range(200) for sample in samples[:3]]
    few = len(json.dumps(compute_fingerprint(protocol, long[:300]).to_dict()))
    assert len(json.dumps(compute_fingerprint(protocol, long).to_dict())) - few < 100 * 100


def test_fingerprint_is_independent_of_order_folder_and_format(faces, tmp_path, bfr):
    archive = shutil.make_archive(str(tmp_path / "faces"), "zip", faces)
    stored, bitmaps = tmp_path / "faces.lmdb", tmp_path / "bitmaps"
    make_lmdb.main(["--input", str(faces), "--output", str(stored), "--size", "32"])
    bitmaps.mkdir()
    for path in faces.iterdir():
        cv2.imwrite(str(bitmaps / f"{path.stem}.bmp"), cv2.imread(str(path)))
    for root in (archive, stored, bitmaps):
        assert fingerprint_of(type="bfr", dataroot_gt=str(root), degradation=SMALL) == bfr


def test_order_of_the_cases_does_not_matter(faces):
    protocol = build_protocol({"type": "fsr", "dataroot_gt": str(faces), "out_size": 32})
    places = list(all_samples(protocol))
    in_order = compute_fingerprint(protocol, (protocol.sample(*place) for place in places))
    random.Random(1).shuffle(places)
    shuffled = compute_fingerprint(protocol, (protocol.sample(*place) for place in places))
    assert shuffled == in_order
    assert str(shuffled) == str(in_order)


def test_threads_of_opencv_do_not_matter(faces, bfr):
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        assert fingerprint_of(type="bfr", dataroot_gt=str(faces), degradation=SMALL) == bfr
    finally:
        cv2.setNumThreads(before)


def test_explicit_defaults_give_the_same_fingerprint(faces, bfr):
    same = {"kernel_size": [3, 5], "downsample_range": [1.0, 4.0], "noise_range": [0, 25], "downsampler": "area"}
    written = fingerprint_of(type="bfr", dataroot_gt=str(faces), degradation=same, seed=0, num_images=8)
    assert written.digest == bfr.digest


def test_fewer_images_change_the_list(faces, bfr):
    fewer = fingerprint_of(type="bfr", dataroot_gt=str(faces), degradation=SMALL, num_images=6)
    assert changed_parts(bfr, fewer) == {"images", "inputs"}
    assert differing(bfr, fewer) == ["2 images only in the first: face_6, face_7"]
    assert differing(fewer, bfr) == ["2 images only in the second: face_6, face_7"]


def test_name_changes_only_the_image_list(gt):
    before = fingerprint_of(type="wild", dataroot_lq=str(gt))
    (gt / "face_7.png").rename(gt / "face_8.png")
    after = fingerprint_of(type="wild", dataroot_lq=str(gt))
    assert changed_parts(before, after) == {"images"}
    assert differing(before, after) == ["1 image only in the first: face_7", "1 image only in the second: face_8"]


def test_pixel_changes_only_the_inputs(gt):
    before = fingerprint_of(type="wild", dataroot_lq=str(gt))
    image = cv2.imread(str(gt / "face_2.png"))
    image[0, 0, 0] ^= 1
    cv2.imwrite(str(gt / "face_2.png"), image)
    after = fingerprint_of(type="wild", dataroot_lq=str(gt))
    assert changed_parts(before, after) == {"inputs"}
    assert differing(before, after) == ["inputs of 1 image differ although the options agree: face_2"]


def test_truth_counts_too(gt, faces):
    options = {"type": "pairs", "dataroot_lq": str(faces), "dataroot_gt": str(gt)}
    before = fingerprint_of(**options)
    cv2.imwrite(str(gt / "face_0.png"), np.zeros((32, 32, 3), np.uint8))
    assert changed_parts(before, fingerprint_of(**options)) == {"inputs"}


def test_shape_counts_too(faces):
    protocol = build_protocol({"type": "wild", "dataroot_lq": str(faces), "out_size": 32})
    shapes = ((2, 3, 3), (3, 2, 3))
    samples = [Sample("x", "", np.zeros(shape, np.uint8), None, 32) for shape in shapes]
    assert changed_parts(*(compute_fingerprint(protocol, [sample]) for sample in samples)) == {"inputs"}


def test_differing_options_are_named_by_key_path(faces, bfr):
    other = fingerprint_of(type="bfr", dataroot_gt=str(faces), degradation={**SMALL, "downsample_range": [1, 5]})
    assert changed_parts(bfr, other) == {"options", "inputs"}
    phrases = differing(bfr, other)
    assert phrases[0] == "other degradation:downsample_range ([1, 4] and [1, 5])"
    assert phrases[1].startswith("inputs of ")
    assert "although" not in phrases[1]


def test_differing_versions_are_named_by_package(bfr):
    other = replace(bfr, versions={**bfr.versions, "torch": "9.9.0", "extra": "1"})
    assert changed_parts(bfr, other) == {"versions"}
    assert differing(bfr, other) == ["extra not there and 1", f"torch {bfr.versions['torch']} and 9.9.0"]


def test_versions_know_nothing_of_the_machine(monkeypatch):
    monkeypatch.setattr(fingerprint.metadata, "version", lambda name: "2.1.0+cpu")
    found = fingerprint.versions()
    assert found["torch"] == "2.1.0"
    assert {"gpen_plugin", "basicsr", "torch", "numpy", "opencv", "scipy", "lpips"} == found.keys()


def test_package_that_is_absent_is_left_out(monkeypatch):
    def version(name: str) -> str:
        if name == "lpips":
            raise fingerprint.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(fingerprint.metadata, "version", version)
    assert "lpips" not in fingerprint.versions()


def test_other_protocols_with_the_same_images(faces, tmp_path):
    fsr = fingerprint_of(type="fsr", dataroot_gt=str(faces), scales=[4])
    (tmp_path / "lq").mkdir()
    for path in faces.iterdir():
        cv2.imwrite(str(tmp_path / "lq" / path.name), resize_square(cv2.imread(str(path)), 8))
    pairs = fingerprint_of(type="pairs", dataroot_lq=str(tmp_path / "lq"), dataroot_gt=str(faces))
    phrases = differing(fsr, pairs)
    assert phrases[0] == "protocols fsr and pairs"
    assert phrases[1].startswith("inputs of 8 images differ: face_0, face_1, face_2, face_3, face_4 and 3 more")


@pytest.mark.parametrize("change", [{"inputs": ["0" * 12] * 8}, {"size": 64}, {"digest": "0" * 12}])
def test_changed_one_is_refused(bfr, change):
    with pytest.raises(DataError, match="its parts give"):
        Fingerprint.from_dict({**bfr.to_dict(), **change})


@pytest.mark.parametrize("given", [{}, {"images": [], "inputs": ["a"]}, None])
def test_invalid_fingerprint_is_an_error(given):
    with pytest.raises(DataError, match="cannot be read"):
        Fingerprint.from_dict(given)
