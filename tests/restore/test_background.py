import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from torch import nn
from tqdm import tqdm

from gpen_plugin.archs.layers import ShapesOnly
from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError, ShapeError
from gpen_plugin.restore import background as background_module
from gpen_plugin.restore.background import PUBLISHED, Background, open_background
from gpen_plugin.restore.network import build_network

CPU = torch.device("cpu")
SMALL = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "num_grow_ch": 4}


class Enlarging(nn.Module):
    """Enlarges by repeating pixels; what else it does is up to the test."""

    def __init__(self, scale: int = 2, answer: str = "image"):
        super().__init__()
        self.scale, self.answer, self.sizes = scale, answer, []

    def forward(self, x: torch.Tensor) -> object:
        self.sizes.append(tuple(x.shape[2:]))
        out = nn.functional.interpolate(x, scale_factor=self.scale)
        return {"image": out, "list": [out], "gray": out[:, :1], "red": out * torch.tensor([1, 0, 0])[:, None, None],
                "broken": out / 0 * 0}[self.answer]  # fmt: skip


def image(height: int = 40, width: int = 56, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (height, width, 3), dtype)


def net_of(scale: int) -> RRDBNet:
    torch.manual_seed(0)
    return RRDBNet(**SMALL, scale=scale).eval()


@pytest.fixture
def option_file(tmp_path):
    """Writes an option file of the host's for a small network, and its weights; returns the file's path."""

    def write(scale: int = 2, text: str = "", **paths: object) -> str:
        torch.save({"params": {}, "params_ema": net_of(scale).state_dict()}, tmp_path / "net_g.pth")
        given = {"pretrain_network_g": str(tmp_path / "net_g.pth"), "param_key_g": "params_ema"} | paths
        lines = ["name: test", "model_type: SRModel", f"scale: {scale}", "num_gpu: 0", "network_g:", "  type: RRDBNet"]
        lines += [f"  {key}: {value}" for key, value in (SMALL | {"scale": scale}).items()]
        lines += ["path:", "  ignore_resume_networks: ~"]
        lines += [f"  {key}: {'~' if value is None else value}" for key, value in given.items()]
        path = tmp_path / "background.yml"
        path.write_text(text or "\n".join(lines))
        return str(path)

    return write


@torch.inference_mode()
def whole(net: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """What the network gives for the image at once, by hand."""
    most = np.iinfo(pixels.dtype).max
    rgb = torch.from_numpy(pixels[..., ::-1].astype(np.float64) / most).float().permute(2, 0, 1)[None]  # (1, 3, H, W)
    output = net(rgb)[0].clamp(0, 1).permute(1, 2, 0).numpy()[..., ::-1]
    return np.rint(output.astype(np.float64) * most).astype(pixels.dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_it_is_the_network_of_the_option_file(option_file, scale, dtype):
    background, pixels = open_background(option_file(scale), device=CPU), image(48, 80, dtype)
    assert background.scale == scale
    result = background(pixels)
    assert result.dtype == pixels.dtype
    assert result.shape == (48 * scale, 80 * scale, 3)
    expected = whole(net_of(scale), pixels)
    assert np.ptp(expected) > 0.05 * np.iinfo(dtype).max
    assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("scale", [2, 4])
def test_tiles_change_nothing_that_can_be_seen(option_file, scale):
    name, pixels = option_file(scale), image(104, 136, "uint16")
    tiled, at_once = (open_background(name, device=CPU, tile=tile)(pixels) for tile in (96, 512))
    difference = np.abs(tiled.astype(int) - at_once)
    assert difference.max() <= 1e-4 * 65535


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 90), (17, 3), (33, 47), (130, 131)])
def test_any_size(height, width):
    """A network that halves its input gets sides that it can halve, and the result has the right ones."""
    net = Enlarging(3)
    pixels = image(height, width)
    result = Background(net, 3, CPU, 64, "enlarging")(pixels)
    assert np.array_equal(result, pixels.repeat(3, axis=0).repeat(3, axis=1))
    assert all(side % 16 == 0 for size in net.sizes for side in size)
    assert max(max(size) for size in net.sizes) <= 64


def test_padding_mirrors_the_edge(option_file):
    flat = np.full((21, 37, 3), 200, np.uint8)
    seen = []
    net = Enlarging(2)
    net.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    Background(net, 2, CPU, 512, "enlarging")(flat)
    assert seen[0].min() == seen[0].max() == pytest.approx(200 / 255)


def test_the_order_of_channels():
    """The network takes and gives RGB: what it leaves of red is in the last channel of BGR."""
    result = Background(Enlarging(answer="red"), 2, CPU, 512, "enlarging")(image())
    assert result[..., 2].any()
    assert not result[..., :2].any()


@pytest.mark.parametrize(
    ("net", "problem"),
    [
        (Enlarging(4), r"background:scale: Enlarging gives \(192, 256\) for an image of \(48, 64\); expected 2 times"),
        (Enlarging(answer="list"), "background: Enlarging gives a list; expected a network that gives an image"),
        (Enlarging(answer="gray"), r"background: Enlarging gives a tensor \(1, 1, 96, 128\)"),
        (Enlarging(answer="broken"), "background: Enlarging gives values that are not finite"),
    ],
)
def test_networks_that_give_something_else(net, problem):
    with pytest.raises((OptionError, ShapeError), match=problem):
        Background(net, 2, CPU, 512, "enlarging")(image())


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        (np.zeros((8, 8), np.uint8), r"got \(8, 8\)"),
        (np.zeros((8, 0, 3), np.uint8), r"got \(8, 0, 3\)"),
        (np.zeros((8, 8, 4), np.uint8), r"got \(8, 8, 4\)"),
        (np.zeros((8, 8, 3), np.float32), "got float32; expected uint8 or uint16"),
    ],
)
def test_other_arrays_are_not_enlarged(pixels, problem):
    with pytest.raises(ShapeError, match=problem):
        Background(Enlarging(), 2, CPU, 512, "enlarging")(pixels)


@pytest.mark.parametrize("patience", [0, 60])
def test_slow_images_have_a_progress_bar(option_file, monkeypatch, capsys, patience):
    monkeypatch.setattr(background_module, "PROGRESS_DELAY", patience)
    monkeypatch.setattr(background_module, "tqdm", partial(tqdm, mininterval=0))
    open_background(option_file(), device=CPU, tile=100)(image(96, 200))
    steps = re.findall(r"(\d)/(\d) \[", capsys.readouterr().err)
    assert steps == ([(str(done), "4") for done in range(1, 5)] if patience == 0 else [])


def test_description(option_file):
    background = open_background(option_file(), device=CPU, tile=100)
    assert background.description == (
        "RRDBNet (num_in_ch 3, num_out_ch 3, num_feat 4, num_block 1, num_grow_ch 4, scale 2), 0.0 M parameters; "
        "net_g.pth; 2 times, in tiles of 96 px"
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_the_published_sizes(name):
    """The host's defaults are Real-ESRGAN's sizes."""
    published = PUBLISHED[name]
    with ShapesOnly():
        built, expected = build_network(published.network, "background"), RRDBNet(3, 3, scale=published.scale)
    shapes = [{key: tensor.shape for key, tensor in net.state_dict().items()} for net in (built, expected)]
    assert shapes[0] == shapes[1]
    assert sum(parameter.numel() for parameter in built.parameters()) == {2: 16_703_171, 4: 16_697_987}[published.scale]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_opened_by_name(name, tmp_path, monkeypatch):
    published = PUBLISHED[name]
    small = {"type": "RRDBNet", **SMALL, "scale": published.scale}
    monkeypatch.setitem(PUBLISHED, name, replace(published, network=small))
    torch.save({"params_ema": net_of(published.scale).state_dict()}, tmp_path / published.file.name)
    monkeypatch.setenv("GPEN_PLUGIN_WEIGHTS", str(tmp_path))
    background = open_background(name, device=CPU)
    assert background.scale == published.scale
    assert f"x{published.scale}plus.pth" in background.description
    assert background(image(5, 4)).shape == (5 * published.scale, 4 * published.scale, 3)


def test_published_files_have_whole_digests():
    for published in PUBLISHED.values():
        assert len(published.file.sha256) == 64
        assert published.file.url.endswith(published.file.name)


def test_published_weights_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    monkeypatch.setenv("GPEN_PLUGIN_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingFileError, match=r"background RealESRGAN_x2plus: .*v0\.2\.1/RealESRGAN_x2plus\.pth"):
        open_background("RealESRGAN_x2plus", device=CPU)


def test_given_weights_count(option_file, tmp_path):
    name = option_file(pretrain_network_g="nowhere.pth")
    background = open_background(name, device=CPU, weights=str(tmp_path / "net_g.pth"))
    assert np.array_equal(background(image(16, 16)), whole(net_of(2), image(16, 16)))


def test_strict_load_g_false_ignores_missing_tensors(option_file, tmp_path):
    name = option_file(strict_load_g="false")
    state = net_of(2).state_dict()
    del state["conv_last.bias"]
    torch.save({"params_ema": state}, tmp_path / "net_g.pth")
    assert "net_g.pth, without 1 of the network's tensors" in open_background(name, device=CPU).description


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        ({"pretrain_network_g": None}, r"background\.yml: path:pretrain_network_g: got None .*; expected a text"),
        ({"param_keg_g": "params"}, r"path:param_keg_g: unknown key.* Did you mean 'param_key_g'\?"),
        ({"strict_load_g": 3}, r"path:strict_load_g: got 3 \(int\); expected true or false"),
        ({"param_key_g": "nothing"}, r"path: .*net_g\.pth: no entry 'nothing'"),
        ({"param_key_g": "params"}, r"path: .*net_g\.pth"),
        ({"pretrain_network_g": "nowhere.pth"}, r"path: nowhere\.pth: there is no such file"),
    ],
)
def test_wrong_paths(option_file, paths, problem):
    with pytest.raises((OptionError, CheckpointError), match=problem):
        open_background(option_file(**paths), device=CPU)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("scale: 2\n", "", r"background\.yml: scale: missing; expected a whole number from 1 to 16"),
        ("scale: 2\n", "scale: two\n", "scale: got 'two'"),
        ("scale: 2\n", "scale: 0\n", "scale: got 0"),
        ("type: RRDBNet", "type: RRDBnet", r"network_g:type: got 'RRDBnet'.*Did you mean 'RRDBNet'\?"),
        ("num_feat:", "num_feats:", r"network_g:num_feats: unknown key.*Did you mean 'num_feat'\?"),
        ("network_g:", "network_x:", "network_g: missing"),
        ("path:", "paths:", "path:pretrain_network_g: missing"),
        ("num_feat: 4", "num_feat: 8", "holds other tensors than RRDBNet"),
        ("network_g:", "network_g: [", r"background\.yml, line 7"),
    ],
)
def test_wrong_option_files(option_file, tmp_path, old, new, problem):
    text = (tmp_path / option_file()).read_text()
    assert old in text
    name = option_file(text=text.replace(old, new, 1))
    with pytest.raises((OptionError, CheckpointError), match=problem):
        open_background(name, device=CPU)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "RealESRGAN",
            r"background: got 'RealESRGAN'; expected one of RealESRGAN_x2plus, .*or an option file \(\.yml\)",
        ),
        ("nowhere.yml", r"background: nowhere\.yml cannot be read"),
    ],
)
def test_no_such_background(name, problem):
    with pytest.raises(OptionError, match=problem):
        open_background(name, device=CPU)


def test_tiles_too_small(option_file):
    with pytest.raises(OptionError, match="tile: got 8; expected 64 pixels or more"):
        open_background(option_file(), device=CPU, tile=8)
