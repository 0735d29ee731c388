"""Backends: YuNet on synthetic faces, RetinaFace with random weights."""

import urllib.request
import warnings

import cv2
import numpy as np
import pytest
import torch
from synthetic_faces import render_face

from gpen_plugin.errors import CheckpointError, MissingFileError
from gpen_plugin.nets import yunet
from gpen_plugin.nets.yunet import RawPredictions, YuNetNetwork
from gpen_plugin.restore import detection
from gpen_plugin.restore.detection import RetinaFaceBackend, YuNetBackend, open_detector

CPU = torch.device("cpu")


def test_yunet_finds_synthetic_faces():
    face = render_face(0, 128)
    image = cv2.copyMakeBorder(np.hstack([face, face]), 64, 64, 64, 64, cv2.BORDER_REPLICATE)
    left, right = sorted(YuNetBackend(None)(image), key=lambda face: face.box[0])
    assert left.detector == "yunet"
    assert min(left.score, right.score) > 0.85
    assert np.allclose(right.landmarks - left.landmarks, (128, 0), atol=3)
    assert np.allclose(left.box, [93, 90, 159, 173], atol=4)


def test_yunet_applies_nms_and_threshold(monkeypatch):
    boxes = np.array([[10, 10, 50, 50], [12, 10, 52, 50], [100, 10, 140, 50]], float)
    guesses = RawPredictions(np.array([0.9, 0.85, 0.82]), np.zeros((3, 5, 2)), boxes)
    monkeypatch.setattr(detection, "yunet_network", lambda: lambda image, least: guesses)
    faces = YuNetBackend(0.8)(np.zeros((64, 160, 3), np.uint8))
    assert [face.score for face in faces] == [0.9, 0.82]
    assert np.allclose(faces[0].box, boxes[0] - 0.5)
    nothing = RawPredictions(np.zeros(0), np.zeros((0, 5, 2)), np.zeros((0, 4)))
    monkeypatch.setattr(detection, "yunet_network", lambda: lambda image, least: nothing)
    assert YuNetBackend(0.8)(np.zeros((64, 160, 3), np.uint8)) == []


def test_yunet_runs_on_old_opencv_without_onnxruntime(monkeypatch, capfd):
    monkeypatch.setattr(yunet, "find_spec", lambda name: None)
    monkeypatch.delattr(cv2.utils, "logging", raising=False)  # new in 4.13
    monkeypatch.delattr(cv2, "FaceDetectorYN", raising=False)
    monkeypatch.setattr(detection, "yunet_network", YuNetNetwork)
    image = cv2.copyMakeBorder(render_face(1, 128), 64, 64, 64, 64, cv2.BORDER_REPLICATE)
    assert len(open_detector("yunet")(image)) == 1
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def retinaface_file(tmp_path_factory):
    """Random weights of the true architecture, under the names that the published file has."""
    pytest.importorskip("facexlib")
    torch.manual_seed(0)
    state = detection._architecture(CPU).state_dict()
    path = tmp_path_factory.mktemp("retinaface") / detection.RETINAFACE_FILE.name
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    return path


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("something was to be downloaded")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def test_retinaface_is_opened_silently(retinaface_file, no_network, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector = open_detector(file=retinaface_file, threshold=0.55)
    assert capfd.readouterr() == ("", "")
    assert (detector.name, detector.notice) == ("retinaface", "found by RetinaFace (facexlib)")
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    found = detector._backend(image)
    assert all(face.score > 0.55 and np.isfinite(face.landmarks).all() for face in found)
    assert [face.score for face in detector._backend(image)] == [face.score for face in found]


def test_retinafaces_guesses_in_pixels(retinaface_file):
    """An anchor of 32 px about the middle of cell 2, 1 of stride 8 lies about (20, 12), from the image's edge."""
    backend = RetinaFaceBackend(retinaface_file, CPU, None)
    cells, guess = 4 * 6, 2 * (1 * 6 + 2) + 1
    count = 2 * (cells + 2 * 3 + 1 * 2)
    scores, boxes, points = torch.zeros(1, count, 2), torch.zeros(1, count, 4), torch.zeros(1, count, 10)
    scores[0, guess, 1] = 0.9
    points[0, guess] = torch.tensor([-2.0, -2, 2, -2, 0, 0, -2, 2, 2, 2])  # tenths of the anchor's side
    backend._network.forward = lambda images: (boxes, scores, points)
    (face,) = backend(np.zeros((32, 48, 3), np.uint8))
    assert np.allclose(face.box, [3.5, -4.5, 35.5, 27.5], atol=1e-4)
    assert np.allclose(face.landmarks, [[13.1, 5.1], [25.9, 5.1], [19.5, 11.5], [13.1, 17.9], [25.9, 17.9]], atol=1e-4)
    assert face.score == pytest.approx(0.9)


def test_retinaface_of_other_weights(tmp_path, retinaface_file):
    state = dict(list(torch.load(retinaface_file, weights_only=True).items())[1:])
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(CheckpointError, match=r"short.pth: its tensors are not those of RetinaFace.*is missing"):
        open_detector(file=tmp_path / "short.pth")


def test_facexlibs_own_copy_is_found(tmp_path, monkeypatch, retinaface_file):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / detection.RETINAFACE_FILE.name).symlink_to(retinaface_file)
    for name in ("GPEN_PLUGIN_WEIGHTS", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(detection, "_facexlib_folder", lambda: tmp_path)
    assert open_detector().name == "retinaface"


def test_without_facexlib(monkeypatch):
    monkeypatch.setattr(detection.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingFileError, match=r"facexlib is not installed.* Run: pip install facexlib"):
        open_detector("retinaface")
    assert open_detector().name == "yunet"


def test_auto_downloads_nothing(monkeypatch, tmp_path, no_network):
    monkeypatch.setattr(detection, "_facexlib_folder", lambda: tmp_path)
    monkeypatch.setattr(detection, "find_local", lambda file: None)
    assert open_detector().name == "yunet"


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_portrait_that_lies(quarters):
    image = cv2.copyMakeBorder(render_face(2, 128), 64, 64, 64, 64, cv2.BORDER_REPLICATE)
    (upright,) = open_detector("yunet")(image)
    (face,) = open_detector("yunet")(np.ascontiguousarray(np.rot90(image, quarters)))
    points = upright.landmarks
    for _ in range(quarters):
        points = np.stack([points[:, 1], 255 - points[:, 0]], axis=1)
    assert np.abs(face.landmarks - points).max() < 3
