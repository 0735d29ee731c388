"""`gpen_plugin.restore.restore_batch`."""

import io
import json
import pickle

import cv2
import numpy as np
import pytest
from helpers.restorer_parts import FACES, Detector, Network, photograph
from PIL import Image

from gpen_plugin import RestoreBatch, Restorer
from gpen_plugin.errors import OptionError
from gpen_plugin.restore import restorer


def darker(face):
    return face / 2


@pytest.fixture
def restore(monkeypatch):
    """A `RestoreBatch` with a network that halves the values of two faces."""
    monkeypatch.setattr(restorer, "open_detector", lambda *_, **__: Detector(*FACES))

    def build(*arguments, **options):
        return RestoreBatch(*arguments, model=Network(darker), device="cpu", mask="soft", **options)

    return build


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.fixture
def expected(restore):
    """What `Restorer` makes of the photograph, BGR."""
    return Restorer(Network(darker), device="cpu", mask="soft").restore(photograph()).image


def test_files_keep_their_format_and_other_columns_stay(restore, expected):
    batch = {"bytes": np.array([png(photograph())], dtype=object), "path": ["in/a.png"], "label": np.array([7])}
    out = restore("bytes")(batch)
    np.testing.assert_array_equal(decoded(out["bytes"][0]), expected)
    assert out["path"] == ["in/a.png"]
    assert out["label"] == [7]
    assert len(json.loads(out["report"][0])["faces"]) == 2
    assert (expected != photograph()).any()


def test_arrays_are_rgb(restore, expected):
    rgb = photograph()[:, :, ::-1]
    out = restore()({"image": np.stack([rgb, rgb])})
    for image in out["image"]:
        np.testing.assert_array_equal(image, expected[:, :, ::-1])


def test_images_of_pillow_stay_images(restore, expected):
    image = Image.fromarray(np.ascontiguousarray(photograph()[:, :, ::-1]))
    out = restore()({"image": [image, image.quantize(8)]})["image"]
    np.testing.assert_array_equal(np.asarray(out[0]), expected[:, :, ::-1])
    assert out[1].mode == "RGB"


def test_undecoded_images_of_datasets_stay_dicts(restore, expected, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(photograph()))
    given = [{"bytes": path.read_bytes(), "path": None}, {"bytes": None, "path": str(path)}]
    for image in restore()({"image": given})["image"]:
        np.testing.assert_array_equal(decoded(image["bytes"]), expected)


def test_a_damaged_file_fails_only_its_image(restore):
    out = restore("bytes")({"bytes": [b"no image", png(photograph())], "path": ["in/a.png", "in/b.png"]})
    assert out["bytes"][0] is None
    assert out["bytes"][1]
    assert json.loads(out["report"][0])["error"].startswith("in/a.png: is no image of a kind that can be read")


@pytest.mark.parametrize(
    ("name", "suffix", "kind"), [("a.jpg", None, "JPEG"), ("a", None, "PNG"), ("a.jpg", ".webp", "WEBP")]
)
def test_format_is_that_of_suffix_name_or_contents(restore, name, suffix, kind):
    out = restore("bytes", suffix=suffix)({"bytes": [png(photograph())], "path": [name]})
    assert Image.open(io.BytesIO(out["bytes"][0])).format == kind


def test_all_pages_of_a_tiff_file_are_restored(restore):
    pages = [Image.fromarray(photograph(seed=seed)) for seed in range(2)]
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    out = restore("bytes")({"bytes": [file.getvalue()], "path": ["a.tif"]})
    assert Image.open(io.BytesIO(out["bytes"][0])).n_frames == 2


def test_aligned_faces_get_the_size_of_the_network(restore):
    out = restore(aligned=True)({"image": [np.zeros((32, 32, 3), np.uint8)]})
    assert out["image"][0].shape == (64, 64, 3)


def test_a_used_instance_pickles_without_its_network():
    restore = RestoreBatch(model="GPEN-Faces-256", device="cpu", aligned=True)
    before = pickle.dumps(restore)
    restore({"image": [np.zeros((64, 64, 3), np.uint8)]})
    assert pickle.dumps(restore) == before
    assert len(before) < 1000


def test_wrong_arguments_are_refused_before_a_network_is_built():
    with pytest.raises(TypeError, match="modle"):
        RestoreBatch(modle="GPEN-BFR-512")
    with pytest.raises(OptionError, match=r"suffix: got \.gif; expected one of \.png"):
        RestoreBatch(suffix=".gif")


def test_a_missing_column_is_named():
    with pytest.raises(OptionError, match="image: got image; expected one of the columns bytes, path"):
        RestoreBatch()({"bytes": [], "path": []})
