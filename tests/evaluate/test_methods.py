"""Enlargements, folders of images, and what every method has to keep to."""

import json

import cv2
import numpy as np
import pytest
from helpers.faces_to_restore import degraded, method

from gpen_plugin.errors import DataError, OptionError


@pytest.mark.parametrize(("kind", "flag"), [("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC)])
def test_enlargements_are_opencvs_rounded_once(kind, flag):
    sample = degraded()
    wide = cv2.resize(sample.lq.astype(np.float64), (64, 64), interpolation=flag)
    expected = np.rint(wide.clip(0, 255)).astype(int)
    restored = method({"type": kind})(sample)
    assert restored.shape == (64, 64, 3)
    assert restored.dtype == np.uint8
    differing = restored != expected
    assert differing.mean() < 0.001  # ties
    assert np.abs(restored - expected).max() <= 1


def test_bicubic_overshoots_and_is_clipped():
    sample = degraded()
    sample.lq[:] = 0
    sample.lq[:, 6:] = 255
    restored = method({"type": "bicubic"})(sample)
    assert (restored[:, :4] == 0).all()
    assert (restored[:, -4:] == 255).all()
    assert sorted(restored[0, :, 0]) == list(restored[0, :, 0])


@pytest.fixture
def elsewhere(tmp_path):
    """Images of 64 px under the names of two cases, for two conditions."""
    for condition in ("8x", "16x"):
        for seed in (0, 1):
            path = tmp_path / condition / "folder" / f"{seed}_00.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), restored_path(condition, seed))
    return tmp_path


def restored_path(condition: str, seed: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng([len(condition), seed]).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("condition", ["8x", "16x"])
@pytest.mark.parametrize("seed", [0, 1])
def test_folder_returns_image_of_key_and_condition(elsewhere, condition, seed):
    restored = method({"type": "folder", "path": f"{elsewhere}/{{condition}}", "suffix": "_00"})(
        degraded(seed, condition=condition)
    )
    np.testing.assert_array_equal(restored, restored_path(condition, seed))


def test_image_of_another_size_is_resized(elsewhere):
    entry = {"type": "folder", "path": f"{elsewhere}/8x", "suffix": "_00"}
    smaller = method(entry)(degraded(0, size=32))
    expected = restored_path("8x", 0).astype(float).reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(smaller - expected).max() <= 0.5
    assert method(entry)(degraded(0, size=128)).shape == (128, 128, 3)


def test_missing_image_is_named(elsewhere):
    entry = {"type": "folder", "path": f"{elsewhere}/8x", "suffix": "_00"}
    with pytest.raises(DataError, match=r"8x/folder/7_00: is not there"):
        method(entry)(degraded(7))


def test_one_folder_for_several_conditions_is_an_error(elsewhere):
    with pytest.raises(OptionError, match=r"several conditions \(8x.*Write \{condition\} in the path"):
        method({"type": "folder", "path": f"{elsewhere}/8x", "suffix": "_00"})(degraded(0, condition="8x"))


@pytest.mark.parametrize("path", ["nowhere", "nowhere/{condition}"])
def test_missing_folder_is_an_error_at_build(tmp_path, path):
    with pytest.raises(DataError, match=r"methods:M:path: .*nowhere"):
        method({"type": "folder", "path": str(tmp_path / path)})


def test_folder_identity_depends_on_contents_only(elsewhere, tmp_path_factory):
    def identity(path) -> dict:
        return method({"type": "folder", "path": f"{path}/{{condition}}"}).identity

    before = identity(elsewhere)
    moved = tmp_path_factory.mktemp("other") / "place"
    elsewhere.rename(moved)
    assert identity(moved) == before
    changed = restored_path("8x", 0)
    changed[0, 0, 0] ^= 1
    cv2.imwrite(str(moved / "8x" / "folder" / "0_00.png"), changed)
    assert identity(moved) != before


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "bilinar"}, r"methods:M:type: got 'bilinar'.*Did you mean 'bilinear'\?"),
        ({"type": ["gpen"]}, r"methods:M:type: got \['gpen'\]"),
        ({}, r"methods:M:type"),
        ({"type": "bicubic", "size": 3}, r"methods:M:size: unknown key"),
        ({"type": "folder", "paht": "x"}, r"methods:M:paht: unknown key.*Did you mean 'path'\?"),
        ({"type": "gpen"}, r"methods:M:weights: missing"),
    ],
)
def test_wrong_entries_are_reported_by_key(entry, message):
    with pytest.raises(OptionError, match=message):
        method(entry)


def test_identities_are_json_and_differ(elsewhere):
    entries = [{"type": "bilinear"}, {"type": "bicubic"}, {"type": "folder", "path": f"{elsewhere}/8x"}]
    identities = [method(entry).identity for entry in entries]
    assert json.loads(json.dumps(identities)) == identities
    assert len({json.dumps(identity) for identity in identities}) == len(entries)


def test_folder_image_is_cropped_like_the_ground_truth(tmp_path):
    """Not squeezed: an evaluation takes the central square of a face that is not square."""
    wide = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    (tmp_path / "folder").mkdir()
    cv2.imwrite(str(tmp_path / "folder" / "0.png"), wide)
    restored = method({"type": "folder", "path": str(tmp_path)})(degraded(size=32))
    np.testing.assert_array_equal(restored, wide[:, 8:40])
