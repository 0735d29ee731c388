"""calculate_iqa with a stand-in for pyiqa, which is not installed for the tests: what it passes on, and its errors."""

import inspect
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gpen_plugin.errors import MissingFileError, OptionError, ShapeError
from gpen_plugin.metrics import iqa
from gpen_plugin.metrics.iqa import calculate_iqa

raising = inspect.unwrap(calculate_iqa)


class MeanRed(torch.nn.Module):
    """As pyiqa's InferenceModel: the mean of the first channel, or its difference from that of the reference."""

    def __init__(self, mode: str, lower: bool, device):
        super().__init__()
        self.metric_mode, self.lower_better, self.device = mode, lower, device

    def forward(self, target, ref=None):
        assert target.min() >= 0
        assert target.max() <= 1
        return target[:, 0].mean() - (0 if ref is None else ref[:, 0].mean())


@pytest.fixture
def pyiqa(monkeypatch):
    made = []

    def create_metric(name, device, **arguments):
        made.append((name, arguments))
        if name == "broken":
            raise OSError("no network")
        if arguments.get("unknown"):
            raise TypeError("unexpected keyword argument 'unknown'")
        return MeanRed("FR" if name == "dists" else "NR", name == "niqe", device)

    models = SimpleNamespace(create_metric=create_metric, list_models=lambda: ["broken", "dists", "musiq", "niqe"])
    monkeypatch.setitem(sys.modules, "pyiqa", models)
    iqa._create.cache_clear()
    yield made
    iqa._create.cache_clear()


def red(value: int) -> np.ndarray:
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 2] = value
    return image


def test_image_is_rgb_from_0_to_1(pyiqa):
    assert raising(red(51), name="musiq") == pytest.approx(0.2, abs=1e-6)
    assert raising(red(255), img2=red(1), name="musiq", arguments={"a": 1}) == pytest.approx(1)  # without reference
    assert pyiqa == [("musiq", {}), ("musiq", {"a": 1})]


def test_metric_is_created_once(pyiqa):
    for value in (0, 51, 102):
        raising(red(value), name="musiq")
    assert len(pyiqa) == 1


def test_reference_is_passed_where_the_metric_takes_it(pyiqa):
    assert raising(red(255), img2=red(51), name="dists") == pytest.approx(0.8, abs=1e-6)
    with pytest.raises(OptionError, match="got 'dists', and there is no ground truth"):
        raising(red(255), name="dists")
    with pytest.raises(ShapeError, match="two images of one size"):
        raising(red(255), img2=red(51)[:4], name="dists")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "musik"}, "name: got 'musik'; expected a metric of pyiqa. Perhaps musiq"),
        ({"name": "niqe"}, "better: got 'higher'; expected lower"),
        ({"name": "musiq", "better": "lower"}, "better: got 'lower'; expected higher"),
        ({"name": "musiq", "arguments": {"unknown": True}}, "arguments: pyiqa's musiq does not take them"),
    ],
)
def test_wrong_options_are_refused(pyiqa, options, message):
    with pytest.raises(OptionError, match=message):
        raising(red(1), **options)


def test_missing_weights_are_named(pyiqa):
    with pytest.raises(MissingFileError, match=r"pyiqa's broken cannot be built \(OSError: no network\)"):
        raising(red(1), name="broken")


def test_missing_package_is_named_with_its_license(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    iqa._create.cache_clear()
    with pytest.raises(MissingFileError, match=r"gpen_plugin\[iqa\].*PolyForm Noncommercial 1.0.0, forbids commercial"):
        raising(red(1), name="musiq")
    assert math.isnan(calculate_iqa(red(1), name="musiq"))
