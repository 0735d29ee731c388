"""Tiny trainings of the methods with a reference face, from the option file to the evaluation of the weights."""

import logging

import pytest
import torch
from basicsr.models import build_model
from helpers.small_evaluation import given, run, weights  # noqa: F401 - fixtures
from test_gpen_model import batch, ready
from test_preflight import parsed

from gpen_plugin.errors import GPENError
from gpen_plugin.preflight import check_run

NETWORKS = {
    "GWAInet": {"out_size": 16, "num_feat": 4, "warper_blocks": 1, "blocks": 1},
    "GFRNet": {"out_size": 16, "num_feat": 2},
}


@pytest.fixture
def table(tmp_path):
    """Four persons, of whom face_6 is alone."""
    path = tmp_path / "identities.csv"
    path.write_text("image,identity\n" + "".join(f"face_{i},{who}\n" for i, who in enumerate("aabbcade")))
    return str(path)


@pytest.fixture
def reference_options(rival_options, table):
    for data in rival_options["datasets"].values():
        data["references"] = {"identities": table}
    train = rival_options["train"]
    train |= {"conditional_d": False, "feature_matching_opt": None, "content_only_iter": 2}
    train["pixel_opt"] = {"type": "L1Loss", "loss_weight": 1.0}
    rival_options["network_d"] |= {"num_in_ch": 3, "num_d": 1}
    return rival_options


@pytest.mark.parametrize("name", NETWORKS)
def test_method_is_trained_and_its_weights_are_evaluated(reference_options, given, table, train, caplog, name):  # noqa: F811
    reference_options["network_g"] = {"type": name, **NETWORKS[name]}
    check_run(parsed(reference_options))
    with caplog.at_level(logging.INFO, "basicsr"):
        folder = train(reference_options)
    file = folder / "models" / "net_g_4.pth"
    state = torch.load(file, weights_only=True)["params_ema"]
    assert all(tensor.isfinite().all() for tensor in state.values())
    given["protocol"]["references"] = {"identities": table}
    given["methods"] = {
        "Bilinear": {"type": "bilinear"},
        name: {
            "type": "arch",
            "network": reference_options["network_g"],
            "weights": str(file),
            "weights_by": "us",
            "value_range": [-1, 1],
            "input_size": "native",
            "reference_size": 16,
        },
    }
    results = run(given)
    assert (results.restored(name, ""), results.skipped(name, "")) == (4, 0)
    assert "trained by us" in results.rows[1].description


def test_identity_loss_is_part_of_the_generators_loss(reference_options, random_arcface):
    reference_options["train"] |= {"content_only_iter": 0, "identity_opt": {"type": "IdentityLoss", "loss_weight": 3.0}}
    torch.manual_seed(0)
    model = build_model(ready(reference_options))
    model.feed_data(batch())
    model.optimize_parameters(1)
    loss = model.loss_terms["identity"].loss
    unit = [(images.detach() + 1) / 2 for images in (model.output, model.gt)]
    torch.testing.assert_close(model.losses["l_g_identity"], loss(*unit))
    assert 0 < model.losses["l_g_identity"] < 6
    assert loss(unit[0], unit[0]) == pytest.approx(0, abs=1e-5)
    assert loss.recognizer[0].weight.grad is None


@pytest.mark.parametrize("name", NETWORKS)
def test_missing_references_are_found_before_the_run(reference_options, name):
    reference_options["network_g"] = {"type": name, **NETWORKS[name]}
    del reference_options["datasets"]["train"]["references"]
    with pytest.raises(GPENError, match=f"datasets:train:references: missing, and {name} restores with a reference"):
        check_run(parsed(reference_options))
