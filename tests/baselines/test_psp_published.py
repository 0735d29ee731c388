"""pSp's own encoder: sizes, names, published files, and its training."""

import numpy as np
import pytest
import torch
from helpers.published_psp import FEAT, SIZE, F, published, published_encoder
from helpers.small_networks import saved
from test_pulse import CPU, SIDE, prior

from gpen_plugin.archs.psp_arch import PSP, IRUnit
from gpen_plugin.baselines import psp
from gpen_plugin.baselines.method import Sample
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.evaluate.methods import build_method as build


@pytest.fixture
def sample():
    return Sample("a", "2x", np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8), None, SIZE)


@pytest.mark.parametrize(("size", "millions"), [(256, 209.5), (512, 238.3), (1024, 267.1)])
def test_parameters_are_as_many_as_the_authors(size, millions):
    with torch.device("meta"):
        encoder = PSP(size, encoder="ir_se50").encoder
    count = {name: sum(each.numel() for each in part.parameters()) for name, part in encoder.named_children()}
    assert sum(count.values()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert (count["input_layer"] + count["body"]) / 1e6 == pytest.approx(30.95, abs=0.005)


def test_published_file_restores_as_its_parts_do(tmp_path, sample):
    content = published()
    path = saved(tmp_path / "psp_celebs_super_resolution.pt", content)
    net, description, _ = psp.load_published(str(path), "m:weights")
    assert (net.in_size, net.out_size) == (32, SIZE)
    assert "pSp of its authors" in description
    lq = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        encoder = net.eval().encoder
        latents = content["latent_avg"] + encoder(lq)
        expected = net.decoder(latents, [None] * len(net.decoder.blocks), input_is_latent=True)
        assert torch.equal(net(lq), expected)
    own = encoder.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in published_encoder().items())
    method = build({"type": "psp", "weights": str(path)}, "m", CPU, tmp_path)
    assert method(sample).shape == (SIZE, SIZE, 3)


def test_file_without_the_mean_code_starts_from_zero(tmp_path):
    content = published(opts={"start_from_latent_avg": False})
    net, _, _ = psp.load_published(str(saved(tmp_path / "psp.pt", content)), "m")
    assert not net.center.any()


def test_other_files_are_refused_with_what_they_are(tmp_path):
    content = published()

    def refused(file: dict, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            psp.load_published(str(saved(tmp_path / "file.pt", file)), "m:weights")

    refused(published_encoder(), "holds IR-SE-50, a network of face recognition; expected encoder")
    refused({**content, "latent_avg": torch.rand(3, F)}, r"m:weights: .*latent_avg is \(3, 16\)")
    labels = dict(content["state_dict"])
    labels["encoder.input_layer.0.weight"] = torch.zeros(FEAT, 19, 3, 3)
    refused({**content, "state_dict": labels}, r"input_layer.0.weight is \(2, 19, 3, 3\), not \(2, 3, 3, 3\)")
    refused(prior().state_dict(), r"expected encoder\.\*, decoder\.\* and latent_avg of pSp's authors")


def test_unit_of_equal_widths_adds_its_input_strided():
    unit = IRUnit(4, 4, 2).eval()
    torch.nn.init.zeros_(unit.res_layer[4].weight)
    torch.nn.init.zeros_(unit.res_layer[4].bias)
    x = torch.rand(1, 4, 8, 8)
    assert torch.equal(unit(x), x[:, :, ::2, ::2])


def test_papers_encoder_is_trained_and_starts_from_recognition(faces, tmp_path, monkeypatch):
    weights = str(saved(tmp_path / "prior.pth", {"params_ema": prior().state_dict()}))
    start = PSP(SIDE, in_size=SIDE, encoder="ir_se50", encoder_feat=FEAT, num_style_feat=16, narrow=0.03125).encoder
    recognizer = {name: tensor for name, tensor in start.state_dict().items() if name.startswith(("input", "body"))}
    recognizer["output_layer.0.weight"] = torch.zeros(3)
    train = {
        "dataroot_gt": str(faces),
        "iterations": 2,
        "batch_size": 2,
        "scales": [2, 4],
        "lpips_weight": 0,
        "lr": 1e-5,
    }
    entry = {"type": "psp", "prior": weights, "encoder": "ir_se50", "encoder_feat": FEAT, "train": train}
    entry["encoder_weights"] = str(saved(tmp_path / "model_ir_se50.pth", recognizer))
    method = build(entry, "m", CPU, tmp_path / "psp")
    assert "the paper's encoder" in method.description
    trained = method.net.encoder.state_dict()["body.0.res_layer.1.weight"]
    assert 0 < (trained - recognizer["body.0.res_layer.1.weight"]).abs().max() < 1e-4
    assert not method.net.training
    monkeypatch.setattr(psp.PSPTraining, "_train", None)
    build(entry, "m", CPU, tmp_path / "psp")
    entry["encoder_weights"] = weights
    with pytest.raises(CheckpointError, match=r"m:encoder_weights: .*expected IR-SE-50 of face recognition"):
        build(entry, "m", CPU, tmp_path / "other")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"train": {}}, "m:prior: missing"),
        ({"weights": "a.pt", "encoder": "ir_se50"}, "m:encoder: given without prior"),
        ({"prior": "p.pth", "weights": "a.pt", "encoder_weights": "r.pth"}, "m:encoder_weights: got r.pth; expected ~"),
    ],
)
def test_options_that_exclude_each_other(entry, message, tmp_path):
    with pytest.raises(OptionError, match=message):
        build({"type": "psp", **entry}, "m", CPU, tmp_path)
