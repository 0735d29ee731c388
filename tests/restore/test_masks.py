"""Soft masks in closed form, masks of a synthetic parsing network, and overlapping faces."""

import sys

import numpy as np
import pytest
import torch

from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError
from gpen_plugin.restore import paste
from gpen_plugin.restore.alignment import TEMPLATES, scale_template, template_to_template, warp
from gpen_plugin.restore.paste import normalize_overlaps, open_mask, replace_border, soft_mask

FFHQ = TEMPLATES["ffhq"]
FACE = np.full((64, 64, 3), 0.5, np.float32)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A folder for weights, and none of this machine's."""
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    monkeypatch.setenv("GPEN_PLUGIN_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(paste, "_facexlib_copy", lambda: None)
    return tmp_path


# --- soft masks


@pytest.mark.parametrize("size", [16, 64, 257])
@pytest.mark.parametrize("name", TEMPLATES)
def test_soft_mask_is_one_over_the_face_and_zero_at_the_border(name, size):
    mask = soft_mask(TEMPLATES[name], size)
    assert mask.dtype == np.float32
    assert mask.shape == (size, size)
    x, y = np.rint(scale_template(TEMPLATES[name], size)).astype(int).T
    assert np.array_equal(mask[y, x], np.ones(5))
    border = np.abs((np.arange(size) + 0.5) * (2 / size) - 1) > 1 - paste.UNUSED_BORDER
    assert not mask[border].any()
    assert not mask[:, border].any()
    assert not mask[0, 0]
    assert np.array_equal(mask, mask.T)
    assert np.array_equal(mask, mask[::-1, ::-1])


@pytest.mark.parametrize("size", [64, 256, 512])
def test_border_is_replaced_where_soft_masks_are_zero(size):
    restored, crop = np.ones((size, size, 3), np.float32), np.zeros((64, 64, 3), np.float32)
    found = replace_border(restored, crop)
    assert found.dtype == np.float32
    unused = soft_mask(TEMPLATES["dlib"], size)[size // 2] == 0
    assert np.array_equal(found[size // 2, :, 0] == 0, unused)
    assert np.array_equal(found, found.transpose(1, 0, 2))
    inner = round(0.04 * size)
    assert found[inner:-inner, inner:-inner].min() == 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_soft_mask_has_no_step(name):
    row = soft_mask(TEMPLATES[name], 512)[256, :256]
    steps = np.diff(row)
    assert (steps >= 0).all()
    assert steps.max() < 1.5 * 2 / (512 * paste.MIN_FADE) + 1e-4
    assert np.abs(np.diff(steps)).max() < 0.1 * steps.max()


def test_wide_templates_cover_the_chin():
    soft = {name: soft_mask(points, 100) for name, points in TEMPLATES.items()}
    at_chin = {name: soft[name][chin(points, 100), 50] for name, points in TEMPLATES.items()}
    assert at_chin["gpen"] > 0.95
    assert at_chin["ffhq"] > 0.95
    assert min(at_chin.values()) > 0  # the tight ones end there
    fading = {name: np.count_nonzero((mask > 0) & (mask < 1)) for name, mask in soft.items()}
    assert fading["gpen"] > fading["ffhq"] >= fading["dlib"]


def chin(points: np.ndarray, size: int) -> int:
    eyes, mouth = points[:2, 1].mean(), points[3:, 1].mean()
    return int((mouth + 0.75 * (mouth - eyes)) * size)


# --- parsing masks


class LeftHalf(torch.nn.Module):
    """Sees skin in the left half and clothes in the right one, hair where the red is above 0.5; has two weights."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x):
        scores = torch.zeros(len(x), paste.CLASSES, *x.shape[2:])
        middle = x.shape[3] // 2
        scores[:, 1, :, :middle] = self.scale[0]
        scores[:, 18, :, middle:] = self.scale[1]
        scores[:, 13] = (x[:, 0] > 0.5) * 10
        return scores, x


@pytest.fixture
def left_half(offline, monkeypatch):
    torch.save({"scale": torch.ones(2)}, offline / paste.PARSENET.name)
    monkeypatch.setattr(paste, "_build_parsenet", LeftHalf)


@pytest.mark.usefixtures("left_half")
def test_parsing_masks_are_faces_without_clothes_feathered():
    maker = open_mask("parsing")
    (mask,) = maker([FACE])
    assert (mask.shape, mask.dtype) == ((64, 64), np.float32)
    assert mask[32, 16] > 0.99
    assert mask[32, 48] < 0.01
    assert 0.3 < mask[32, 31:33].mean() < 0.7
    assert np.abs(np.diff(mask[32, 10:54])).max() < 0.25
    assert mask[:, 0].max() < 0.03  # it fades where the crop ends, too
    assert (maker.name, open_mask().name) == ("parsing", "parsing")
    assert "ParseNet" in maker.notice


@pytest.mark.usefixtures("left_half")
def test_the_network_sees_rgb_from_minus_1_to_1():
    red, blue = FACE * np.float32([0, 0, 2]), FACE * np.float32([2, 0, 0])
    dark_red = FACE * np.float32([0, 0, 1.4])  # 0.7 is 0.4 there
    on_red, on_blue, on_dark = (mask[32, 48] for mask in open_mask("parsing")([red, blue, dark_red]))
    assert on_red > 0.99
    assert max(on_blue, on_dark) < 0.01


@pytest.mark.usefixtures("left_half")
def test_the_network_sees_ffhqs_framing():
    """The middle of FFHQ's framing, which LeftHalf parts, lies elsewhere in a face that is framed otherwise."""
    template = FFHQ * 0.6 + (0.1, 0.2)
    (mask,) = open_mask("parsing", template=template)([FACE])
    row = mask[32] / np.maximum(soft_mask(template, 64)[32], 1e-3)
    assert row[20] > 0.95
    assert row[32] < 0.05
    assert 0.3 < row[25] < 0.7  # 0.4 of 64
    assert np.allclose(warp(FACE, template_to_template(FFHQ, 64, template, 64), (64, 64)), 0.5, atol=1e-3)


def test_facexlibs_network_takes_the_weights(offline):
    pytest.importorskip("facexlib", reason="facexlib is not installed")
    torch.manual_seed(0)
    state = {name: torch.rand(tensor.shape) for name, tensor in paste._build_parsenet().state_dict().items()}
    assert sum(tensor.numel() for tensor in state.values()) > 2e7
    torch.save(state, offline / paste.PARSENET.name)
    before = torch.random.get_rng_state()
    maker = open_mask("auto", torch.device("cpu"))
    assert torch.equal(torch.random.get_rng_state(), before)
    network = maker._network
    assert not network.training
    assert torch.equal(network.out_mask_conv.conv2d.bias, state["out_mask_conv.conv2d.bias"])
    assert network.out_mask_conv.conv2d.out_channels == paste.CLASSES
    torch.save({"other": torch.zeros(1)}, offline / paste.PARSENET.name)
    with pytest.raises(CheckpointError, match="its tensors are not those of ParseNet"):
        open_mask("auto")


def test_without_weights(offline):
    pytest.importorskip("facexlib", reason="facexlib is not installed")
    maker = open_mask("auto")
    assert maker.name == "soft"
    with pytest.raises(MissingFileError, match=r"mask: parsing_parsenet.pth .* is not on this machine"):
        open_mask("parsing")


@pytest.mark.parametrize("weights", [False, True])
def test_without_facexlib(offline, monkeypatch, weights):
    """Nothing is downloaded that could not be used."""
    monkeypatch.setattr(paste.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "facexlib.parsing.parsenet", None)
    if weights:
        torch.save({}, offline / paste.PARSENET.name)
    with pytest.raises(MissingFileError, match=r"mask: the package facexlib .*\. Run: pip install facexlib"):
        open_mask("parsing")
    assert open_mask("auto").name == "soft"


@pytest.mark.usefixtures("offline")
def test_facexlib_is_not_imported_for_weights_that_are_missing(monkeypatch):
    """It takes longer than restoring a photograph."""
    monkeypatch.setattr(paste, "_build_parsenet", lambda: pytest.fail("facexlib was imported"))
    assert open_mask("auto").name == "soft"


def test_facexlibs_own_folder(tmp_path, monkeypatch):
    package = tmp_path / "facexlib"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "facexlib"]:
        monkeypatch.delitem(sys.modules, name)
    assert paste._facexlib_copy() is None
    (package / "weights" / paste.PARSENET.name).write_bytes(b"")
    assert paste._facexlib_copy() == package / "weights" / paste.PARSENET.name


def test_soft_masks_need_nothing():
    maker = open_mask("soft", template=TEMPLATES["dlib"])
    assert maker.name == "soft"
    one, other = maker([FACE, FACE[:32, :32]])
    assert np.array_equal(one, soft_mask(TEMPLATES["dlib"], 64))
    assert other.shape == (32, 32)
    assert maker([]) == []


def test_an_unknown_name():
    with pytest.raises(OptionError, match="mask: got 'hard'; expected auto, soft or parsing"):
        open_mask("hard")


# --- sharing


def test_distant_faces_have_unchanged_masks():
    mask = soft_mask(FFHQ, 32)
    far = np.array([[1.0, 0, -100], [0, 1, 0]])
    for found in normalize_overlaps([mask, mask], [np.eye(2, 3), far]):
        assert np.array_equal(found, mask)


def test_skipping_distant_pairs_does_not_change_masks(monkeypatch):
    rng = np.random.default_rng(0)
    mask, turns = soft_mask(FFHQ, 32), rng.uniform(-2, 2, (12, 2))
    matrices = [
        np.array([[a, -b, x], [b, a, y]]) for (a, b), (x, y) in zip(turns, rng.uniform(0, 90, (12, 2)), strict=True)
    ]
    quick, met = normalize_overlaps([mask] * 12, matrices), paste._overlapping([32] * 12, matrices)
    assert 10 < (~met).sum() / 2 < 66
    monkeypatch.setattr(paste, "_overlapping", lambda sides, matrices: np.ones((12, 12), bool))
    for one, other in zip(quick, normalize_overlaps([mask] * 12, matrices), strict=True):
        assert np.array_equal(one, other)


def test_no_masks_give_no_masks():
    assert normalize_overlaps([], []) == []


def test_three_overlapping_faces_have_equal_weights():
    """What is pasted over the others in turn: a half over the first, a third over both."""
    mask = soft_mask(FFHQ, 32)
    shared = normalize_overlaps([mask] * 3, [np.eye(2, 3)] * 3)
    assert [found[16, 16] for found in shared] == pytest.approx([1, 1 / 2, 1 / 3], abs=1e-6)
    assert np.isfinite(shared).all()


def test_larger_mask_gets_more_weight():
    mask = soft_mask(FFHQ, 64)
    shifted = np.array([[1.0, 0, -40], [0, 1, 0]])  # its frame begins 40 px right of the first one's
    first, second = normalize_overlaps([mask, mask], [np.eye(2, 3), shifted])
    assert np.array_equal(first, mask)
    edge = np.flatnonzero((mask[32] > 0.2) & (mask[32] < 0.5))[0]
    assert second[32, edge] < 0.3 * mask[32, edge]  # over the first face's own
    assert second[32, 32] == pytest.approx(1, abs=1e-6)
