"""The FID's Inception network, with random weights: its features are those of the host."""

from pathlib import Path
from unittest import mock

import basicsr.archs.inception
import numpy as np
import pytest
import torch
from basicsr.metrics.fid import extract_inception_features, load_patched_inception_v3
from torch import nn
from torchvision.models.inception import Inception3

from gpen_plugin.errors import CheckpointError, MissingFileError
from gpen_plugin.nets import inception
from gpen_plugin.nets.inception import INCEPTION, extract_features


def image(seed: int, height: int = 40, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A file under the published name, of the true architecture."""
    with mock.patch.object(basicsr.archs.inception, "load_url"), mock.patch.object(Inception3, "load_state_dict"):
        network = basicsr.archs.inception.fid_inception_v3()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # else the features would be next to nothing
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
    path = tmp_path_factory.mktemp("weights") / INCEPTION.name
    torch.save(network.state_dict(), path)
    return path


def test_features_equal_the_hosts(weights):
    with mock.patch.object(basicsr.archs.inception, "load_url", return_value=torch.load(weights, weights_only=True)):
        network = load_patched_inception_v3("cpu")
    images = [image(0, 350, 60), image(1, 299, 299)]
    tensors = [torch.from_numpy(p[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1 for p in images]
    expected = extract_inception_features(tensors, network, device="cpu").numpy()
    features = extract_features(images, "cpu", str(weights))
    assert features.shape == (2, 2048)
    assert features.dtype == np.float32
    assert expected.std() > 0.1
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * expected.std())
    assert abs(features[0] - features[1]).mean() > 0.01 * expected.std()


def test_network_is_built_once_without_download_and_random_numbers(weights):
    inception._load_network.cache_clear()
    state = torch.get_rng_state()
    with mock.patch("torch.hub.load_state_dict_from_url", side_effect=AssertionError):
        first = extract_features([image(0)], "cpu", str(weights))
    with mock.patch.object(inception, "load_tensors", side_effect=AssertionError):
        np.testing.assert_array_equal(extract_features([image(0)], "cpu", str(weights)), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_are_found_by_published_name(weights, monkeypatch):
    monkeypatch.setenv("GPEN_PLUGIN_WEIGHTS", str(weights.parent))
    found = extract_features([image(0)], "cpu")
    np.testing.assert_array_equal(found, extract_features([image(0)], "cpu", str(weights)))


def test_missing_and_wrong_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"weights: .*none\.pth is not there; expected pt_inception.*FID"):
        extract_features([image(0)], "cpu", str(tmp_path / "none.pth"))
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: is of another network.*It is published at https://"):
        extract_features([image(0)], "cpu", str(tmp_path / "other.pth"))
