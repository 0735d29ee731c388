"""GPEN as a method: as its training validates it, and as restoring gives it."""

import copy
import json

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from helpers.faces_to_restore import degraded, method
from helpers.small_networks import NETWORKS, SMALL, built, saved, weights
from torch import nn

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.baselines.method import Sample
from gpen_plugin.checkpoints.convert import to_layout
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.restore.network import open_network

GPENS = [name for name in NETWORKS if name.startswith("GPEN ")]


def by_hand(net: nn.Module, sample: Sample) -> np.ndarray:
    """Section 3.2 on one image, without any code of the package but the network."""
    unit = cv2.resize(sample.lq.astype(np.float32) / 255, (net.in_size,) * 2, interpolation=cv2.INTER_LINEAR)
    lq = torch.from_numpy(unit[..., ::-1].copy()).permute(2, 0, 1)[None] * 2 - 1
    with torch.no_grad():
        out = (net.eval()(lq)[0].clamp(-1, 1) + 1) / 2 * 255
    return out.round().byte().permute(1, 2, 0).numpy()[..., ::-1]


@pytest.mark.parametrize(("name", "layout"), [*((name, "ours") for name in GPENS), ("GPEN concat", "authors")])
def test_gpen_is_the_network_called_by_hand(name, layout, tmp_path):
    net = built(NETWORKS[name])
    files = {
        "ours": lambda: {"params": weights(NETWORKS[name], 1), "params_ema": net.state_dict()},
        "authors": lambda: to_layout(net.state_dict(), "authors"),
    }
    path, sample = saved(tmp_path / "net_g.pth", files[layout]()), degraded(size=net.out_size)
    difference = np.abs(method({"type": "gpen", "weights": str(path)})(sample).astype(int) - by_hand(net, sample))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_gpen_equals_the_validation_of_training(faces, tmp_path, test_options):
    """Bit for bit: the same pairs, the same weights, the host's own way to an image."""
    small = tmp_path / "lq"
    small.mkdir()
    for file in faces.iterdir():
        cv2.imwrite(str(small / file.name), cv2.resize(cv2.imread(str(file)), (7, 7), interpolation=cv2.INTER_AREA))
    net = built(lambda: GPEN(32, num_style_feat=16, num_mlp=2, narrow=0.03125))
    path = saved(tmp_path / "net_g.pth", {"params_ema": net.state_dict()})
    data = {**test_options["datasets"]["test_1"], "phase": "test", "dataroot_lq": str(small), "num_images": 8}
    del data["degradation"]
    options = {**test_options, "is_train": False, "dist": False, "rank": 0, "world_size": 1}
    options["path"]["pretrain_network_g"] = str(path)
    model = build_model(copy.deepcopy(options))
    restore = method({"type": "gpen", "weights": str(path)})
    dataset = build_dataset(data)
    assert len(dataset) == 8
    for index, file in enumerate(sorted(small.iterdir())):
        item = dataset[index]
        images = model.to_images({key: item[key][None] for key in ("lq", "gt")}, index)
        np.testing.assert_array_equal(restore(Sample(file.stem, "", cv2.imread(str(file)), None, 32)), images["result"])


def test_gpen_equals_gpen_restore(tmp_path):
    path = saved(tmp_path / "net_g.pth", {"params_ema": weights(NETWORKS["GPEN concat"])})
    samples = [degraded(seed, 5 + seed, 20, size=32) for seed in range(3)]
    for sample in samples:
        (restored,) = open_network(path, device="cpu")([sample.lq.astype(np.float32) / 255])
        image = np.rint(restored * 255).astype(np.uint8)
        np.testing.assert_array_equal(method({"type": "gpen", "weights": str(path)})(sample), image)


def test_param_key_defaults_to_ema(tmp_path):
    states = [weights(NETWORKS["GPEN concat"], seed) for seed in (1, 2)]
    path = str(saved(tmp_path / "net_g.pth", dict(zip(("params", "params_ema"), states, strict=True))))
    sample = degraded(size=32)
    default, average, raw = (
        method({"type": "gpen", "weights": path, "param_key": key}) for key in (None, "params_ema", "params")
    )
    np.testing.assert_array_equal(default(sample), average(sample))
    assert (average(sample) != raw(sample)).any()
    assert average.identity != raw.identity
    assert "GPEN 32 px" in default.description
    assert "net_g.pth (sha256 " in default.description


def test_gpen_with_random_weights_is_repeatable():
    entry = {"type": "gpen", "weights": "random", "network": {"out_size": 32, **SMALL}}
    one, other, sample = method(entry), method(entry), degraded(size=32)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    np.testing.assert_array_equal(one(sample), other(sample))
    assert torch.equal(torch.get_rng_state(), state)
    assert "RANDOM WEIGHTS" in one.description
    assert one.identity == other.identity
    assert json.loads(json.dumps(one.identity)) == one.identity


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"weights": "nowhere.pth"}, CheckpointError, r"methods:M:weights: nowhere\.pth: there is no such file"),
        ({"weights": "random"}, OptionError, r"methods:M:network: missing"),
        ({"weights": "random", "network": {"outsize": 32}}, OptionError, r"methods:M:network:outsize: unknown key"),
        ({"weights": "random", "network": {"out_size": 33}}, OptionError, r"methods:M:network.*33"),
        ({"weights": "x", "network": {"out_size": 32}}, OptionError, r"methods:M:network: given together"),
    ],
)
def test_wrong_gpen_entries(more, error, message):
    with pytest.raises(error, match=message):
        method({"type": "gpen", **more})


def test_prior_is_no_gpen(tmp_path):
    path = saved(tmp_path / "prior.pth", GPENPrior(32, **SMALL).state_dict())
    with pytest.raises(CheckpointError, match=r"methods:M:weights: .*holds GPENPrior 32 px"):
        method({"type": "gpen", "weights": str(path)})
