"""The four networks of Table 1: each trains from a prior of its noise mode, and GPEN-w/o-ft keeps its prior."""

import copy
import shutil
from pathlib import Path

import cv2
import pytest
import torch
import yaml
from basicsr.models import build_model
from helpers import REPOSITORY
from helpers.small_networks import saved
from synthetic_faces import render_face

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.models.gpen_model import GPENModel

FINE_TUNED = ["gpen", "gpen_wo_noise", "gpen_noise_add"]
ITERATIONS = 4


def loaded(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / "options" / name).read_text())


def arguments(section: dict, *without: str) -> dict:
    return {key: value for key, value in section.items() if key not in ("type", *without)}


@pytest.fixture(scope="module")
def portraits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("portraits")
    for seed in range(4):
        cv2.imwrite(str(folder / f"{seed}.png"), render_face(seed, 64))
    return folder


def prior_of(options: dict, folder: Path) -> dict:
    """Files of a prior and its discriminator, whose noise weights are those of a trained one: not zero."""
    torch.manual_seed(0)
    prior = GPENPrior(**arguments(options["network_g"]))
    for name, parameter in prior.named_parameters():
        if name.endswith("noise_weight"):
            parameter.data.fill_(0.1)
    disc = GPENDiscriminator(**arguments(options["network_d"]))
    place = folder / f"experiments/gpen_prior_64_{prior.noise_mode}/models"
    place.mkdir(parents=True)
    saved(place / "net_g_latest.pth", {"params": prior.state_dict(), "params_ema": prior.state_dict()})
    saved(place / "net_d_latest.pth", {"params": disc.state_dict()})
    return prior.state_dict()


@pytest.fixture
def variant(portraits, tmp_path, monkeypatch):
    """Options of a file of options/ablation with the demo's networks and data, and the weights of its prior."""
    monkeypatch.chdir(tmp_path)

    def build(name: str) -> tuple[dict, dict]:
        options, demo = loaded(f"ablation/{name}.yml"), loaded("gpen_demo.yml")
        for network in ("network_g", "network_d"):
            options[network] |= arguments(demo[network], "noise_mode")
        for phase, data in options["datasets"].items():
            data |= {"dataroot_gt": str(portraits), "io_backend": {"type": "disk"}, "out_size": 64}
            data["degradation"] = demo["datasets"]["train"]["degradation"]
            if phase == "train":
                data |= {"num_worker_per_gpu": 0, "persistent_workers": False}
        options["num_gpu"] = 0
        options["datasets"]["val"]["num_images"] = 1
        options["train"] |= {"total_iter": ITERATIONS, "net_d_reg_every": 2}
        options["val"] |= {"val_freq": ITERATIONS, "grid_images": 1, "metrics": None}
        options["logger"] |= {"print_freq": 1, "save_checkpoint_freq": ITERATIONS // 2, "use_tb_logger": False}
        return options, prior_of(options, tmp_path)

    return build


def weights(folder: Path, iteration: int, entry: str) -> dict:
    return torch.load(folder / f"models/net_g_{iteration}.pth", weights_only=True)[entry]


def moved(state: dict, start: dict, part: str = "decoder.") -> set[str]:
    """Names of the tensors of `part` that are not what they were, to the bit."""
    own = {name.removeprefix(part): tensor for name, tensor in state.items() if name.startswith(part)}
    assert own.keys() == start.keys()
    return {name for name in own if not torch.equal(own[name], start[name])}


@pytest.mark.parametrize("name", FINE_TUNED)
def test_each_variant_trains_from_the_prior_of_its_noise_mode(variant, train, tmp_path, name):
    options, prior = variant(name)
    check_training(train(options, tmp_path), prior, name)


def check_training(folder: Path, prior: dict, name: str) -> None:
    """In GPEN-w/o-ft no tensor of the decoder moves, raw or averaged; in the others, those of every kind do."""
    log = next(folder.glob("train_*.log")).read_text()
    assert f"path:pretrain_prior: {len(prior)} of {len(prior)} tensors from experiments/gpen_prior_64_" in log
    assert all(f"iter: {i:7d}" in log for i in range(1, ITERATIONS + 1))
    assert "nonfinite" not in log
    for entry in ("params", "params_ema"):
        state = weights(folder, ITERATIONS, entry)
        changed = moved(state, prior)
        if name == "gpen_wo_ft":
            assert changed == set()
        else:
            assert {"mapping.0.weight", "constant", "blocks.64.conv1.weight", "blocks.4.to_rgb.bias"} <= changed
        assert any(key.endswith("noise_weight") for key in prior) == (name != "gpen_wo_noise")
        assert all(tensor.isfinite().all() for tensor in state.values())
    assert (folder / f"visualization/grid_CelebA-HQ_{ITERATIONS}.png").is_file()


def test_frozen_decoder_stays_the_same_after_a_resume(variant, train, tmp_path, monkeypatch):
    options, prior = variant("gpen_wo_ft")
    encoders, original = [], GPENModel.optimize_parameters

    def spy(self, current_iter):
        encoders.append(copy.deepcopy(self.net_g.encoder.state_dict()))
        original(self, current_iter)

    monkeypatch.setattr(GPENModel, "optimize_parameters", spy)
    folder = train(options, tmp_path)
    check_training(folder, prior, "gpen_wo_ft")
    stopped = tmp_path / "stopped/experiments" / options["name"]
    half = ITERATIONS // 2
    for part in ("models", "training_states"):
        (stopped / part).mkdir(parents=True)
        for file in (folder / part).glob(f"*{half}.*"):
            shutil.copy(file, stopped / part)
    resumed = train(options, tmp_path / "stopped", "--auto_resume")
    for run, iteration in ((folder, half), (folder, ITERATIONS), (resumed, ITERATIONS)):
        for entry in ("params", "params_ema"):
            state = weights(run, iteration, entry)
            assert moved(state, prior) == set()
            assert moved(state, encoders[0], "encoder.") == encoders[0].keys()
    for entry in ("params", "params_ema"):
        one, other = (weights(run, ITERATIONS, entry) for run in (folder, resumed))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_frozen_decoder_has_no_gradients_and_no_optimizer_state(variant):
    options, _ = variant("gpen_wo_ft")
    options["path"] = {}
    options["train"]["optim"]["lazy_lr_scaling"] = True
    model = build_model(copy.deepcopy({**options, "is_train": True, "dist": False, "rank": 0, "world_size": 1}))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for iteration in (1, 2):
        model.feed_data({"lq": images, "gt": images.flip(3)})
        model.optimize_parameters(iteration)
    decoder = {id(parameter) for parameter in model.net_g.decoder.parameters()}
    assert decoder
    assert all(not p.requires_grad and p.grad is None for p in model.net_g.decoder.parameters())
    (optimizer,) = model.optimizers
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert not decoder & set(held)
    assert not decoder & {id(parameter) for parameter in optimizer.state}
    trained = [*model.net_g.encoder.parameters(), *model.net_d.parameters()]
    assert set(held) == {id(parameter) for parameter in trained}
    assert all(parameter in optimizer.state for parameter in trained)
    assert [group["name"] for group in optimizer.param_groups] == ["encoder", "discriminator"]
    first, second = (group["lr"] for group in optimizer.param_groups)
    assert second / first == pytest.approx(0.01 * 2 / 3)  # the paper's ratio, with lazy R1's correction of D alone
