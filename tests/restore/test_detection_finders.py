"""The three finders: YuNet on small files that the tests make, RetinaFace on random weights, Haar on a portrait."""

import sys
import urllib.request
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gpen_plugin.errors import CheckpointError, MissingFileError
from gpen_plugin.metrics.yunet import STRIDES
from gpen_plugin.restore.detection import haar, open_detector, retinaface, yunet
from gpen_plugin.restore.detection.haar import HaarFinder
from gpen_plugin.restore.detection.retinaface import RetinaFaceFinder
from gpen_plugin.restore.detection.yunet import YuNetFinder

sys.path.insert(0, str(Path(__file__).parents[1] / "metrics"))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def yunet_like(tmp_path_factory):
    """A network with YuNet's outputs: each cell sees its own pixels, and any size is taken."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, from_array = onnx.helper, onnx.numpy_helper.from_array
    rng = np.random.default_rng(0)
    nodes, outputs, values = [], [], []
    for stride in STRIDES:
        for kind, width, scale, shift in (("cls", 1, 2, 0), ("obj", 1, 2, 0), ("bbox", 4, 0.2, 0.5), ("kps", 10, 1, 0)):
            name = f"{kind}_{stride}"
            weight = rng.normal(size=(width, 3, stride, stride)).astype(np.float32) * scale / stride / 255
            values += [from_array(weight, f"{name}_w"), from_array(np.full(width, shift, np.float32), f"{name}_b")]
            values.append(from_array(np.array([1, -1, width]), f"{name}_shape"))
            inputs = ["input", f"{name}_w", f"{name}_b"]
            nodes.append(
                helper.make_node("Conv", inputs, [f"{name}_c"], kernel_shape=[stride] * 2, strides=[stride] * 2)
            )
            nodes.append(helper.make_node("Transpose", [f"{name}_c"], [f"{name}_t"], perm=[0, 2, 3, 1]))
            last = f"{name}_r" if width == 1 else name
            nodes.append(helper.make_node("Reshape", [f"{name}_t", f"{name}_shape"], [last]))
            if width == 1:
                nodes.append(helper.make_node("Sigmoid", [last], [name]))
            outputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, None, width]))
    folder = tmp_path_factory.mktemp("yunet")

    def write(side: int | str) -> Path:
        picture = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, side, side])
        graph = helper.make_graph(nodes, "small", [picture], outputs, values)
        path = folder / f"{side}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8), path)
        return path

    return write


def compared(one, other):
    assert len(one) == len(other) > 3
    for left, right in zip(one, other, strict=True):
        assert np.allclose(left.box, right.box, atol=1e-3)
        assert np.allclose(left.landmarks, right.landmarks, atol=1e-3)
        assert left.score == pytest.approx(right.score, abs=1e-5)


@pytest.fixture
def by_opencv():
    if not hasattr(cv2, "FaceDetectorYN"):
        pytest.skip("this OpenCV has no FaceDetectorYN")


def without_opencv(monkeypatch, path, threshold):
    monkeypatch.delattr(cv2, "FaceDetectorYN", raising=False)
    return YuNetFinder(path, CPU, threshold)


def in_order(faces):
    return sorted(faces, key=lambda face: (-face.score, *face.box))


def test_opencv_and_onnxruntime_agree(by_opencv, yunet_like, monkeypatch):
    """A size that is no multiple of the strides: both add black at the right and below."""
    monkeypatch.setattr(yunet, "OVERLAPPING", 0.999)  # OpenCV rounds boxes before it holds them against each other
    picture = np.random.default_rng(1).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    path = yunet_like(96)
    opencv = YuNetFinder(path, CPU, 0.8)
    assert "opencv" in opencv._look.__qualname__
    other = without_opencv(monkeypatch, path, 0.8)
    assert "onnxruntime" in other._look.__qualname__
    assert other.tile == 96
    compared(in_order(opencv(picture)), in_order(other(picture)))


def test_a_file_that_fixes_no_size(yunet_like, monkeypatch):
    """It gives what a file with a fixed, larger size gives, but for what that sees in the added black."""
    picture = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    free, fixed = (without_opencv(monkeypatch, yunet_like(side), 0.9) for side in ("side", 160))
    assert (free.tile, fixed.tile) == (YuNetFinder.tile, 160)
    compared(in_order(free(picture)), in_order(fixed(picture)))


def test_what_opencv_refuses_goes_to_onnxruntime_without_a_word(by_opencv, yunet_like, monkeypatch, capfd):
    def refuses(*arguments):
        raise cv2.error("dynamic 'zero' shapes are not supported")

    monkeypatch.setattr(cv2.FaceDetectorYN, "create", refuses)
    detector = open_detector("yunet", file=yunet_like("side"))
    assert "onnxruntime" in detector._finder._look.__qualname__
    assert capfd.readouterr() == ("", "")


def test_a_damaged_file(tmp_path, capfd):
    pytest.importorskip("onnxruntime")
    (tmp_path / "damaged.onnx").write_bytes(b"no network")
    with pytest.raises(CheckpointError, match=r"damaged\.onnx: cannot be opened"):
        open_detector(file=tmp_path / "damaged.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_file_of_another_network(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from onnx_models import mean_colour

    with pytest.raises(CheckpointError, match="expected those of YuNet"):
        open_detector(file=mean_colour(tmp_path / "mean.onnx"))


@pytest.fixture(scope="module")
def retinaface_file(tmp_path_factory):
    """Random weights of the true architecture, under the names that the published file has."""
    pytest.importorskip("facexlib")
    torch.manual_seed(0)
    state = retinaface._architecture(CPU).state_dict()
    path = tmp_path_factory.mktemp("retinaface") / retinaface.PUBLISHED.name
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
    picture = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    found = detector._finder(picture)
    assert all(face.score > 0.55 and np.isfinite(face.landmarks).all() for face in found)
    assert [face.score for face in detector._finder(picture)] == [face.score for face in found]


def test_retinafaces_guesses_in_pixels(retinaface_file):
    """An anchor of 32 px about the middle of cell 2, 1 of stride 8 lies about (20, 12), from the picture's edge."""
    finder = RetinaFaceFinder(retinaface_file, CPU, None)
    cells, guess = 4 * 6, 2 * (1 * 6 + 2) + 1
    count = 2 * (cells + 2 * 3 + 1 * 2)
    scores, boxes, points = torch.zeros(1, count, 2), torch.zeros(1, count, 4), torch.zeros(1, count, 10)
    scores[0, guess, 1] = 0.9
    points[0, guess] = torch.tensor([-2.0, -2, 2, -2, 0, 0, -2, 2, 2, 2])  # tenths of the anchor's side
    finder._network.forward = lambda pictures: (boxes, scores, points)
    (face,) = finder(np.zeros((32, 48, 3), np.uint8))
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
    (tmp_path / "weights" / retinaface.PUBLISHED.name).symlink_to(retinaface_file)
    for name in ("GPEN_PLUGIN_WEIGHTS", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(retinaface, "_facexlib", lambda: tmp_path)
    assert open_detector().name == "retinaface"


def test_without_facexlib(monkeypatch):
    monkeypatch.setattr(retinaface.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingFileError, match="facexlib is not installed"):
        open_detector("retinaface")


EYES_NOSE_MOUTH = [[203, 101], [247, 102], [224, 128], [204, 142], [243, 144]]  # as a person sees them


@pytest.fixture(scope="module")
def portrait():
    data = pytest.importorskip("skimage.data", reason="scikit-image, which ships a portrait, is not installed")
    return np.ascontiguousarray(data.astronaut()[:300, 60:360, ::-1])


def off(face, points):
    """The landmarks' mean error in distances of the eyes."""
    points = np.asarray(points, float)
    return np.linalg.norm(face.landmarks - points, axis=1).mean() / np.linalg.norm(points[1] - points[0])


def points_of(portrait_shift=60):
    return np.array(EYES_NOSE_MOUTH, float) - (portrait_shift, 0)


@pytest.mark.parametrize("scale", [0.4, 1, 2])
def test_haar_finds_a_portrait(portrait, scale):
    picture = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    (face,) = open_detector("haar")(picture)
    assert off(face, (points_of() + 0.5) * scale - 0.5) < 0.12
    assert 0.65 < face.score <= 1


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_haar_finds_a_portrait_that_lies(portrait, quarters):
    (face,) = open_detector("haar")(np.rot90(portrait, quarters))
    points = points_of()
    for _ in range(quarters):
        points = np.stack([points[:, 1], 299 - points[:, 0]], axis=1)
    assert off(face, points) < 0.12


@pytest.mark.parametrize("degrees", [-12, 12])
def test_haars_eyes_follow_a_tilt(portrait, monkeypatch, degrees):
    matrix = cv2.getRotationMatrix2D((164, 120), degrees, 1)
    picture = cv2.warpAffine(portrait, matrix, (300, 300), borderMode=cv2.BORDER_REPLICATE)
    points = points_of() @ matrix[:, :2].T + matrix[:, 2]
    (face,) = open_detector("haar")(picture)
    monkeypatch.setattr(HaarFinder, "_eye_pair", lambda self, face: None)
    (rigid,) = open_detector("haar")(picture)
    assert off(face, points) < 0.75 * off(rigid, points)


def test_haar_finds_all_of_a_sheet(portrait):
    sheet = np.tile(cv2.resize(portrait, (120, 120), interpolation=cv2.INTER_AREA), (2, 3, 1))
    faces = open_detector("haar")(sheet)
    middles = sorted(tuple((face.landmarks.mean(axis=0) // 120).astype(int)) for face in faces)
    assert middles == [(x, y) for x in range(3) for y in range(2)]


def test_haar_without_its_cascades(monkeypatch):
    monkeypatch.setattr(haar, "FACES", "not_there.xml")
    with pytest.raises(MissingFileError, match=r"came without not_there\.xml"):
        open_detector("haar")
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(MissingFileError, match=r"OpenCV .* has no cascades of its own"):
        open_detector("haar")
