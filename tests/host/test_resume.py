"""Which training state a run goes on from, and how far it goes."""

import logging
import sys
import types

import basicsr.train
import pytest
import torch

from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.host import data_cursor, resume, state_to_resume
from gpen_plugin.host.resume import patch_script


@pytest.fixture
def experiment(tmp_path):
    """Checkpoints 900, 1000 and 1100 of which the last lacks its discriminator, and other files."""
    for folder, names in {
        "training_states": ("900.state", "1000.state", "1100.state", "latest.state", "net.pth"),
        "models": ("net_g_900.pth", "net_d_900.pth", "net_g_1000.pth", "net_d_1000.pth", "net_g_1100.pth"),
    }.items():
        (tmp_path / folder).mkdir()
        for name in names:
            torch.save({"iter": 5}, tmp_path / folder / name)
    return tmp_path


def parsed(experiment, **more) -> dict:
    path = {"training_states": str(experiment / "training_states"), "models": str(experiment / "models")}
    networks = {"network_g": {}, "network_d": {"a": 1}}
    given = {"model_type": "GPENModel", "path": path, "train": {"total_iter": 9}}
    return {"auto_resume": True, "rank": 0, "num_gpu": 0, **networks, **given} | more


def test_newest_state_is_found_where_the_experiment_lies(experiment, tmp_path):
    states = experiment / "training_states"
    assert state_to_resume(parsed(experiment, network_g={"a": 1})) == str(states / "1000.state")
    assert state_to_resume(parsed(experiment, network_d=None, network_g={"a": 1})) == str(states / "1100.state")
    assert state_to_resume(parsed(tmp_path / "nowhere")) is None


@pytest.mark.parametrize("name", ["training_states/1000.state", "models/net_d_1000.pth"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_truncated_state_is_skipped_with_a_warning(experiment, caplog, monkeypatch, name, share):
    path = experiment / name
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    opt = parsed(experiment)
    assert state_to_resume(opt) == str(experiment / "training_states/900.state")
    monkeypatch.setattr(logging.getLogger("basicsr"), "handlers", [caplog.handler])
    monkeypatch.setattr(logging.getLogger("basicsr"), "propagate", False)
    resume._warn_of_incomplete_states(opt, state_to_resume(opt))
    (about_1100, about_1000) = caplog.messages
    assert "net_d_1100.pth missing or cut short" in about_1100
    assert f"{path} missing or cut short" in about_1000


def test_where_no_state_is_whole_the_run_does_not_begin_anew(experiment):
    for path in (experiment / "models").glob("net_g_*.pth"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"--auto_resume: .*of 3 states none is complete: .*net_g_1100\.pth"):
        state_to_resume(parsed(experiment, network_g={"a": 1}))


def test_a_state_that_is_not_there(experiment):
    opt = parsed(experiment, auto_resume=False)
    opt["path"]["resume_state"] = "nosuch.state"
    with pytest.raises(CheckpointError, match=r"path:resume_state: nosuch\.state is not there"):
        basicsr.train.load_resume_state(opt)


def test_run_past_its_end_is_an_error(experiment):
    opt = parsed(experiment, train={"total_iter": 4})
    with pytest.raises(OptionError, match=r"train:total_iter: got 4, and .*1000\.state is of iteration 5; .* Raise it"):
        basicsr.train.load_resume_state(opt)


def test_a_state_that_cannot_be_read_says_the_way_out(experiment):
    path = experiment / "broken.state"
    path.write_bytes(b"broken")
    opt = parsed(experiment, auto_resume=False)
    opt["path"]["resume_state"] = str(path)
    with pytest.raises(
        CheckpointError, match=r"path:resume_state: .*broken\.state: cannot be read .* the previous one"
    ):
        basicsr.train.load_resume_state(opt)


def test_moved_experiment_is_an_error_before_anything_is_written(experiment, tmp_path):
    opt = parsed(experiment, auto_resume=False)
    opt["path"] |= {"resume_state": str(experiment / "training_states/900.state"), "models": str(tmp_path / "new")}
    with pytest.raises(CheckpointError, match=r"900\.state: .*new/net_d_5\.pth is not there; .*folder"):
        basicsr.train.load_resume_state(opt)


def test_ranks_that_find_different_states_stop(monkeypatch):
    def gather(into, value, group):
        into[:] = [value, None]

    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda group: 2)
    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    assert resume._check_same_on_all_ranks(None) is None
    with pytest.raises(CheckpointError, match=r"the ranks found /a/5\.state and None; .* shared disk"):
        resume._check_same_on_all_ranks("/a/5.state")


@pytest.mark.parametrize(
    ("epoch", "iteration", "length", "last"),
    [(0, 0, 4, 3), (0, 0, 5, 2), (5, 7, 2, 7), (2, 8, 100, 3), (3, 10, 4, 3)],
    ids=["anew", "whole epochs", "resumed", "larger epochs", "at the end"],
)
def test_epochs_suffice_for_the_last_iteration(monkeypatch, epoch, iteration, length, last):
    monkeypatch.setattr(data_cursor, "_cursor", data_cursor.DataCursor(resumed=(epoch, 0, iteration)))
    create = resume._count_remaining_epochs(lambda opt, logger: (range(length), "sampler", [], -1, 10))
    assert create({"model_type": "GPENModel"}, None) == (range(length), "sampler", [], last, 10)


def test_training_script_is_patched_once(monkeypatch):
    """`python basicsr/train.py` is the module `__main__`."""
    original = basicsr.train.load_resume_state.__gpen_original__
    script = types.SimpleNamespace(
        train_pipeline=print, load_resume_state=original, create_train_val_dataloader=lambda opt, logger: None
    )
    monkeypatch.setitem(sys.modules, "__main__", script)
    patch_script()
    first = vars(script).copy()
    assert first["load_resume_state"].__gpen_original__ is original
    assert hasattr(first["create_train_val_dataloader"], "__gpen_original__")
    patch_script()
    assert vars(script) == first
