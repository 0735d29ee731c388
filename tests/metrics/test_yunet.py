"""YuNet: its guesses decoded in closed form, on files that say the same of every picture; and the real file, if any."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from onnx_models import constant, mean_colour

from gpen_plugin.errors import CheckpointError, MissingFileError
from gpen_plugin.metrics import yunet
from gpen_plugin.metrics.yunet import FRAME, OF_ANY_SIZE, PUBLISHED, SIDE, YuNet

EYES_NOSE_MOUTH = np.array([[-2.0, -2.0], [2.0, -2.0], [0.0, 0.0], [-1.5, 2.0], [1.5, 2.0]])  # in strides, round 0


def guesses(*faces: tuple, frame: int = FRAME) -> dict[str, np.ndarray]:
    """Outputs of a network that guesses faces: (stride, column, row, certainty, shift in strides)."""
    outputs = {}
    for stride in yunet.STRIDES:
        cells = (frame // stride) ** 2
        for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            outputs[f"{kind}_{stride}"] = np.zeros((1, cells, width), np.float32)
    for stride, column, row, certainty, shift in faces:
        cell = row * (frame // stride) + column
        outputs[f"cls_{stride}"][0, cell] = 1.0
        outputs[f"obj_{stride}"][0, cell] = certainty**2
        outputs[f"kps_{stride}"][0, cell] = (EYES_NOSE_MOUTH + shift).reshape(-1)
    return outputs


def found(path: Path, height: int, width: int) -> np.ndarray | None:
    return YuNet(str(path), "cpu")(np.zeros((height, width, 3), np.uint8))


def test_points_in_pixels_of_the_picture(tmp_path):
    """Cell 20, 18 of stride 8 begins 0 px right of the frame's middle and 16 px above it."""
    path = constant(tmp_path / "one.onnx", guesses((8, 20, 18, 0.9, 0.5)))
    expected_in_frame = (np.array([20, 18]) + 0.5 + EYES_NOSE_MOUTH) * 8
    in_picture = (expected_in_frame - FRAME / 2) * 112 / SIDE + 56
    assert np.allclose(found(path, 112, 112), in_picture - 0.5)
    wide = (expected_in_frame - FRAME / 2) * 112 / SIDE + (56, 28)  # a border above and below
    assert np.allclose(found(path, 56, 112), wide - 0.5)


@pytest.mark.parametrize("shape", [(64, 64), (500, 300)])
def test_the_border_is_repeated(shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    framed, scale, (left, up) = yunet._framed(picture, FRAME)
    assert framed.shape == (FRAME, FRAME, 3)
    width, height = np.rint(scale * (shape[1], shape[0])).astype(int)
    right, down = left + width - 1, up + height - 1
    assert max(right - left, down - up) == SIDE - 1
    assert (framed[: up + 1, : left + 1] == framed[up, left]).all()
    assert (framed[down:, right:] == framed[down, right]).all()
    assert (framed[up : down + 1, :left] == framed[up : down + 1, left : left + 1]).all()


def test_a_file_that_fixes_its_size_gets_a_wider_border(tmp_path):
    path = constant(tmp_path / "fixed.onnx", guesses((32, 9, 9, 0.9, 0.0), frame=640), side=640)
    expected = ((np.array([9, 9]) + EYES_NOSE_MOUTH) * 32 - 320) * 100 / SIDE + 50
    assert np.allclose(found(path, 100, 100), expected - 0.5)


def test_guesses_of_one_face_are_averaged(tmp_path):
    path = constant(tmp_path / "two.onnx", guesses((8, 20, 20, 0.9, 0.0), (8, 21, 20, 0.6, 0.0), (8, 22, 20, 0.4, 0.0)))
    one = constant(tmp_path / "one.onnx", guesses((8, 20, 20, 0.9, 0.0)))
    moved = found(path, SIDE, SIDE) - found(one, SIDE, SIDE)
    assert np.allclose(moved, [8 * 0.6 / 1.5, 0], atol=1e-5)  # the third is not certain enough


def test_the_face_in_the_middle_counts(tmp_path):
    middle, corner = (16, 10, 10, 0.7, 0.0), (16, 4, 4, 0.95, 0.0)
    both = found(constant(tmp_path / "both.onnx", guesses(middle, corner)), 64, 64)
    assert np.allclose(both, found(constant(tmp_path / "one.onnx", guesses(middle)), 64, 64))
    far_surer = found(constant(tmp_path / "surer.onnx", guesses((16, 10, 10, 0.55, 0.0), (16, 8, 9, 1.0, 0.0))), 64, 64)
    assert not np.allclose(far_surer, both)


def test_no_face(tmp_path):
    assert found(constant(tmp_path / "unsure.onnx", guesses((8, 20, 20, 0.45, 0.0))), 64, 64) is None
    assert found(constant(tmp_path / "empty.onnx", guesses()), 64, 64) is None


def test_a_file_of_another_network(tmp_path):
    with pytest.raises(CheckpointError, match=r"mean.onnx: has the outputs embedding; expected those of YuNet"):
        found(mean_colour(tmp_path / "mean.onnx"), 64, 64)
    path = constant(tmp_path / "larger.onnx", guesses(frame=640))
    with pytest.raises(CheckpointError, match=r"gives cls_8 of shape \(1, 6400, 1\) for a .* expected \(1, 1600, 1\)"):
        found(path, 64, 64)


def test_which_file_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("GPEN_PLUGIN_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    with pytest.raises(MissingFileError, match=PUBLISHED.name):
        YuNet()
    constant(tmp_path / PUBLISHED.name, guesses((8, 20, 20, 0.9, 0.0)))
    published = YuNet()(np.zeros((64, 64, 3), np.uint8))
    constant(tmp_path / OF_ANY_SIZE.name, guesses((8, 22, 20, 0.9, 0.0)))
    assert not np.allclose(YuNet()(np.zeros((64, 64, 3), np.uint8)), published)


def test_a_real_face(monkeypatch):
    """A portrait that scikit-image ships, with eyes, nose and mouth as a person sees them."""
    data = pytest.importorskip("skimage.data", reason="scikit-image, which ships a portrait, is not installed")
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    try:
        detector = YuNet(device="cpu")
    except MissingFileError:
        pytest.skip(f"neither {OF_ANY_SIZE.name} nor {PUBLISHED.name} is on this machine")
    face = np.ascontiguousarray(data.astronaut()[:220, 120:340, ::-1])
    points = detector(face)
    assert np.abs(points - [[83, 101], [127, 102], [104, 128], [84, 142], [123, 144]]).max() < 4
    small = detector(cv2.resize(face, (110, 110), interpolation=cv2.INTER_AREA))
    assert np.abs((small + 0.5) * 2 - 0.5 - points).max() < 2
