"""A resumed training goes on as its option file says by now."""

import copy

import pytest
import torch
from basicsr.models import lr_scheduler

from gpen_plugin.errors import CheckpointError
from gpen_plugin.models.changed_options import settings_of, take_from_file
from gpen_plugin.models.training_state import best_so_far, check


def adam(lr: float = 0.1, betas: tuple = (0.0, 0.9), **schedule):
    group = {"name": "encoder", "params": [torch.nn.Parameter(torch.ones(1))], "lr": lr}
    optimizer = torch.optim.Adam([group], betas=betas)
    return optimizer, lr_scheduler.MultiStepRestartLR(optimizer, **{"milestones": [2, 9], "gamma": 0.5, **schedule})


def resumed(state, optimizer, scheduler):
    settings = settings_of([optimizer], [scheduler])
    optimizer.load_state_dict(copy.deepcopy(state[0]))
    scheduler.load_state_dict(copy.deepcopy(state[1]))
    take_from_file(settings, [optimizer], [scheduler])
    return optimizer.param_groups[0]


@pytest.fixture
def state():
    """After four steps: the rate was halved at the second."""
    optimizer, scheduler = adam()
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    return optimizer.state_dict(), scheduler.state_dict()


def test_an_unchanged_file_changes_nothing(state):
    optimizer, scheduler = adam()
    resumed(state, optimizer, scheduler)
    assert optimizer.state_dict()["param_groups"] == state[0]["param_groups"]
    assert scheduler.state_dict() == state[1]


def test_a_changed_rate_scales_the_present_one_and_the_schedule_goes_on(state):
    optimizer, scheduler = adam(lr=0.02)
    group = resumed(state, optimizer, scheduler)
    assert group["lr"] == pytest.approx(0.01)
    assert group["initial_lr"] == 0.02
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert group["lr"] == pytest.approx(0.005)  # the ninth step is a milestone


def test_changed_betas_and_milestones_are_taken(state):
    optimizer, scheduler = adam(betas=(0.5, 0.99), milestones=[2, 6], gamma=0.1)
    group = resumed(state, optimizer, scheduler)
    assert group["betas"] == (0.5, 0.99)
    assert group["lr"] == pytest.approx(0.05)  # what was, stays
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert group["lr"] == pytest.approx(0.005)


def test_best_results_follow_the_metrics_of_the_file():
    held = {
        "val": {"psnr": {"better": "higher", "val": 20.0, "iter": 3}, "swd": {"better": "lower", "val": 9, "iter": 1}}
    }
    best = best_so_far(held, {"psnr": {"type": "x"}, "ssim": {"type": "x"}, "swd": {"better": "higher"}})
    assert best == {
        "val": {
            "psnr": {"better": "higher", "val": 20.0, "iter": 3},
            "ssim": {"better": "higher", "val": float("-inf"), "iter": -1},
            "swd": {"better": "higher", "val": float("-inf"), "iter": -1},
        }
    }


def test_a_state_of_another_model_is_told():
    with pytest.raises(CheckpointError, match=r"path:resume_state: 5\.state: has no guard, random, sampler; expected"):
        check({"optimizers": [], "schedulers": [], "best_metric_results": {}}, "5.state", {"guard": {}})


@pytest.mark.parametrize("fixture", ["options", "prior_options"])
def test_a_training_resumed_with_another_rate_and_metric(fixture, request, train, tmp_path):
    options = request.getfixturevalue(fixture)
    options["train"]["total_iter"] = 3
    options["val"]["metrics"] = None
    train(options)
    options["train"]["total_iter"] = 6
    options["val"]["metrics"] = {"swd": {"type": "calculate_swd", "better": "lower"}}
    for name in ("optim", "optim_g", "optim_d"):
        if name in options["train"]:
            options["train"][name]["lr"] = 0.0002
    folder = train(options, tmp_path, "--auto_resume")
    state = torch.load(folder / "training_states/6.state", weights_only=True)
    first, last = (state["optimizers"][0]["param_groups"][0][key] for key in ("initial_lr", "lr"))
    assert first <= 0.0002
    assert last <= first
    assert state["best_metric_results"]["val"]["swd"]["iter"] == 6
    log = max(folder.glob("train_*.log"), key=lambda path: path.stat().st_mtime).read_text()
    assert "The option file was changed since the state was saved: initial_lr of" in log
