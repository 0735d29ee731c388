"""A resumed training goes on as its option file says by now."""

import copy
import shutil

import pytest
import torch
from basicsr.models import lr_scheduler
from models.test_gpen_model import assert_same, ready

from gpen_plugin.config.train_options import TrainOptions
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.models.train_state import (
    Change,
    best_iteration,
    changes_between,
    check_complete,
    load_optimizers,
    recorded_options,
)


def multi_step(optimizer, milestones=(2, 9), gamma=0.5):
    return lr_scheduler.MultiStepRestartLR(optimizer, list(milestones), gamma=gamma)


def cosine(optimizer, periods=(20,)):
    return lr_scheduler.CosineAnnealingRestartLR(optimizer, list(periods))


def adam(lr: float = 0.1, betas: tuple = (0.0, 0.9), groups=("encoder", "decoder")):
    groups = [{"name": name, "params": [torch.nn.Parameter(torch.ones(2))], "lr": lr} for name in groups]
    return torch.optim.Adam(groups, betas=betas)


def steps(optimizer, scheduler, number):
    rates = []
    for _ in range(number):
        sum(p.sum() for group in optimizer.param_groups for p in group["params"]).backward()
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def after_four_steps(make=multi_step, **how) -> dict:
    optimizer = adam(**how)
    scheduler = make(optimizer)
    steps(optimizer, scheduler, 4)
    return {"iter": 5, "optimizers": [optimizer.state_dict()], "schedulers": [scheduler.state_dict()]}


def resumed(state, optimizer, scheduler):
    def advance():
        for _ in range(4):
            scheduler.step()

    return load_optimizers(copy.deepcopy(state), [optimizer], [scheduler], advance, where="5.state")


def test_an_unchanged_file_changes_nothing():
    state, optimizer = after_four_steps(), adam()
    scheduler = multi_step(optimizer)
    assert resumed(state, optimizer, scheduler) == []
    assert_same(optimizer.state_dict(), state["optimizers"][0])
    assert scheduler.state_dict() == state["schedulers"][0]


@pytest.mark.parametrize("before", [multi_step, cosine], ids=["MultiStepLR", "Cosine"])
@pytest.mark.parametrize("after", [multi_step, cosine], ids=["MultiStepLR", "Cosine"])
@pytest.mark.parametrize("lr", [0.1, 0.02])
def test_the_rate_is_that_of_a_training_from_the_start_under_the_file(before, after, lr):
    optimizer, unstopped = adam(lr=lr), adam(lr=lr)
    scheduler = after(optimizer)
    changes = resumed(after_four_steps(before), optimizer, scheduler)
    expected = steps(unstopped, after(unstopped), 10)
    assert [optimizer.param_groups[0]["lr"], *steps(optimizer, scheduler, 6)] == expected[3:]
    assert (Change("initial_lr of encoder", 0.1, 0.02) in changes) == (lr == 0.02)
    assert any(change.key.startswith("scheduler:") for change in changes) == (before is not after)


def test_changed_settings_of_a_schedule_rule_from_the_start():
    optimizer = adam(betas=(0.5, 0.99))
    scheduler = multi_step(optimizer, (3, 6), 0.1)
    changes = resumed(after_four_steps(), optimizer, scheduler)
    assert {change.key for change in changes} == {
        "betas of encoder",
        "betas of decoder",
        "scheduler:milestones",
        "scheduler:gamma",
    }
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.99)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    assert steps(optimizer, scheduler, 2)[-1] == pytest.approx(0.001)


def test_removed_group_is_dropped_and_a_new_one_starts_fresh():
    both, one = after_four_steps(), after_four_steps(groups=("decoder",))
    optimizer = adam(groups=("decoder",))
    (change,) = resumed(both, optimizer, multi_step(optimizer))
    assert str(change) == "groups of the optimizer: ['encoder', 'decoder'] -> ['decoder']"
    held = both["optimizers"][0]["state"][1]["exp_avg"]
    assert torch.equal(optimizer.state[optimizer.param_groups[0]["params"][0]]["exp_avg"], held)
    optimizer = adam()
    resumed(one, optimizer, multi_step(optimizer))
    encoder, decoder = (group["params"][0] for group in optimizer.param_groups)
    assert encoder not in optimizer.state
    assert optimizer.state[decoder]["step"] == 4
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.05]


def test_moments_of_another_network_are_refused():
    state, optimizer = (
        after_four_steps(),
        torch.optim.Adam(
            [
                {"name": name, "params": [torch.nn.Parameter(torch.ones(3))], "lr": 0.1}
                for name in ("encoder", "decoder")
            ]
        ),
    )
    with pytest.raises(CheckpointError, match=r"5\.state: a moment of shape \(2,\) in group encoder; expected \(3,\)"):
        resumed(state, optimizer, multi_step(optimizer))
    state["optimizers"] *= 2
    with pytest.raises(CheckpointError, match=r"5\.state: holds 2 optimizers; expected .* which has 1"):
        resumed(state, optimizer, multi_step(optimizer))


def test_changes_are_named_by_key_path(options):
    opt = ready(options)
    before = recorded_options(opt, TrainOptions(**opt["train"]))
    train = opt["train"] | {
        "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [6]},
        "pixel_opt": {"type": "MSELoss", "loss_weight": 2.0, "reduction": "mean"},
        "feature_matching_opt": None,
        "r1_reg_weight": 1,
        "warmup_iter": 2,
        "freeze_decoder": True,
    }
    opt["datasets"]["train"] |= {"dataroot_gt": "other", "batch_size_per_gpu": 1, "num_worker_per_gpu": 4}
    opt["datasets"]["train"]["degradation"]["noise_range"] = (0, 5)
    changes = changes_between(before, recorded_options(opt, TrainOptions(**train)))
    faces = options["datasets"]["train"]["dataroot_gt"]
    assert sorted(map(str, changes)) == [
        "datasets:train:batch_size_per_gpu: 2 -> 1",
        f"datasets:train:dataroot_gt: {faces} -> other",
        "datasets:train:degradation:noise_range: ~ -> [0, 5]",
        "datasets:val:degradation:noise_range: ~ -> [0, 5]",  # the sections share it
        "train:feature_matching_opt:loss_weight: 0.02 -> ~",
        "train:feature_matching_opt:type: DiscriminatorFeatureMatchingLoss -> ~",
        "train:freeze_decoder: False -> True",
        "train:pixel_opt:loss_weight: 1.0 -> 2.0",
        "train:pixel_opt:type: L1Loss -> MSELoss",
        "train:r1_reg_weight: 10 -> 1",
        "train:scheduler:gamma: 0.5 -> ~",
        "train:scheduler:milestones: [3] -> ~",
        "train:scheduler:periods: ~ -> [6]",
        "train:scheduler:type: MultiStepLR -> CosineAnnealingRestartLR",
    ]


def test_what_is_recorded_is_read_by_a_loader_of_weights_alone(options, tmp_path):
    from collections import OrderedDict
    from datetime import date

    opt = ready(options)
    opt["datasets"]["val"] = OrderedDict(name=date(2026, 1, 1), sizes=({"a": 1}, None), type="x")
    recorded = recorded_options(opt, TrainOptions(**opt["train"]))
    torch.save(recorded, tmp_path / "x")
    assert torch.load(tmp_path / "x", weights_only=True) == recorded
    assert recorded["datasets"]["val"] == {"name": "2026-01-01", "sizes": [{"a": 1}, None], "type": "x"}


@pytest.mark.parametrize("freeze", [(False, True), (True, False)], ids=["frozen later", "freed later"])
def test_the_decoder_may_be_frozen_or_freed_when_resuming(options, train, tmp_path, freeze):
    options["logger"] |= {"use_tb_logger": False}
    options["val"] = None
    options["train"] |= {"total_iter": 2, "freeze_decoder": freeze[0]}
    train(options)
    options["train"] |= {"total_iter": 4, "freeze_decoder": freeze[1]}
    folder = train(options, tmp_path, "--auto_resume")
    before, after = (torch.load(folder / f"models/net_g_{i}.pth", weights_only=True)["params"] for i in (2, 4))
    moved = {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved == ({"encoder"} if freeze[1] else {"encoder", "decoder"})
    assert f"train:freeze_decoder: {freeze[0]} -> {freeze[1]}" in last_log(folder)


def test_a_training_resumed_with_another_schedule_data_and_loss(options, train, tmp_path):
    """Also from an earlier version's state, which held no options."""
    options["logger"] |= {"use_tb_logger": False}
    options["val"] = None
    options["train"] |= {"total_iter": 2, "warmup_iter": -1}
    options["train"]["scheduler"] = {"type": "CosineAnnealingRestartLR", "periods": [2]}
    experiments = train(options).parent
    shutil.copytree(experiments, tmp_path / "earlier/experiments")
    earlier = tmp_path / "earlier/experiments/small/training_states/2.state"
    state = torch.load(earlier, weights_only=True)
    del state["options"]
    torch.save(state, earlier)
    options["train"]["total_iter"] = 4
    options["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [3], "gamma": 0.1}
    options["train"]["pixel_opt"]["loss_weight"] = 0.5
    options["datasets"]["train"]["batch_size_per_gpu"] = 1
    messages = []
    for root in (tmp_path, tmp_path / "earlier"):
        folder = train(options, root, "--auto_resume")
        state = torch.load(folder / "training_states/4.state", weights_only=True)
        rates = [group["lr"] for group in state["optimizers"][0]["param_groups"]]
        assert rates == pytest.approx([2e-4, 2e-5, 2e-6])
        changes = [line for line in last_log(folder).splitlines() if "The option file was changed" in line]
        messages.append([line.rpartition("was saved: ")[2] for line in changes])
    assert "train:scheduler:type: CosineAnnealingRestartLR -> MultiStepLR" in messages[0]
    assert "train:pixel_opt:loss_weight: 1.0 -> 0.5" in messages[0]
    assert "datasets:train:batch_size_per_gpu: 2 -> 1" in messages[0]
    assert sorted(line.partition(" ")[0] for line in messages[1]) == [
        f"scheduler:{key}:" for key in ("gamma", "milestones", "restarts")
    ]


def test_a_changed_warm_up_rules_from_the_start(options, train, tmp_path):
    options["logger"]["use_tb_logger"] = False
    options["val"] = None
    options["train"] |= {"total_iter": 2, "warmup_iter": 1000}
    train(options)
    options["train"] |= {"total_iter": 4, "warmup_iter": -1}
    folder = train(options, tmp_path, "--auto_resume")
    state = torch.load(folder / "training_states/4.state", weights_only=True)
    assert [group["lr"] for group in state["optimizers"][0]["param_groups"]] == pytest.approx(
        [1e-3, 1e-4, 1e-5]
    )  # halved at 3
    assert "train:warmup_iter: 1000 -> -1" in last_log(folder)


def last_log(folder) -> str:
    return max(folder.glob("train_*.log"), key=lambda path: path.stat().st_mtime).read_text()


def test_best_results_follow_the_metrics_of_the_file():
    held = {
        "val": {"psnr": {"better": "higher", "val": 20.0, "iter": 3}, "swd": {"better": "lower", "val": 9, "iter": 1}}
    }
    best = best_iteration(held, {"psnr": {"type": "x"}, "ssim": {"type": "x"}, "swd": {"better": "higher"}})
    assert best == {
        "val": {
            "psnr": {"better": "higher", "val": 20.0, "iter": 3},
            "ssim": {"better": "higher", "val": float("-inf"), "iter": -1},
            "swd": {"better": "higher", "val": float("-inf"), "iter": -1},
        }
    }


def test_state_of_another_model_is_an_error():
    with pytest.raises(CheckpointError, match=r"path:resume_state: 5\.state: has no guard, random, sampler; expected"):
        check_complete({"optimizers": [], "schedulers": [], "best_metric_results": {}}, "5.state", {"guard": {}})


@pytest.mark.parametrize("fixture", ["options", "prior_options"])
def test_a_training_resumed_with_another_rate_and_metric(fixture, request, train, tmp_path):
    options = request.getfixturevalue(fixture)
    options["train"]["total_iter"] = 2
    options["val"]["metrics"] = None
    train(options)
    options["train"]["total_iter"] = 4
    options["val"]["metrics"] = {"swd": {"type": "calculate_swd", "better": "lower"}}
    for name in ("optim", "optim_g", "optim_d"):
        if name in options["train"]:
            options["train"][name]["lr"] = 0.0002
    folder = train(options, tmp_path, "--auto_resume")
    state = torch.load(folder / "training_states/4.state", weights_only=True)
    first, last = (state["optimizers"][0]["param_groups"][0][key] for key in ("initial_lr", "lr"))
    assert first <= 0.0002
    assert last <= first
    assert state["best_metric_results"]["val"]["swd"]["iter"] == 4
    message = [line for line in last_log(folder).splitlines() if "The option file was changed since the state" in line]
    rates = [line for line in message if ":lr: 0.002 -> 0.0002" in line]
    assert len(rates) == (1 if fixture == "options" else 2)
    assert any("was saved: val:metrics:swd:type: ~ -> calculate_swd" in line for line in message)
    options["manual_seed"] += 1
    with pytest.raises(
        OptionError, match=r"ended at iteration 4 with other options: manual_seed: \d+ -> \d+ .*another name"
    ):
        train(options, tmp_path, "--auto_resume")
