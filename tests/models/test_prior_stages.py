"""Both training stages with each kind of prior."""

import copy

import pytest
import torch
from test_embedding import extract_decoder
from test_preflight import parsed

from gpen_plugin.archs.pggan_prior_arch import PGGANPrior
from gpen_plugin.checkpoints import metadata
from gpen_plugin.cli.export import main as export_main
from gpen_plugin.errors import GPENError
from gpen_plugin.preflight import check_run

KINDS = {"PGGANPrior": {}, "StyleGAN1Prior": {"num_mlp": 2}, "BigGANPrior": {}}
SINGLE_CODE = ("PGGANPrior", "BigGANPrior")


def of_kind(prior_options: dict, kind: str) -> dict:
    """Options of stage one for a kind of prior."""
    options = copy.deepcopy(prior_options)
    options["network_g"] = {"type": kind, "out_size": 16, "num_style_feat": 16, "narrow": 0.03125, **KINDS[kind]}
    options["network_d"]["channel_multiplier"] = 1
    options["train"] |= {"total_iter": 2, "augment_opt": None}
    if kind in SINGLE_CODE:
        options["train"] |= {"mixing_prob": 0, "path_reg_weight": 0}
        options["val"]["truncation"] = 1
    return options


def embedding(options: dict, kind: str, folder) -> dict:
    """Options of stage two on the networks of stage one."""
    options = copy.deepcopy(options)
    options["network_g"] |= {"channel_multiplier": 1, "prior": {"type": kind}}
    if "num_mlp" not in KINDS[kind]:
        del options["network_g"]["num_mlp"]
    options["network_d"]["channel_multiplier"] = 1
    options["train"] |= {"total_iter": 2}
    options["path"] |= {
        "pretrain_prior": str(folder / "models/net_g_latest.pth"),
        "pretrain_network_d": str(folder / "models/net_d_latest.pth"),
    }
    options["val"] = None
    return options


@pytest.mark.parametrize("kind", KINDS)
def test_both_stages_train(kind, prior_options, options, train, tmp_path):
    first = train(of_kind(prior_options, kind), tmp_path / "one")
    assert list((first / "visualization").glob("grid_*.png"))
    prior = torch.load(first / "models/net_g_latest.pth", weights_only=True)["params_ema"]
    stated = metadata.read(first / "models/net_g_latest.pth")
    assert (stated.architecture, stated.conventions) == (kind, {})
    second = train(embedding(options, kind, first), tmp_path / "two")
    net = torch.load(second / "models/net_g_latest.pth", weights_only=True)["params"]
    decoder = extract_decoder(net)
    assert decoder.keys() == prior.keys()
    moved = {name for name in prior if not torch.equal(decoder[name], prior[name])}
    assert moved == set(prior)
    assert all(tensor.isfinite().all() for tensor in net.values())


def test_license_of_the_prior_is_in_the_files_of_a_training(options, train, tmp_path):
    (tmp_path / "models").mkdir()
    path = tmp_path / "models/net_g_latest.pth"
    net = PGGANPrior(16, num_style_feat=16, narrow=0.03125)
    torch.save({"params_ema": net.state_dict(), "license": "CC BY-NC 4.0"}, path)
    options = embedding(options, "PGGANPrior", tmp_path)
    options["path"]["pretrain_network_d"] = None
    options["train"]["total_iter"] = 1
    folder = train(options, tmp_path / "two") / "models"
    assert metadata.read(folder / "net_g_latest.pth").license == "CC BY-NC 4.0"
    assert set(torch.load(folder / "net_d_latest.pth", weights_only=True)) == {"params"}
    assert export_main([str(folder / "net_g_latest.pth"), "-o", str(tmp_path / "net.onnx"), "--device", "cpu"]) == 0
    stated = {
        entry.key: entry.value for entry in pytest.importorskip("onnx").load(tmp_path / "net.onnx").metadata_props
    }
    assert stated["gpen.license"] == "CC BY-NC 4.0"


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train", "mixing_prob", 0.9, "train:mixing_prob: got 0.9; expected 0: PGGANPrior has a single latent code"),
        ("train", "path_reg_weight", 2, "train:path_reg_weight: got 2; expected 0: PGGANPrior"),
        ("val", "truncation", 0.7, "val:truncation: got 0.7; expected 1: PGGANPrior has no mean latent code"),
    ],
)
def test_setting_that_a_single_code_cannot_have_is_refused(prior_options, section, key, value, message):
    options = of_kind(prior_options, "PGGANPrior")
    check_run(parsed(options))
    options[section][key] = value
    with pytest.raises(GPENError, match=message):
        check_run(parsed(options))


def test_prior_of_another_kind_is_refused(prior_options, options, tmp_path):
    (tmp_path / "models").mkdir()
    net = PGGANPrior(16, num_style_feat=16, narrow=0.03125)
    torch.save({"params_ema": net.state_dict()}, tmp_path / "models/net_g_latest.pth")
    wrong = embedding(options, "StyleGAN1Prior", tmp_path)
    wrong["path"]["pretrain_network_d"] = None
    with pytest.raises(
        GPENError, match=r"path:pretrain_prior: .*holds PGGANPrior 16 px.*expected StyleGAN1Prior 16 px"
    ):
        check_run(parsed(wrong))
