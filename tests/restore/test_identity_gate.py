"""The identity gate, with a recognition network that gives the mean color."""

import math

import cv2
import numpy as np
import pytest
import torch

from gpen_plugin.errors import MissingFileError, OptionError
from gpen_plugin.nets.arcface import RecognitionSettings
from gpen_plugin.nets.face_templates import FFHQ as FFHQ_POINTS
from gpen_plugin.restore import identity_gate
from gpen_plugin.restore.alignment import ARCFACE_112, TEMPLATES
from gpen_plugin.restore.identity_gate import IdentityGate, open_gate

BLACK_AS_0 = {"mean": 0.0, "std": 255.0}


def texture(seed: int, side: int = 64, sigma: float = 1.0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 1, (side, side, 3))
    values = cv2.GaussianBlur(values, (0, 0), sigma)
    return (0.5 + 0.12 * values / values.std()).clip(0.05, 0.95).astype(np.float32)


@pytest.fixture
def mean_color(tmp_path) -> str:
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
        "mean_color",
        [value("face", onnx.TensorProto.FLOAT, ["n", 3, 112, 112])],
        [value("embedding", onnx.TensorProto.FLOAT, None)],
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "mean.onnx")
    return str(tmp_path / "mean.onnx")


def flat(blue: float, green: float, red: float, side: int = 40) -> np.ndarray:
    return np.full((side, side, 3), (blue, green, red), np.float32)


def test_a_cosine_in_closed_form(mean_color):
    gate = IdentityGate(0.5, RecognitionSettings(onnx=mean_color, **BLACK_AS_0))
    template = TEMPLATES["ffhq"]
    assert gate(flat(0, 0, 1), flat(0, 0.4, 0.4, side=70), template) == pytest.approx(math.sqrt(0.5), abs=1e-5)
    assert gate(flat(0, 0, 1), flat(0, 0, 0.2), template) == pytest.approx(1, abs=1e-9)
    nothing = gate(flat(0, 0, 1), flat(0, 0, 0), template)
    assert math.isnan(nothing)
    assert [gate.rejects(value) for value in (0.49, 0.5, 0.9, nothing)] == [True, False, False, True]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("align", ["none", "ffhq"])
def test_recognition_network_sees_arcface_framing(mean_color, monkeypatch, name, align):
    seen = []
    monkeypatch.setattr(identity_gate, "embedding", lambda face, settings: seen.append((face, settings)) or np.ones(1))
    size, template = 200, TEMPLATES[name]
    y, x = np.indices((size, size))
    ramps = np.stack([x, y, x], axis=2).astype(np.float32) / 255
    gate = IdentityGate(0, RecognitionSettings(onnx=mean_color, align=align))
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
    monkeypatch.setattr(identity_gate, "embedding", lambda face, settings: seen.append(face) or np.ones(1))
    face = (texture(4, 256) * 255).round() / np.float32(255)
    IdentityGate(0)(face, face, TEMPLATES["ffhq"])
    assert np.array_equal(seen[0], np.rint(face * 255).astype(np.uint8))  # 256 px are twice what it takes
    assert (FFHQ_POINTS[0, 0] + 0.5) / 512 == pytest.approx(TEMPLATES["ffhq"][0, 0])


@pytest.mark.parametrize(("device", "used"), [("cpu", "cpu"), ("mps", "cpu"), ("cuda:1", "cuda:1"), ("auto", "auto")])
def test_gate_runs_on_the_device_of_the_restorer(device, used):
    settings = open_gate(0.4, "face.onnx", torch.device(device) if device != "auto" else device).embedding.settings
    assert (settings.device, settings.onnx) == (used, "face.onnx")
    assert open_gate(0.4).embedding.settings.onnx is None


def test_no_gate():
    assert open_gate(None) is None
    with pytest.raises(OptionError, match=r"identity_model: got face\.onnx"):
        open_gate(None, "face.onnx")


@pytest.mark.parametrize("shape", [(40, 70), (70, 40)])
def test_crops_that_are_not_square_are_made_square(monkeypatch, shape):
    """The same face, squeezed and whole, is the same."""
    seen = []
    monkeypatch.setattr(identity_gate, "embedding", lambda face, settings: seen.append(face) or np.ones(1))
    face = texture(5, 256, sigma=20)
    squeezed = cv2.resize(face, shape, interpolation=cv2.INTER_AREA)
    IdentityGate(0)(squeezed, face, TEMPLATES["ffhq"])
    assert np.abs(seen[0].astype(int) - seen[1]).mean() < 2


def test_missing_weights_are_reported(tmp_path):
    settings = RecognitionSettings(onnx=str(tmp_path / "gone.onnx"))
    with pytest.raises(MissingFileError, match=r"gone.onnx is not there"):
        IdentityGate(0.3, settings)(flat(0, 0, 1), flat(0, 0, 1), TEMPLATES["ffhq"])


@pytest.mark.parametrize("threshold", [-1.1, 40, math.nan])
def test_a_threshold_is_a_cosine(threshold):
    with pytest.raises(OptionError, match="identity: got"):
        IdentityGate(threshold)
