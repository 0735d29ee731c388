"""pSp: the arch, how its encoder is trained, kept and loaded again."""

import copy

import numpy as np
import pytest
import torch
import yaml
from helpers import REPOSITORY
from helpers.small_networks import saved
from test_pulse import CPU, SIDE, prior

from gpen_plugin.archs.psp_arch import CENTER_OF, PSP
from gpen_plugin.baselines import psp
from gpen_plugin.baselines.method import Sample
from gpen_plugin.baselines.mgan_prior import MGANPriorOptions
from gpen_plugin.baselines.psp import PSPOptions
from gpen_plugin.baselines.pulse import PulseOptions
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.config import schema
from gpen_plugin.errors import CheckpointError, DataError, OptionError
from gpen_plugin.evaluate.methods import build_method as build
from gpen_plugin.evaluate.methods import read_entry
from gpen_plugin.host import registered

SMALL = {"num_style_feat": 16, "num_mlp": 2, "narrow": 0.03125}


@pytest.fixture
def weights(tmp_path):
    return str(saved(tmp_path / "prior.pth", {"params_ema": prior().state_dict()}))


@pytest.fixture
def entry(weights, faces, monkeypatch, tmp_path):
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    train = {"dataroot_gt": str(faces), "iterations": 6, "batch_size": 3, "lr": 0.01, "scales": [2, 4]}
    return {"type": "psp", "prior": weights, "train": train}


@pytest.fixture
def sample(faces):
    return Sample("a", "2x", np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8), None, SIDE)


def encoder_of(method):
    return method.net.encoder.state_dict()


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


# --- the arch


@pytest.mark.parametrize(
    ("out_size", "in_size", "noise_mode"), [(16, None, "none"), (32, 16, "concat"), (128, 64, "concat")]
)
def test_one_code_per_layer(out_size, in_size, noise_mode):
    net = PSP(out_size, in_size, noise_mode=noise_mode, **SMALL)
    assert registered("arch")["PSP"] is PSP
    with torch.no_grad():
        image, offsets = net(torch.rand(2, 3, 5, 9), return_latents=True)
    assert image.shape == (2, 3, out_size, out_size)
    assert offsets.shape == (2, net.decoder.num_latent, 16)
    assert offsets.std(dim=1).min() > 0


def test_paper_sees_faces_at_256_px():
    with torch.device("meta"):
        net = PSP(1024)
    assert net.in_size == 256
    assert [head.codes for head in net.encoder.heads] == [3, 4, 11]


def test_training_changes_the_encoder_only():
    net = PSP(SIDE, **SMALL)
    net(torch.rand(2, 3, 8, 8)).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.encoder.parameters())
    assert all(parameter.grad is None for parameter in net.decoder.parameters())


def test_offsets_are_relative_to_the_loaded_mean_latent():
    net, loaded = PSP(SIDE, **SMALL), prior()
    twin = copy.deepcopy(net)
    before = net.center.clone()
    net.decoder.load_state_dict(loaded.state_dict())
    expected = loaded.mean_latent(CENTER_OF, torch.Generator().manual_seed(0))
    assert torch.equal(net.center, expected)
    assert torch.equal(twin.center, before)
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin.center, expected)
    torch.nn.init.zeros_(net.encoder.heads[0].to_codes.weight)
    torch.nn.init.zeros_(net.encoder.heads[1].to_codes.weight)
    with torch.no_grad():
        image = net(torch.rand(1, 3, 8, 8))
        noise = [None] * len(loaded.blocks)  # zero
        assert torch.allclose(
            image, loaded(expected[:, None].expand(-1, 6, -1), noise, input_is_latent=True), atol=1e-5
        )


def test_value_range():
    torch.manual_seed(0)
    net = PSP(SIDE, **SMALL)
    lq = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        signed = net(lq * 2 - 1)
        net.value_range = (0, 1)
        assert torch.allclose(net(lq) * 2 - 1, signed, atol=1e-5)


@pytest.mark.parametrize("arguments", [{"in_size": 20}, {"in_size": 32}, {"value_range": [1, 0]}])
def test_wrong_arguments(arguments):
    with pytest.raises(OptionError, match=next(iter(arguments))):
        PSP(SIDE, **SMALL, **arguments)


# --- the method


def test_training_reduces_the_error(entry, tmp_path):
    entry["train"] |= {"iterations": 40}
    method = build(entry, "m", CPU, tmp_path / "psp")
    training = psp.PSPTraining(method.net, psp.PSPTrainingOptions(**entry["train"]), 0, "m")
    gt = torch.stack([training.faces[index]["gt"] for index in range(8)])
    fresh = PSP(**method.prior.arguments)
    fresh.decoder.load_state_dict(method.prior.net.state_dict())
    with torch.no_grad():
        learned = training.losses(gt, 0)["l2"]
        training.net = fresh
        assert learned < 0.7 * training.losses(gt, 0)["l2"]


def test_it_is_trained_once(entry, tmp_path, sample, monkeypatch):
    first = build(entry, "m", CPU, tmp_path / "psp")
    image = first(sample)
    assert image.shape == (SIDE, SIDE, 3)
    assert [path.name for path in (tmp_path / "psp").iterdir()] == ["encoder.pth"]
    monkeypatch.setattr(psp.PSPTraining, "_train", None)
    again = build(entry, "m", CPU, tmp_path / "psp")
    assert np.array_equal(again(sample), image)
    assert again.identity == first.identity


def test_training_is_deterministic(entry, tmp_path):
    one = build(entry, "m", CPU, tmp_path / "one")
    torch.manual_seed(99)
    other = build(entry, "m", CPU, tmp_path / "other")
    assert equal(encoder_of(one), encoder_of(other))
    other_seed = build({**entry, "seed": 1}, "m", CPU, tmp_path / "seeded")
    assert not equal(encoder_of(one), encoder_of(other_seed))


@pytest.mark.parametrize("change", [{"train": {"lr": 0.02}}, {"seed": 5}, {"prior": None}])
def test_encoder_is_trained_again_if_its_inputs_change(change, entry, tmp_path):
    first = encoder_of(build(entry, "m", CPU, tmp_path / "psp"))
    if "prior" in change:
        moved = {name: tensor * 1.1 for name, tensor in prior().state_dict().items()}
        change = {"prior": str(saved(tmp_path / "moved.pth", {"params": moved}))}
    changed = {**entry, **change, "train": {**entry["train"], **change.get("train", {})}}
    assert not equal(encoder_of(build(changed, "m", CPU, tmp_path / "psp")), first)


def test_stopped_training_resumes(entry, tmp_path, monkeypatch):
    whole = build(entry, "m", CPU, tmp_path / "whole")
    entry["train"] |= {"save_every": 2}
    losses, seen = psp.PSPTraining.losses, []

    def stopped(training, gt, step):
        seen.append(step)
        if step == 5 and seen.count(5) == 1:
            raise KeyboardInterrupt("at step 5")
        return losses(training, gt, step)

    monkeypatch.setattr(psp.PSPTraining, "losses", stopped)
    with pytest.raises(KeyboardInterrupt, match="at step 5"):
        build(entry, "m", CPU, tmp_path / "stopped")
    resumed = build(entry, "m", CPU, tmp_path / "stopped")
    assert seen == [0, 1, 2, 3, 4, 5, 4, 5]
    assert equal(encoder_of(resumed), encoder_of(whole))


def test_given_weights(entry, weights, tmp_path, sample):
    trained = build(entry, "m", CPU, tmp_path / "psp")
    whole = saved(tmp_path / "net_g.pth", {"params": trained.net.state_dict()})
    for file in (tmp_path / "psp" / "encoder.pth", whole):
        given = build({"type": "psp", "prior": weights, "weights": str(file)}, "m", CPU, tmp_path / "none")
        assert np.array_equal(given(sample), trained(sample))
    with pytest.raises(CheckpointError, match="m:weights"):
        build({"type": "psp", "prior": weights, "weights": weights}, "m", CPU, tmp_path)


def test_lpips_counts_where_its_file_is_there(entry, tmp_path, monkeypatch):
    assert "without LPIPS" in build(entry, "m", CPU, tmp_path / "without").description
    monkeypatch.setattr(psp, "find_weights", lambda file: entry["prior"])

    def distance(one, other):
        return (one - other).abs().mean((1, 2, 3), keepdim=True)

    monkeypatch.setattr(psp, "perceptual_network", lambda name, path, device: distance)
    with_lpips = build(entry, "m", CPU, tmp_path / "with")
    assert "LPIPS of vgg" in with_lpips.description
    assert with_lpips.identity["lpips_sha256"]
    gt = torch.rand(2, 3, SIDE, SIDE)
    options = psp.PSPTrainingOptions(**entry["train"])
    losses = psp.PSPTraining(with_lpips.net, options, 0, "m").losses(gt, 0)
    assert set(losses) == {"l2", "regularization", "lpips"}
    assert losses["lpips"] > 0


def test_scales_are_drawn_from_their_range(entry, tmp_path):
    method = build(entry, "m", CPU, tmp_path)
    options = psp.PSPTrainingOptions(**{**entry["train"], "scales": [2, 8]})
    training = psp.PSPTraining(method.net, options, 0, "m")
    gt = torch.rand(1, 3, SIDE, SIDE)
    sides = {training.degraded(gt, step).shape[-1] for step in range(60)}
    assert min(sides) == 2
    assert max(sides) in (7, 8)
    small = training.degraded(gt, 0)
    assert torch.allclose((small + 1) * 127.5, ((small + 1) * 127.5).round(), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message", "kind"),
    [
        ({"train": None}, "m:weights, train", OptionError),
        ({"weights": "a.pth"}, "m:weights, train", OptionError),
        ({"in_size": 12}, "m:in_size", OptionError),
        ({"train": {"dataroot_gt": "nowhere"}}, "m:train:dataroot_gt", DataError),
        ({"train": {"dataroot_gt": "nowhere", "steps": 3}}, "m:train:steps", OptionError),
        ({"train": {"dataroot_gt": "nowhere", "scales": [4, 2]}}, "m:train:scales", OptionError),
    ],
)
def test_wrong_options_are_reported_by_key_path(change, message, kind, entry, tmp_path):
    with pytest.raises(kind, match=message):
        build({**entry, **change}, "m", CPU, tmp_path)


def test_encoder_file_contains_weights_only(entry, tmp_path):
    method = build(entry, "m", CPU, tmp_path)
    assert equal(checkpoint.read(tmp_path / "encoder.pth"), encoder_of(method))


def test_hosts_own_model_trains_it(options, train, tmp_path):
    decoder = {f"decoder.{name}": tensor for name, tensor in prior().state_dict().items()}
    for data in options["datasets"].values():
        data |= {"out_size": SIDE, "value_range": [0, 1]}
    options |= {
        "model_type": "SRModel",
        "scale": 1,
        "network_g": {"type": "PSP", "out_size": SIDE, "value_range": [0, 1], **SMALL},
        "path": {"pretrain_network_g": str(saved(tmp_path / "p.pth", {"params": decoder})), "strict_load_g": False},
        "train": {
            "total_iter": 3,
            "optim_g": {"type": "Adam", "lr": 0.01},
            "scheduler": {"type": "MultiStepLR", "milestones": [5], "gamma": 0.5},
            "pixel_opt": options["train"]["pixel_opt"],
        },
    }
    del options["network_d"]
    state = checkpoint.read(train(options) / "models" / "net_g_latest.pth")
    assert equal(decoder, state)
    net = PSP(SIDE, **SMALL)
    net.load_state_dict(state)
    assert torch.equal(net.center, prior().mean_latent(CENTER_OF, torch.Generator().manual_seed(0)))


def test_option_file_of_table_3():
    """Its entries are checked as a run checks them, and say how long each method searches or learns."""
    methods = yaml.safe_load((REPOSITORY / "options/evaluate/table3.yml").read_text())["methods"]
    classes = {"mGANprior": MGANPriorOptions, "PULSE": PulseOptions, "pSp": PSPOptions}
    read = {name: read_entry(methods[name], name)[0] for name in classes}
    assert all(isinstance(read[name], target) for name, target in classes.items())
    training = schema.build(psp.PSPTrainingOptions, read["pSp"].train, "pSp:train")
    assert (read["mGANprior"].iterations, read["PULSE"].iterations) == (3000, 100)
    assert "iterations" in methods["mGANprior"]
    assert "iterations" in methods["PULSE"]
    assert training.iterations == methods["pSp"]["train"]["iterations"]
    assert len({options.prior for options in read.values()}) == 1
    assert methods["pSp-authors"]["weights"].endswith("psp_celebs_super_resolution.pt")
