"""Stage one -> stage two: the prior becomes the decoder."""

import copy
import re
import shutil

import numpy as np
import pytest
import torch
from helpers.small_networks import saved
from synthetic_faces import render_face
from test_preflight import parsed
from torch.nn import functional as F

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.cli import convert
from gpen_plugin.errors import CheckpointError, GPENError
from gpen_plugin.metrics.swd import calculate_swd
from gpen_plugin.models.gpen_model import GPENModel
from gpen_plugin.preflight import check_run

WIDTHS = {"num_style_feat": 16, "num_mlp": 2, "narrow": 0.03125}  # as in `options`


@pytest.fixture
def embed(options, train, tmp_path, monkeypatch):
    """Runs stage two on a prior's file; gives its folder and the weights before the first iteration."""

    def run(**paths) -> tuple:
        found, original = {}, GPENModel.optimize_parameters

        def spy(self, current_iter):
            for name in ("net_g", "net_g_ema", "net_d"):
                found.setdefault(name, copy.deepcopy(getattr(self, name).state_dict()))
            original(self, current_iter)

        monkeypatch.setattr(GPENModel, "optimize_parameters", spy)
        options["val"] = None
        options["path"] |= {name: str(path) if path else None for name, path in paths.items()}
        return train(options, tmp_path / "stage_two"), found

    return run


@pytest.fixture(scope="module")
def trained() -> list:
    return []


@pytest.fixture
def stage_one(prior_options, train, tmp_path, tmp_path_factory, trained):
    """A folder with a trained prior's networks. The training is made once."""
    if not trained:
        prior_options["train"]["total_iter"] = 2
        prior_options["val"] = None
        trained.append(train(prior_options, tmp_path_factory.mktemp("stage_one")) / "models")
    return shutil.copytree(trained[0], tmp_path / "stage_one")


def entry(path, name):
    return torch.load(path, weights_only=True)[name]


def extract_decoder(state: dict) -> dict:
    return {name.removeprefix("decoder."): tensor for name, tensor in state.items() if name.startswith("decoder.")}


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def image(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- through the host's train_pipeline


@pytest.mark.parametrize("key", [None, "params"])
def test_prior_and_discriminator_are_all_there_before_the_first_step(stage_one, embed, options, key):
    prior, disc = stage_one / "net_g_latest.pth", stage_one / "net_d_latest.pth"
    options["path"]["param_key_prior"] = key
    folder, found = embed(pretrain_prior=prior, pretrain_network_d=disc)
    weights = entry(prior, key or "params_ema")
    assert_same(extract_decoder(found["net_g"]), weights)
    assert_same(found["net_g"], found["net_g_ema"])
    assert_same(found["net_d"], entry(disc, "params"))
    assert any(
        not torch.equal(weights[name], entry(prior, "params" if key is None else "params_ema")[name])
        for name in weights
    )
    log = next(folder.glob("train_*.log")).read_text()
    (count,) = re.findall(r"path:pretrain_prior: (\d+) of \1 tensors from \S+net_g_latest\.pth", log)
    assert int(count) == len(weights)
    assert re.search(r"path:pretrain_network_d: (\d+) of \1 tensors from \S+net_d_latest\.pth \[params\]", log)
    moved = extract_decoder(entry(folder / "models/net_g_4.pth", "params"))
    assert any(not torch.equal(moved[name], weights[name]) for name in weights)


def test_a_resumed_stage_two_does_without_the_priors_file(stage_one, embed, train, options, tmp_path):
    paths = {"pretrain_prior": stage_one / "net_g_latest.pth", "pretrain_network_d": stage_one / "net_d_latest.pth"}
    whole, _ = embed(**paths)
    shutil.rmtree(stage_one)
    stopped = tmp_path / "stopped/experiments" / options["name"]
    for folder in ("models", "training_states"):
        (stopped / folder).mkdir(parents=True)
        for file in (whole / folder).glob("*2.*"):
            shutil.copy(file, stopped / folder)
    resumed = train(options, tmp_path / "stopped", "--auto_resume")
    for name in ("params", "params_ema"):
        assert_same(*(entry(folder / "models/net_g_4.pth", name) for folder in (whole, resumed)))
    assert "path:pretrain_prior:" not in next(resumed.glob("train_*.log")).read_text()
    with pytest.raises(CheckpointError, match=r"path:pretrain_prior: .* is not there"):
        train(options, tmp_path / "another")
    assert not (tmp_path / "another/experiments").exists()


def test_a_public_stylegan2_is_a_prior_of_noise_mode_add(embed, options, tmp_path):
    """A file under BasicSR's own names, with its fixed noise, which the encoder's features replace."""
    torch.manual_seed(0)
    prior, disc = GPENPrior(16, noise_mode="add", **WIDTHS), GPENDiscriminator(16, narrow=WIDTHS["narrow"])
    files = {}
    for name, net in (("g", prior), ("d", disc)):
        ours = saved(tmp_path / f"ours_{name}.pth", {"params_ema": net.state_dict()})
        files[name] = tmp_path / f"stylegan2_{name}.pth"
        assert convert.main([str(ours), "-o", str(files[name]), "--to", "stylegan2"]) == 0
    theirs = entry(files["g"], "params_ema")
    assert {"style_conv1.weight", "noises.noise0", "constant_input.weight"} <= set(theirs)
    options["network_g"]["noise_mode"] = "add"
    folder, found = embed(pretrain_prior=files["g"], pretrain_network_d=files["d"])
    assert_same(extract_decoder(found["net_g"]), dict(prior.state_dict()))
    assert_same(found["net_d"], dict(disc.state_dict()))
    assert (folder / "models/net_g_4.pth").is_file()


# --- what is refused before anything is written


@pytest.mark.parametrize(
    ("build", "what"),
    [
        (lambda: GPENPrior(64, **WIDTHS), "GPENPrior 64 px, channel_multiplier 2, narrow 0.03125, noise concat"),
        (lambda: GPENPrior(16, **WIDTHS | {"narrow": 0.0625}), "GPENPrior 16 px, narrow 0.0625, noise concat"),
        (lambda: GPENPrior(16, noise_mode="add", **WIDTHS), "GPENPrior 16 px, narrow 0.03125, noise add"),
        (lambda: GPENPrior(16, **WIDTHS | {"num_mlp": 3}), "GPENPrior 16 px, .*, 3 mapping layers of 16"),
        (lambda: GPENDiscriminator(16, narrow=0.03125), "GPENDiscriminator 16 px"),
        (lambda: GPEN(16, **WIDTHS | {"narrow": 0.0625}), "a GPEN whose decoder is GPENPrior 16 px, narrow 0.0625"),
        (lambda: torch.nn.Linear(2, 2), "holds weight, bias"),
    ],
)
def test_what_is_no_such_prior_is_refused_and_both_are_named(options, tmp_path, build, what):
    path = saved(tmp_path / "other.pth", {"params_ema": build().state_dict()})
    options["path"]["pretrain_prior"] = str(path)
    with pytest.raises(CheckpointError, match=rf"^path:pretrain_prior: {path}: .*{what}") as caught:
        check_run(parsed(options))
    message = str(caught.value)
    if "holds weight" not in what:
        assert (
            "expected GPENPrior 16 px, narrow 0.03125, noise concat, 2 mapping layers of 16, as the options build it"
            in message
        )
        assert re.search(r"\([a-z0-9_.]+ is (missing|not of this network|\(\d.*\), not \(\d)", message)


def test_a_whole_gpen_gives_its_decoder(options, tmp_path):
    options["path"]["pretrain_prior"] = str(saved(tmp_path / "gpen.pth", {"params": GPEN(16, **WIDTHS).state_dict()}))
    check_run(parsed(options))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            {"pretrain_prior": "none.pth"},
            r"pretrain_prior: none\.pth is not there; .*Train it as options/gpen_prior_.*~",
        ),
        ({"pretrain_network_d": "none.pth"}, r"pretrain_network_d: none\.pth is not there; .*write ~ to start without"),
        (
            {"pretrain_prior": "a.pth", "pretrain_network_g": "b.pth"},
            "pretrain_prior: given together with pretrain_net",
        ),
    ],
)
def test_missing_and_contradicting_files_say_the_way_out(options, tmp_path, monkeypatch, paths, message):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "b.pth", {"params": GPEN(16, **WIDTHS).state_dict()})
    options["path"] |= paths
    with pytest.raises(GPENError, match=f"path:{message}"):
        check_run(parsed(options))


# --- a fresh encoder under a prior


def embedded(prior: GPENPrior) -> GPEN:
    net = GPEN(32, noise_mode=prior.noise_mode, **WIDTHS)
    net.decoder.load_state_dict(prior.state_dict())
    return net.requires_grad_(False)


def set_noise_weights(prior: GPENPrior, value: float) -> None:
    weights = [tensor for name, tensor in prior.named_parameters() if name.endswith("noise_weight")]
    assert weights
    for tensor in weights:
        tensor.data.fill_(value)


@pytest.mark.parametrize("mode", ["concat", "add", "none"])
def test_a_restored_image_is_the_priors_own(mode):
    """Its code is the encoder's z, its noise the encoder's features; nothing else comes from the image."""
    torch.manual_seed(0)
    prior = GPENPrior(32, noise_mode=mode, **WIDTHS).requires_grad_(False)
    if mode != "none":
        set_noise_weights(prior, 0.3)
    net, lq = embedded(prior), image(3)
    z, features = net.encoder(lq)
    noise = [None] * len(features) if mode == "none" else features
    assert torch.equal(net(lq), prior.synthesize(prior.to_latents(z), noise)[-1])
    other = prior(z, prior.make_noise(3, torch.Generator().manual_seed(1)))
    assert torch.equal(net(lq), other) == (mode == "none")


@pytest.mark.parametrize("mode", ["concat", "add"])
def test_zero_noise_weights_give_the_priors_image(mode):
    """That is what a prior starts from."""
    torch.manual_seed(0)
    prior = GPENPrior(32, noise_mode=mode, **WIDTHS).requires_grad_(False)
    net, lq = embedded(prior), image(3)
    z, _ = net.encoder(lq)
    for seed in (1, 2):
        assert torch.equal(net(lq), prior(z, prior.make_noise(3, torch.Generator().manual_seed(seed))))
    set_noise_weights(net.decoder, 0.3)
    assert not torch.equal(net(lq), prior(z, prior.make_noise(3)))


@pytest.fixture(scope="module")
def drawn() -> torch.Tensor:
    """Random images, (N, 3, 32, 32), in [-1, 1]."""
    images = np.stack([render_face(seed, 32)[:, :, ::-1].transpose(2, 0, 1) for seed in range(24)])
    return torch.from_numpy(images.astype(np.float32)) / 127.5 - 1


@pytest.fixture(scope="module")
def learnt(drawn) -> GPENPrior:
    """A prior that draws faces: taught by least squares, which takes seconds where a GAN takes hours."""
    torch.manual_seed(1)
    prior, codes = GPENPrior(32, **WIDTHS), torch.randn(len(drawn), WIDTHS["num_style_feat"])
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.01)
    for _ in range(60):
        chosen = torch.randperm(len(drawn))[:8]
        optimizer.zero_grad()
        F.mse_loss(prior(codes[chosen]), drawn[chosen]).backward()
        optimizer.step()
    return prior.requires_grad_(False)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Sliced Wasserstein distance of two sets, (N, 3, H, W), in [-1, 1]."""
    sets = [((s + 1) * 127.5).clamp(0, 255).round().byte().permute(0, 2, 3, 1).flip(3).numpy() for s in (one, other)]
    return float(sum(calculate_swd(a, b, better="lower") for a, b in zip(*sets, strict=True)) / len(one))


@pytest.mark.parametrize("silent", [False, True], ids=["noise as learnt", "noise weights of 0"])
def test_restored_images_are_the_priors_faces_before_the_first_step(learnt, drawn, silent):
    prior = copy.deepcopy(learnt)
    if silent:
        set_noise_weights(prior, 0.0)
    torch.manual_seed(2)
    samples = prior(torch.randn(len(drawn), WIDTHS["num_style_feat"]))
    near = distance(embedded(prior)(drawn), samples)
    noise = distance(image(len(drawn)), samples)
    strange = distance(GPEN(32, **WIDTHS).requires_grad_(False)(drawn), samples)

    assert near < 0.65 * min(noise, strange)
