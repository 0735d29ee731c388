"""The files of a training: what they remember, which are kept, and what a killed process leaves."""

import logging
import os
import random
import shutil

import numpy as np
import pytest
import torch

from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.data.gpen_face_dataset import GPENFaceDataset
from gpen_plugin.models import train_state
from gpen_plugin.models.train_state import prune_checkpoints, rng_state, set_rng_state


def drawn() -> list:
    """Of each generator, uniform and normal numbers: the latter keep half a pair back."""
    return [
        torch.rand(3).tolist(),
        torch.randn(3).tolist(),
        np.random.rand(3).tolist(),
        np.random.randn(3).tolist(),
        [random.random() for _ in range(3)],
        [random.gauss(0, 1) for _ in range(3)],
    ]


def test_random_state_survives_a_safe_file(tmp_path):
    drawn()
    checkpoint.write(tmp_path / "5.state", {"random": [rng_state()]})
    expected = drawn(), drawn()
    assert expected[0] != expected[1]
    state = torch.load(tmp_path / "5.state", weights_only=True)["random"][0]
    set_rng_state(state)
    assert (drawn(), drawn()) == expected


def test_what_is_drawn_in_between_changes_nothing_even_if_it_fails():
    def fail():
        drawn()
        raise RuntimeError("on purpose")

    before = rng_state()
    expected = drawn()
    set_rng_state(before)
    with pytest.raises(RuntimeError, match="on purpose"), train_state.preserve_rng_state():
        fail()
    assert drawn() == expected


def test_a_state_of_a_gpu_is_skipped_files_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    set_rng_state(rng_state() | {"cuda": torch.zeros(16, dtype=torch.uint8)})


def test_plain_values_are_read_by_a_safe_loader(tmp_path):
    held = {"val": {"psnr": {"better": "higher", "val": np.float64(2.5), "iter": 3}}}
    torch.save(train_state.to_builtin(held), tmp_path / "x")
    assert torch.load(tmp_path / "x", weights_only=True) == held


@pytest.fixture
def folders(tmp_path):
    """A training with checkpoints 9 (so that 10 is not before it), 10, 20, 30 and what else may lie there."""
    folders = {name: str(tmp_path / name) for name in ("models", "training_states")}
    for folder in folders.values():
        os.mkdir(folder)
    for number in (9, 10, 20, 30):
        train_state.write_state(folders, {"iter": number})
    for name in ("latest", 9, 10, 20, 30):
        for net in "gd":
            (tmp_path / f"models/net_{net}_{name}.pth").touch()
    (tmp_path / "models/net_g_my_best_9.pth").touch()
    return folders


def listed(folders) -> set[str]:
    return {name for folder in folders.values() for name in os.listdir(folder)}


def files(*numbers: int, plus: tuple = ()) -> set[str]:
    states = {f"{number}.state" for number in numbers}
    networks = {f"net_{net}_{name}.pth" for net in "gd" for name in ("latest", *numbers, *plus)}
    return states | networks | {"net_g_my_best_9.pth"}


@pytest.mark.parametrize(
    ("iteration", "keep_last", "left"),
    [
        (30, 1, (30,)),
        (30, 2, (20, 30)),
        (30, 4, (9, 10, 20, 30)),
        (30, 5, (9, 10, 20, 30)),
        (30, None, (9, 10, 20, 30)),
        (10, 1, (10, 20, 30)),  # resumed from 10: what another course left beyond neither counts nor goes
    ],
)
def test_the_newest_are_kept(folders, iteration, keep_last, left):
    prune_checkpoints(folders, iteration, keep_last)
    assert listed(folders) == files(*left)


def test_networks_whose_state_is_gone_already_go_too(folders):
    """The process was killed between the two."""
    train_state.delete_checkpoint(folders, 9)
    prune_checkpoints(folders, 30, 3)
    assert listed(folders) == files(10, 20, 30)


def test_networks_without_states_stay_below_keep_last(folders):
    for number in (9, 10):
        train_state.delete_checkpoint(folders, number)
    prune_checkpoints(folders, 30, 3)
    assert listed(folders) == files(20, 30, plus=(9, 10))


def test_at_no_moment_a_state_lacks_its_networks(folders, monkeypatch):
    original, moments = os.unlink, []

    def watched(path, *args, **kwargs):
        original(path, *args, **kwargs)
        lying = listed(folders)
        states = [name.removesuffix(".state") for name in lying if name.endswith(".state")]
        moments.append(all(f"net_{net}_{number}.pth" in lying for number in states for net in "gd"))

    monkeypatch.setattr(os, "unlink", watched)
    prune_checkpoints(folders, 30, 1)
    assert moments == [True] * 9  # three states and their six networks


def test_taking_over_clears_up_and_warns_of_another_course(folders, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("basicsr"), "handlers", [caplog.handler])
    unfinished = [os.path.join(folder, ".net.123.tmp") for folder in folders.values()]
    for path in unfinished:
        open(path, "w").close()
    train_state.finish_interrupted_save(folders, 10, None)
    assert listed(folders) == files(9, 10, 20, 30)
    (message,) = caplog.messages
    assert "Resuming from iteration 10, but there are states of 20, 30" in message
    train_state.finish_interrupted_save(folders, 30, None)
    assert len(caplog.messages) == 1


def test_a_training_keeps_the_last_two_and_resumes(options, train, tmp_path):
    options["logger"] |= {"use_tb_logger": False, "save_checkpoint_freq": 1, "keep_last": 2}
    options["val"] = None
    folder = train(options)
    assert {path.name for path in (folder / "training_states").iterdir()} == {"3.state", "4.state"}
    networks = {f"net_{net}_{name}.pth" for net in "gd" for name in (3, 4, "latest")}
    assert {path.name for path in (folder / "models").iterdir()} == networks
    shutil.rmtree(folder / "visualization")
    options["train"]["total_iter"] = 5
    train(options, tmp_path, "--auto_resume")
    assert {path.name for path in (folder / "training_states").iterdir()} == {"4.state", "5.state"}


def test_the_old_state_goes_before_its_networks_are_replaced(options, train, tmp_path, monkeypatch):
    """Resumed from an earlier state, a training comes by the checkpoints of its former course."""
    options["logger"]["use_tb_logger"] = False
    options["val"] = None
    folder = train(options)
    options["path"]["resume_state"] = str(folder / "training_states/2.state")
    seen = []
    original = checkpoint.write
    monkeypatch.setattr(
        checkpoint,
        "write",
        lambda path, content, *more, **how: (
            seen.append((os.path.basename(path), (folder / "training_states/4.state").exists())),
            original(path, content, *more, **how),
        ),
    )
    train(options, tmp_path)
    assert seen[:3] == [("net_g_4.pth", False), ("net_d_4.pth", False), ("4.state", False)]


def test_smaller_batches_resume_at_the_right_image(prior_options, train, tmp_path, monkeypatch):
    """Eight images, five batches of four: half of the third epoch is used. The host would end where it is."""
    prior_options["logger"] |= {"use_tb_logger": False, "save_checkpoint_freq": 5}
    prior_options["datasets"]["train"]["batch_size_per_gpu"] = 4
    prior_options["train"] |= {"total_iter": 5, "r1_reg_weight": 0, "path_reg_weight": 0, "augment_opt": None}
    prior_options["val"] = None
    train(prior_options)
    seen = []
    original = GPENFaceDataset.__getitem__
    monkeypatch.setattr(
        GPENFaceDataset, "__getitem__", lambda self, i: (seen.append((i.epoch, i.position)), original(self, i))[1]
    )
    prior_options["datasets"]["train"]["batch_size_per_gpu"] = 1
    prior_options["train"]["total_iter"] = 15
    folder = train(prior_options, tmp_path, "--auto_resume")
    assert seen[:10] == [(2, place) for place in range(4, 8)] + [(3, place) for place in range(6)]
    state = torch.load(folder / "training_states/15.state", weights_only=True)
    assert state["sampler"] == {"epoch": 3, "images": 6}


def test_a_state_of_another_number_of_ranks_warns_and_goes_on(prior_options, train, tmp_path):
    prior_options["logger"]["use_tb_logger"] = False
    prior_options["val"] = None
    whole = train(prior_options)
    for path in [*whole.glob("*/*_4.pth"), whole / "training_states/4.state", *whole.glob("train_*.log")]:
        path.unlink()
    path = whole / "training_states/2.state"
    state = torch.load(path, weights_only=True)
    checkpoint.write(path, state | {"random": state["random"] * 2})
    folder = train(prior_options, tmp_path, "--auto_resume")
    assert "The state is of 2 ranks, and there are 1" in next(folder.glob("train_*.log")).read_text()
    assert (folder / "training_states/4.state").exists()
