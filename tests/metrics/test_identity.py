"""The angle between two faces: closed forms with a network that sees the mean color; gfpgan's with random weights."""

import inspect
import math
import re
import sys

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from torch import nn

from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError, ShapeError
from gpen_plugin.host import register, registered
from gpen_plugin.losses import IdentityLoss
from gpen_plugin.metrics import identity
from gpen_plugin.metrics.identity import angle_degrees, calculate_identity, cosine_similarity
from gpen_plugin.nets import arcface
from gpen_plugin.nets.arcface import FaceInput, RecognitionSettings, embedding, network_input

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from helpers.onnx_models import first_pixel, mean_color

raising = inspect.unwrap(calculate_identity)
BLACK_AS_0 = {"mean": 0.0, "std": 255.0}


def flat(blue: int, green: int, red: int, side: int = 8) -> np.ndarray:
    return np.full((side, side, 3), (blue, green, red), np.uint8)


def noise(seed: int, side: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture
def onnx_file(tmp_path) -> str:
    return str(mean_color(tmp_path / "mean_color.onnx"))


# --- the formulas


def test_angles_between_known_vectors():
    one, other = np.array([1.0, 0.0]), np.array([math.cos(0.3), math.sin(0.3)])
    assert cosine_similarity(one, other) == pytest.approx(math.cos(0.3), abs=1e-12)
    assert angle_degrees(one, other) == pytest.approx(math.degrees(0.3), abs=1e-12)
    assert angle_degrees(one, -one) == 180
    assert cosine_similarity(one, -one) == -1
    near = np.array([math.cos(1e-9), math.sin(1e-9)])  # whose cosine is 1 in float64
    assert angle_degrees(one, near) == pytest.approx(math.degrees(1e-9), rel=1e-6)


def test_name_without_folder_is_searched_among_weights(onnx_file, tmp_path, monkeypatch):
    monkeypatch.setenv("GPEN_PLUGIN_WEIGHTS", str(tmp_path))
    assert raising(noise(0), noise(0), onnx="mean_color.onnx") == pytest.approx(1)
    with pytest.raises(MissingFileError, match=r"elsewhere.onnx \(for identity\) is not on this machine"):
        raising(noise(0), noise(0), onnx="elsewhere.onnx")
    with pytest.raises(MissingFileError, match=r"a/mean_color\.onnx is not there"):
        raising(noise(0), noise(0), onnx="a/mean_color.onnx")


@pytest.mark.parametrize("unit", ["cosine", "degrees"])
def test_equal_images(onnx_file, unit):
    expected = {"cosine": 1.0, "degrees": 0.0}[unit]
    assert calculate_identity(noise(0), noise(0), onnx=onnx_file, unit=unit) == pytest.approx(expected, abs=1e-12)


def test_a_value_in_closed_form(onnx_file):
    one, other = flat(0, 0, 200), flat(0, 100, 100, side=20)  # 45 degrees apart from black, and of two sizes
    options = {"onnx": onnx_file, **BLACK_AS_0}
    assert calculate_identity(one, other, **options) == pytest.approx(math.sqrt(0.5), abs=1e-6)
    assert calculate_identity(one, other, unit="degrees", better="lower", **options) == pytest.approx(45, abs=1e-4)
    from_gray = [np.array(color) / 127.5 - 1 for color in ((0, 0, 200), (0, 100, 100))]
    expected = from_gray[0] @ from_gray[1] / np.linalg.norm(from_gray[0]) / np.linalg.norm(from_gray[1])
    assert calculate_identity(one, other, onnx=onnx_file) == pytest.approx(expected, abs=2e-5)  # means in float32


def test_in_the_hosts_loop(onnx_file):
    options = {"type": "calculate_identity", "onnx": onnx_file, "unit": "degrees", "better": "lower", **BLACK_AS_0}
    assert calculate_metric({"img": flat(0, 0, 9), "img2": flat(0, 9, 9)}, options) == pytest.approx(45, abs=1e-4)


# --- embeddings


def test_an_embedding_has_length_one(onnx_file):
    found = embedding(flat(30, 60, 60), RecognitionSettings(onnx=onnx_file, **BLACK_AS_0))
    assert found.dtype == np.float64
    assert np.allclose(found, np.array([2, 2, 1]) / 3, atol=1e-6)  # red first
    black = embedding(flat(0, 0, 0), RecognitionSettings(onnx=onnx_file, **BLACK_AS_0))
    assert np.isnan(black).all()


@pytest.mark.parametrize(
    ("channels", "expected"),
    [("rgb", [[60, 50, 40]]), ("bgr", [[40, 50, 60]]), ("gray", [[0.114 * 40 + 29.35 + 17.934]])],
)
def test_channels(channels, expected):
    settings = RecognitionSettings(mean=0.0, std=1.0)
    found = network_input(flat(40, 50, 60), settings, FaceInput(4, channels))
    assert found.dtype == np.float32
    assert found.shape == (1, len(expected[0]), 4, 4)
    assert np.allclose(found[..., 2, 1], expected, atol=1e-3)


def test_image_shrinks_as_in_torch():
    settings = RecognitionSettings()
    found = network_input(noise(0), settings, FaceInput(16, "rgb"))
    rgb = torch.tensor(noise(0)[..., ::-1] / 127.5 - 1).permute(2, 0, 1)[None].float()
    expected = nn.functional.interpolate(rgb, (16, 16), mode="bilinear", align_corners=False)
    assert np.allclose(found, expected, atol=1e-5)


def test_alignment_is_of_the_image_that_the_network_sees(tmp_path):
    """FFHQ's framing has more around the face: ArcFace's corner lies within it, at x = 32.15 and y = 30.33 of 256."""
    y, x = np.mgrid[:256, :256]
    image = np.stack([np.full_like(x, 200), y, x], axis=2).astype(np.uint8)
    options = {"onnx": str(first_pixel(tmp_path / "corner.onnx")), **BLACK_AS_0}
    for align, expected in (("none", [0.64, 0.64, 200]), ("ffhq", [32.15, 30.33, 200])):
        found = embedding(image, RecognitionSettings(align=align, **options))
        # OpenCV rounds positions to 1/32 px: 1/64 of about 205, the length
        assert np.allclose(found, np.array(expected) / np.linalg.norm(expected), atol=3 / 64 / 205), align


def test_ground_truth_is_measured_once(onnx_file, monkeypatch):
    seen = []
    monkeypatch.setattr(identity, "embedding", lambda image, *_: seen.append(image) or np.array([1.0]))
    for seed in range(3):
        calculate_identity(noise(seed), flat(1, 2, 3), onnx=onnx_file, device="cpu", input_size=5)
    assert len(seen) == 4
    calculate_identity(noise(0), flat(1, 2, 3), onnx=onnx_file, device="cpu", input_size=6)
    assert len(seen) == 6


# --- what a file or an option says


def test_an_onnx_file_that_fixes_its_input(tmp_path):
    gray = str(mean_color(tmp_path / "gray.onnx", channels=1, side=16))
    assert embedding(noise(0), RecognitionSettings(onnx=gray, mean=0.0)).shape == (1,)
    with pytest.raises(OptionError, match="input_size: got 112; expected 16, which"):
        embedding(noise(0), RecognitionSettings(onnx=gray, input_size=112))
    with pytest.raises(OptionError, match="channels: got 'rgb'; expected an image of 1 channels"):
        embedding(noise(0), RecognitionSettings(onnx=gray, channels="rgb"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"onnx": "a.onnx", "weights": "b.pth"}, "onnx: got a.onnx beside weights"),
        ({"onnx": "a.onnx", "network": {"type": "A"}}, "onnx: got a.onnx beside network"),
        ({"network": {"type": "A"}}, "weights: missing"),
        ({"channels": "yuv"}, "channels: got 'yuv'"),
        ({"align": "eyes"}, "align: got 'eyes'"),
        ({"input_size": 0}, "input_size: got 0"),
        ({"std": 0.0}, "std: got 0.0"),
        ({"unit": "radians"}, "unit: got 'radians'"),
        ({"unit": "degrees", "better": "higher"}, "better: got 'higher'; expected lower"),
        ({"better": "lower"}, "better: got 'lower'; expected higher"),
    ],
)
def test_options(options, words):
    with pytest.raises(OptionError, match=words):
        calculate_identity(noise(0), noise(1), **options)


def test_only_square_images_are_aligned(onnx_file):
    with pytest.raises(ShapeError, match="got 40 x 20 px for align: ffhq"):
        calculate_identity(noise(0)[:, :20], noise(1), onnx=onnx_file, align="ffhq")


def test_missing_files(tmp_path):
    gone = str(tmp_path / "gone.onnx")
    assert math.isnan(calculate_identity(noise(0), noise(1), onnx=gone))
    with pytest.raises(MissingFileError, match=re.escape(f"onnx: {gone} is not there")):
        raising(noise(0), noise(1), onnx=gone)


# --- registered networks


class SmallFaceNetwork(nn.Module):
    """Draws random numbers, and a list of numbers that is no tensor of its state, as other people's networks do."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.layer = nn.Linear(3, width)
        self.register_buffer("twice", torch.full((1,), 2.0), persistent=False)

    def forward(self, x):
        return self.layer(x.mean(dim=(2, 3))) * self.twice


@pytest.fixture
def small_network(tmp_path) -> dict:
    if "SmallFaceNetwork" not in registered("arch"):
        register("arch")(SmallFaceNetwork)
    network = SmallFaceNetwork(5)
    torch.save({"params": network.state_dict()}, tmp_path / "small.pth")
    return {"network": {"type": "SmallFaceNetwork", "width": 5}, "weights": str(tmp_path / "small.pth")}


def test_a_registered_network(small_network):
    before = torch.random.get_rng_state()
    found = embedding(flat(0, 0, 255), RecognitionSettings(**small_network, mean=0.0, std=255.0))
    assert torch.equal(before, torch.random.get_rng_state())
    layer = torch.load(small_network["weights"])["params"]
    expected = (layer["layer.weight"] @ torch.tensor([1.0, 0, 0]) + layer["layer.bias"]).numpy()
    assert np.allclose(found, expected / np.linalg.norm(expected), atol=1e-6)


def test_a_network_and_a_file_that_do_not_fit(small_network):
    other = {**small_network, "network": {"type": "SmallFaceNetwork", "width": 6}}
    with pytest.raises(CheckpointError, match=r"small.pth: its tensors .*layer.bias is \(5,\), not \(6,\)"):
        embedding(noise(0), RecognitionSettings(**other))
    with pytest.raises(OptionError, match=r"SmallFaceNetwork makes no embedding of images of shape \(1, 1, 9"):
        embedding(noise(0), RecognitionSettings(**small_network, channels="gray", input_size=9))
    misspelt = {**small_network, "network": {"type": "SmallFaceNetwork", "widht": 5}}
    with pytest.raises(OptionError, match=r"network:widht: unknown key.*Did you mean 'width'"):
        embedding(noise(0), RecognitionSettings(**misspelt))
    unknown = {**small_network, "network": {"type": "SmallFaceNetwrk"}}
    with pytest.raises(OptionError, match=r"network:type: got 'SmallFaceNetwrk'.*Did you mean 'SmallFaceNetwork'"):
        embedding(noise(0), RecognitionSettings(**unknown))


def test_without_gfpgan(tmp_path, monkeypatch):
    from gpen_plugin.nets import arcface

    monkeypatch.setattr(arcface, "resolve", lambda kind, name: None)
    monkeypatch.setitem(sys.modules, "gfpgan.archs.arcface_arch", None)
    with pytest.raises(MissingFileError, match=r"gfpgan, which cannot be imported \(.*arcface.*pip install gfpgan"):
        raising(noise(0), noise(1), weights=str(tmp_path / "any.pth"))


def test_gfpgans_network_with_random_weights(tmp_path):
    archs = pytest.importorskip("gfpgan.archs.arcface_arch", reason="gfpgan is not installed")
    torch.manual_seed(0)
    reference = archs.ResNetArcFace("IRBlock", [2, 2, 2, 2], use_se=False).half().float().eval()
    path = tmp_path / "arcface_resnet18.pth"
    torch.save({f"module.{name}": tensor.half() for name, tensor in reference.state_dict().items()}, path)
    found = embedding(noise(0), RecognitionSettings(weights=str(path), device="cpu"))
    rgb = torch.tensor(noise(0)[..., ::-1] / 127.5 - 1).permute(2, 0, 1)[None].float()
    gray = (rgb * torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    with torch.no_grad():
        expected = reference(nn.functional.interpolate(gray, (128, 128), mode="bilinear", align_corners=False))[0]
    assert np.allclose(found, expected / expected.norm(), atol=1e-4)
    assert calculate_identity(noise(0), noise(0), weights=str(path), device="cpu") == pytest.approx(1, abs=1e-12)
    assert arcface._recognizer.cache_info().currsize
    assert "gfpgan" in sys.modules


def test_identity_loss_is_one_minus_the_metric(tmp_path):
    pytest.importorskip("gfpgan")
    from gfpgan.archs.arcface_arch import ResNetArcFace

    torch.manual_seed(0)
    weights = str(tmp_path / "arcface_resnet18.pth")
    torch.save(ResNetArcFace("IRBlock", [2, 2, 2, 2], use_se=False).state_dict(), weights)
    faces = [noise(seed, side=128) for seed in (0, 1)]
    fake, real = (torch.from_numpy(face[..., ::-1].copy()).permute(2, 0, 1)[None] / 255 for face in faces)
    loss = IdentityLoss(2.0, weights)
    assert loss(fake, real).item() == pytest.approx(2 * (1 - raising(*faces, weights=weights)), abs=1e-5)
    fake.requires_grad_()
    loss(fake, real).backward()
    assert fake.grad.abs().sum() > 0
