"""LPIPS against the lpips package's own loading, with random backbones of the true architectures."""

import inspect
import logging
import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from basicsr.metrics import calculate_metric
from torch import nn

from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError, ShapeError
from gpen_plugin.metrics import lpips as lpips_metric
from gpen_plugin.metrics.lpips import LPIPS_MIN_SIDE, calculate_lpips

lpips = pytest.importorskip("lpips")

ARCHITECTURES = {"alex": "alexnet", "vgg": "vgg16"}
raising = inspect.unwrap(calculate_lpips)


def image(seed: int, side: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def backbone(net: str) -> nn.Sequential:
    """torchvision's layers, with random weights under which nothing dies out."""
    with torch.device("meta"):
        features = getattr(torchvision.models, ARCHITECTURES[net])().features
    features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in features.parameters():
        deviation = (2 / parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 0.1
        nn.init.normal_(parameter, 0, deviation, generator=generator)
    return features


@pytest.fixture(scope="module", params=["alex", "vgg"])
def network(request, tmp_path_factory) -> SimpleNamespace:
    """A file as torchvision publishes it, and what lpips itself makes of the same layers."""
    net, features = request.param, backbone(request.param)
    path = tmp_path_factory.mktemp("weights") / lpips_metric.BACKBONES[net].name
    classifier = {"classifier.1.weight": torch.ones(2, 2)}
    torch.save({f"features.{name}": tensor for name, tensor in features.state_dict().items()} | classifier, path)
    models = SimpleNamespace(**{ARCHITECTURES[net]: lambda pretrained: SimpleNamespace(features=features)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lpips.pretrained_networks, "tv", models)
        reference = lpips.LPIPS(net=net, verbose=False)
    return SimpleNamespace(net=net, path=path, reference=reference)


def of_reference(reference, img, img2) -> float:
    rgb = [torch.tensor(each[..., ::-1] / 127.5 - 1).permute(2, 0, 1)[None].float() for each in (img, img2)]
    with torch.no_grad():
        return float(reference(*rgb))


def test_the_value_is_the_packages_own(network):
    img, img2 = image(0), image(1)
    value = calculate_lpips(img, img2, net=network.net, weights=str(network.path), device="cpu")
    assert value == pytest.approx(of_reference(network.reference, img, img2), rel=1e-5)
    assert value > 0.01
    swapped = calculate_lpips(img[..., ::-1], img2[..., ::-1], net=network.net, weights=str(network.path))
    assert swapped == pytest.approx(of_reference(network.reference, img[..., ::-1], img2[..., ::-1]), rel=1e-5)
    assert abs(swapped - value) > 1e-3 * value


def test_equal_images_and_order(network):
    img, img2 = image(0), image(1)
    options = {"net": network.net, "weights": str(network.path)}
    assert calculate_lpips(img, img, **options) == 0
    assert calculate_lpips(img, img2, **options) == pytest.approx(calculate_lpips(img2, img, **options), rel=1e-5)


def test_the_smallest_image(network):
    smallest, options = LPIPS_MIN_SIDE[network.net], {"net": network.net, "weights": str(network.path)}
    assert calculate_lpips(image(0, smallest), image(1, smallest), **options) > 0
    with pytest.raises(RuntimeError, match="too small"):
        of_reference(network.reference, image(0, smallest - 1), image(1, smallest - 1))
    with pytest.raises(ShapeError, match=f"img: got .* expected at least {smallest} px"):
        calculate_lpips(image(0, smallest - 1), image(1, smallest - 1), **options)


def test_a_training_around_it_goes_on_as_without(network, capsys, recwarn):
    lpips_metric.perceptual_network.cache_clear()
    before = torch.random.get_rng_state()
    calculate_lpips(image(0), image(1), net=network.net, weights=str(network.path))
    assert torch.equal(before, torch.random.get_rng_state())
    assert capsys.readouterr() == ("", "")
    assert not recwarn.list


def test_the_network_is_built_once(network):
    lpips_metric.perceptual_network.cache_clear()
    for seed in range(3):
        calculate_lpips(image(seed), image(9), net=network.net, weights=str(network.path))
    assert lpips_metric.perceptual_network.cache_info().misses == 1


def test_in_the_hosts_loop(network):
    options = {"type": "calculate_lpips", "net": network.net, "weights": str(network.path), "better": "lower"}
    value = calculate_metric({"img": image(0), "img2": image(1)}, options)
    assert value == calculate_lpips(image(0), image(1), net=network.net, weights=str(network.path))


def test_a_file_of_another_network(network, tmp_path):
    other = {"alex": "vgg", "vgg": "alex"}[network.net]
    with pytest.raises(CheckpointError, match=re.escape(str(network.path))):
        raising(image(0), image(1), net=other, weights=str(network.path))
    torch.save({"classifier.1.weight": torch.ones(2, 2)}, tmp_path / "head.pth")
    with pytest.raises(CheckpointError, match=r"has 0 tensors of a backbone \(1 in all\)"):
        raising(image(0), image(1), net=network.net, weights=str(tmp_path / "head.pth"))


def test_without_the_file(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    monkeypatch.setenv("GPEN_PLUGIN_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(logging.getLogger("basicsr"), "propagate", True)
    assert math.isnan(calculate_lpips(image(0), image(1), net="vgg"))
    assert "vgg16-397923af.pth" in caplog.text
    assert "https://download.pytorch.org" in caplog.text
    with pytest.raises(MissingFileError, match=r"alexnet-owt-7be5be79.pth"):
        raising(image(0), image(1), net="alex")


def test_without_the_package(network, monkeypatch):
    lpips_metric.perceptual_network.cache_clear()
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MissingFileError, match=r'pip install "gpen_plugin\[evaluate\]"'):
        raising(image(0), image(1), net=network.net, weights=str(network.path))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"net": "squeeze"}, "net: got 'squeeze'; expected alex or vgg"), ({"better": "higher"}, "better: got 'higher'")],
)
def test_options(options, words):
    with pytest.raises(OptionError, match=words):
        calculate_lpips(image(0), image(1), **options)
