"""The host's Inception network with random weights, and what is kept of what it saw."""

import pickle
from pathlib import Path
from unittest import mock

import basicsr.archs.inception
import numpy as np
import pytest
import torch
from basicsr.metrics.fid import extract_inception_features, load_patched_inception_v3
from torch import nn
from torchvision.models.inception import Inception3

from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError, ShapeError
from gpen_plugin.metrics import inception_features
from gpen_plugin.metrics.inception_features import INCEPTION, FeatureSets, extract, features_of


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


def test_features_are_those_of_the_hosts_own_way(weights):
    with mock.patch.object(basicsr.archs.inception, "load_url", return_value=torch.load(weights, weights_only=True)):
        network = load_patched_inception_v3("cpu")
    images = [image(0, 350, 60), image(1, 299, 299)]
    tensors = [torch.from_numpy(p[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1 for p in images]
    expected = extract_inception_features(tensors, network, device="cpu").numpy()
    features = extract(images, "cpu", str(weights))
    assert features.shape == (2, 2048)
    assert features.dtype == np.float32
    assert expected.std() > 0.1
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * expected.std())
    assert abs(features[0] - features[1]).mean() > 0.01 * expected.std()


def test_nothing_is_downloaded_or_drawn_and_the_network_is_built_once(weights):
    inception_features._network.cache_clear()
    state = torch.get_rng_state()
    with mock.patch("torch.hub.load_state_dict_from_url", side_effect=AssertionError):
        first = features_of(image(0), "cpu", str(weights))
    with mock.patch.object(inception_features, "load_tensors", side_effect=AssertionError):
        np.testing.assert_array_equal(features_of(image(0), "cpu", str(weights)), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_file_is_looked_for_under_its_published_name(weights, monkeypatch):
    monkeypatch.setenv("GPEN_PLUGIN_WEIGHTS", str(weights.parent))
    found = features_of(image(0), "cpu")
    np.testing.assert_array_equal(found, features_of(image(0), "cpu", str(weights)))


def test_missing_and_wrong_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"weights: .*none\.pth is not there; expected pt_inception.*FID"):
        features_of(image(0), "cpu", str(tmp_path / "none.pth"))
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: is of another network.*It is published at https://"):
        features_of(image(0), "cpu", str(tmp_path / "other.pth"))


class Sets(FeatureSets):
    """Counts its pairs, so that the arithmetic can be seen."""

    def value(self) -> float:
        return float(len(self))


@pytest.fixture
def asked(monkeypatch) -> list[np.ndarray]:
    """The images that a stand-in for the network was asked about; an image's features are its mean and size."""
    seen = []

    def extract(images, device, weights):
        seen.extend(images)
        return np.array([[p.mean(), len(p)] for p in images], np.float32)

    monkeypatch.setattr(inception_features, "extract", extract)
    for store in ("_of_restored", "_of_ground_truth"):
        monkeypatch.setattr(inception_features, store, inception_features.ContentCache(4))
    return seen


def sets_of(img, img2=None, statistics=None) -> Sets:
    return Sets.of_images(img, img2, statistics=statistics, weights=None, device="cpu")


def test_pairs_come_in_an_order_that_the_contents_decide(asked):
    pairs = [(image(i), image(10 + i, 24, 30)) for i in range(5)]
    one = sum(sets_of(*pair) for pair in pairs)
    other = sum(pickle.loads(pickle.dumps(sets_of(*pair))) for pair in reversed(pairs))
    np.testing.assert_array_equal(one.features(), other.features())
    np.testing.assert_array_equal(one.real_features(), other.real_features())
    means = {p.mean(dtype=np.float64): q.mean(dtype=np.float64) for p, q in pairs}
    for own, real in zip(one.features(), one.real_features(), strict=True):
        assert real[0] == pytest.approx(min(means.items(), key=lambda item: abs(item[0] - own[0]))[1], rel=1e-6)
    assert one / 5 == 5.0


def test_ground_truth_is_looked_at_once(asked):
    truth = image(9)
    for seed in range(6):  # more than are remembered of what is not ground truth
        sets_of(image(seed), truth)
        sets_of(image(seed), truth)  # by another metric
    assert sum(np.array_equal(p, truth) for p in asked) == 1
    assert len(asked) == 7


def test_with_statistics_ground_truth_does_not_count(asked):
    one, other = sets_of(image(0), image(1), "a.npz"), sets_of(image(0), None, "a.npz")
    assert one._records[0][0] == other._records[0][0]
    assert len(asked) == 1
    with pytest.raises(AssertionError, match=r"a\.npz and b\.npz in one sum"):
        one + sets_of(image(0), None, "b.npz")


def test_what_cannot_be_compared_is_refused(asked):
    with pytest.raises(OptionError, match="statistics: missing, and there is no ground truth; expected one of the two"):
        sets_of(image(0))
    with pytest.raises(ShapeError, match=r"img: got shape \(40, 40\) of uint8"):
        sets_of(image(0)[:, :, 0], image(1))
    with pytest.raises(ShapeError, match=r"img2: got shape \(40, 40, 3\) of float64"):
        sets_of(image(0), image(1) / 255)
