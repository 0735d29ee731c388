"""What is kept of the face as it was: closed forms, and an identity gate that sees the mean colour."""

import math

import cv2
import numpy as np
import pytest
import torch

from gpen_plugin.errors import MissingFileError, OptionError
from gpen_plugin.nets.arcface import RecognitionSettings
from gpen_plugin.nets.face_templates import FFHQ as FFHQ_POINTS
from gpen_plugin.restore import fidelity
from gpen_plugin.restore.fidelity import IdentityGate, keep_color, make_grey, open_gate
from gpen_plugin.restore.templates import ARCFACE_112, TEMPLATES

BLACK_AS_0 = {"mean": 0.0, "std": 255.0}


def texture(seed: int, side: int = 64, sigma: float = 1.0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 1, (side, side, 3))
    values = cv2.GaussianBlur(values, (0, 0), sigma)
    return (0.5 + 0.12 * values / values.std()).clip(0.05, 0.95).astype(np.float32)


def coarse(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (4, 4), interpolation=cv2.INTER_AREA)


# --- colour


def test_a_cast_is_taken_back():
    face = texture(0)
    found = keep_color((face * 0.8 + np.float32([0.1, 0, 0.05])).astype(np.float32), face)
    assert found.dtype == np.float32
    assert np.abs(coarse(found) - coarse(face)).max() < 0.01
    fine, own = (image - cv2.GaussianBlur(image, (0, 0), 1) for image in (found, face))
    assert (fine * own).sum() / (own**2).sum() == pytest.approx(0.8, abs=0.01)  # detail is the restored one's


def test_a_flat_cast_is_taken_back_wholly():
    face = texture(1)
    cast = (face + np.float32([0.04, -0.03, 0.02])).astype(np.float32)
    assert np.abs(keep_color(cast, face) - face).max() < 1e-5


def test_the_same_face_stays_and_new_detail_too():
    face = texture(2)
    assert np.array_equal(keep_color(face, face), face)
    grid = np.indices((64, 64)).sum(axis=0) % 2 * 0.05 - 0.025
    detailed = (face + grid[..., None]).astype(np.float32)
    assert np.abs(keep_color(detailed, face) - detailed).max() < 1e-3


@pytest.mark.parametrize("side", [16, 32, 128])
def test_crops_of_other_sizes(side):
    face = texture(3, side=64, sigma=8)
    crop = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    found = keep_color((face * np.float32(0.9)).astype(np.float32), crop)
    assert found.shape == (64, 64, 3)
    assert np.abs(coarse(found) - coarse(face)).max() < 0.02


def test_values_stay_in_range():
    black, white = np.zeros((8, 8, 3), np.float32), np.ones((8, 8, 3), np.float32)
    bright = black.copy()
    bright[2:4] = 1
    found = keep_color(bright, white)
    assert found.max() == 1
    assert keep_color(white, black).min() == 0


def test_grey():
    face = np.zeros((2, 2, 3), np.float32)
    face[0, 0], face[0, 1], face[1, 0], face[1, 1] = (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.3, 0.3, 0.3)
    grey = make_grey(face)
    assert grey.dtype == np.float32
    assert np.allclose(grey[..., 0], [[0.114, 0.587], [0.299, 0.3]], atol=1e-6)
    assert np.array_equal(grey[..., 0], grey[..., 1])
    assert np.array_equal(grey[..., 0], grey[..., 2])


# --- identity


@pytest.fixture
def mean_colour(tmp_path) -> str:
    """An ONNX network whose embedding is the mean of each channel, red first."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["face"], ["pooled"]),
        onnx.helper.make_node("Flatten", ["pooled"], ["embedding"]),
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "mean_colour",
        [value("face", onnx.TensorProto.FLOAT, ["n", 3, 112, 112])],
        [value("embedding", onnx.TensorProto.FLOAT, None)],
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "mean.onnx")
    return str(tmp_path / "mean.onnx")


def flat(blue: float, green: float, red: float, side: int = 40) -> np.ndarray:
    return np.full((side, side, 3), (blue, green, red), np.float32)


def test_a_cosine_in_closed_form(mean_colour):
    gate = IdentityGate(0.5, RecognitionSettings(onnx=mean_colour, **BLACK_AS_0))
    template = TEMPLATES["ffhq"]
    assert gate(flat(0, 0, 1), flat(0, 0.4, 0.4, side=70), template) == pytest.approx(math.sqrt(0.5), abs=1e-5)
    assert gate(flat(0, 0, 1), flat(0, 0, 0.2), template) == pytest.approx(1, abs=1e-9)
    nothing = gate(flat(0, 0, 1), flat(0, 0, 0), template)
    assert math.isnan(nothing)
    assert [gate.drifted(value) for value in (0.49, 0.5, 0.9, nothing)] == [True, False, False, True]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("align", ["none", "ffhq"])
def test_the_recogniser_sees_arcfaces_framing_whatever_the_crop(mean_colour, monkeypatch, name, align):
    seen = []
    monkeypatch.setattr(fidelity, "embedding", lambda face, settings: seen.append((face, settings)) or np.ones(1))
    size, template = 200, TEMPLATES[name]
    y, x = np.indices((size, size))
    ramps = np.stack([x, y, x], axis=2).astype(np.float32) / 255
    gate = IdentityGate(0, RecognitionSettings(onnx=mean_colour, align=align))
    assert gate(ramps, ramps, template) == 1
    face, settings = seen[0]
    assert settings.align == "none"
    assert (face.shape, face.dtype) == ((224, 224, 3), np.uint8)
    across, down = np.rint(ARCFACE_112[[0, 1, 3, 4]].mean(axis=0) * 224 - 0.5).astype(int)  # where both fits agree
    expected = template[[0, 1, 3, 4]].mean(axis=0) * size - 0.5
    assert np.allclose(face[down, across, :2], expected, atol=4)
    eyes = np.rint(ARCFACE_112[:2] * 224 - 0.5).astype(int)
    apart = int(face[eyes[1, 1], eyes[1, 0], 0]) - int(face[eyes[0, 1], eyes[0, 0], 0])
    assert apart == pytest.approx((template[1, 0] - template[0, 0]) * size, rel=0.1)


def test_gfpgans_network_sees_ffhqs_framing(monkeypatch):
    seen = []
    monkeypatch.setattr(fidelity, "embedding", lambda face, settings: seen.append(face) or np.ones(1))
    face = (texture(4, 256) * 255).round() / np.float32(255)
    IdentityGate(0)(face, face, TEMPLATES["ffhq"])
    assert np.array_equal(seen[0], np.rint(face * 255).astype(np.uint8))  # 256 px are twice what it takes
    assert FFHQ_POINTS[0, 0] / 512 == pytest.approx(TEMPLATES["ffhq"][0, 0], abs=1e-3)


@pytest.mark.parametrize(("device", "place"), [("cpu", "cpu"), ("mps", "cpu"), ("cuda:1", "cuda:1"), ("auto", "auto")])
def test_a_gate_works_where_the_restorer_does(device, place):
    settings = open_gate(0.4, "face.onnx", torch.device(device) if device != "auto" else device)._settings
    assert (settings.device, settings.onnx) == (place, "face.onnx")
    assert open_gate(0.4)._settings.onnx is None


def test_no_gate():
    assert open_gate(None) is None
    with pytest.raises(OptionError, match=r"identity_model: got face\.onnx"):
        open_gate(None, "face.onnx")


@pytest.mark.parametrize("shape", [(40, 70), (70, 40)])
def test_faces_that_are_not_square_are_seen_as_the_network_sees_them(monkeypatch, shape):
    """The same face, squeezed and whole, is the same."""
    seen = []
    monkeypatch.setattr(fidelity, "embedding", lambda face, settings: seen.append(face) or np.ones(1))
    face = texture(5, 256, sigma=20)
    squeezed = cv2.resize(face, shape, interpolation=cv2.INTER_AREA)
    IdentityGate(0)(squeezed, face, TEMPLATES["ffhq"])
    assert np.abs(seen[0].astype(int) - seen[1]).mean() < 2


def test_missing_weights_are_told(tmp_path):
    settings = RecognitionSettings(onnx=str(tmp_path / "gone.onnx"))
    with pytest.raises(MissingFileError, match=r"gone.onnx is not there"):
        IdentityGate(0.3, settings)(flat(0, 0, 1), flat(0, 0, 1), TEMPLATES["ffhq"])


@pytest.mark.parametrize("threshold", [-1.1, 40, math.nan])
def test_a_threshold_is_a_cosine(threshold):
    with pytest.raises(OptionError, match="identity: got"):
        IdentityGate(threshold)
