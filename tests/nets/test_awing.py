"""The 98 landmarks: peaks of heatmaps against facexlib's own, and the whole network with random weights."""

import sys

import cv2
import numpy as np
import pytest
import torch

from gpen_plugin.errors import CheckpointError, MissingFileError
from gpen_plugin.nets.awing import AWing, heatmap_argmax


def bumps(count: int, side: int = 64, border: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Heatmaps with a smooth peak each, away from the border; and where: (count, 2), 0 is the left upper edge."""
    places = np.random.default_rng(0).uniform(border, side - border, (count, 2))
    y, x = np.mgrid[:side, :side] + 0.5
    square = (x - places[:, 0, None, None]) ** 2 + (y - places[:, 1, None, None]) ** 2
    return np.exp(-square / 8), places


def test_peaks_are_found_to_a_quarter_pixel():
    heatmaps, places = bumps(98)
    assert np.abs(heatmap_argmax(heatmaps) * 64 - places).max() <= 0.25 + 1e-9


def test_peaks_are_facexlibs(monkeypatch):
    arch = pytest.importorskip("facexlib.alignment.awing_arch", reason="facexlib is not installed")
    monkeypatch.setattr(np, "float", float, raising=False)  # which NumPy no longer has, and facexlib asks for
    heatmaps, _ = bumps(98)
    assert np.allclose(heatmap_argmax(heatmaps) * 64, arch.calculate_points(heatmaps[None])[0])


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 7), (5, 0), (5, 7)])
def test_peaks_in_corners(row, column):
    heatmap = np.zeros((1, 6, 8))
    heatmap[0, row, column] = 1
    expected = np.array([column + (0.25 if column == 0 else 0.75), row + (0.25 if row == 0 else 0.75)]) / (8, 6)
    assert np.abs(heatmap_argmax(heatmap)[0] - expected).max() <= 0.25 / 6 + 1e-9


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> tuple:
    """A file as facexlib publishes it, with random weights, and the network of it."""
    arch = pytest.importorskip("facexlib.alignment.awing_arch", reason="facexlib is not installed")
    torch.manual_seed(0)
    network = arch.FAN(num_modules=4, num_landmarks=98, device="cpu").eval()
    path = tmp_path_factory.mktemp("weights") / "alignment_WFLW_4HG.pth"
    torch.save({"state_dict": network.state_dict()}, path)
    return str(path), network


def test_the_whole_network_with_random_weights(weights):
    path, reference = weights
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    before = torch.random.get_rng_state()
    landmarks = AWing(path, "cpu")(image)
    assert torch.equal(before, torch.random.get_rng_state())
    assert landmarks.shape == (98, 2)
    assert landmarks.dtype == np.float64
    rgb = torch.tensor(cv2.resize(image, (256, 256))[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        heatmaps = reference(rgb)[0][-1][0, :98].double().numpy()
    assert np.allclose(landmarks, heatmap_argmax(heatmaps) * (96, 64) - 0.5)
    assert landmarks[:, 0].max() > 64  # fractions of the width are not taken for those of the height


def test_a_file_of_another_network(tmp_path):
    pytest.importorskip("facexlib", reason="facexlib is not installed")
    torch.save({"state_dict": {"layer.weight": torch.ones(2)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth: its tensors are not those of FAN"):
        AWing(str(tmp_path / "other.pth"))


def test_without_facexlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "facexlib.alignment.awing_arch", None)
    (tmp_path / "any.pth").touch()
    with pytest.raises(MissingFileError, match=r"facexlib is not installed.*detector: yunet"):
        AWing(str(tmp_path / "any.pth"))
