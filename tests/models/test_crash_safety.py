"""A training that was killed, ran into a full disk or met numbers that are not finite ends as one that did not."""

import errno
import os
import random
import re
import resource
import signal
import tarfile
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.losses import gan_loss
from basicsr.utils import misc
from helpers.forks import fork, wait
from models.test_gpen_model import assert_same

from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.errors import CheckpointError, TrainingError
from gpen_plugin.models.adversarial_model import AdversarialModel


class Fate:
    """Counts the events of a training that matter to what lies on the disk, and kills the process at one of them.

    Args:
        diary: file to which the name of the fatal event is added.
        number: of the fatal event, from 1.
        name: if given, only events of this name count.
    """

    def __init__(self, diary: Path, number: int, name: str | None = None):
        self.diary, self.left, self.name = diary, number, name

    def event(self, name: str) -> None:
        self.left -= self.name in (None, name)
        if self.left == 0:
            with self.diary.open("a") as stream:
                stream.write(f"{name}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner: object, name: str) -> None:
        """Have each call of ``owner.name`` counted, before it and after it."""
        original = getattr(owner, name)

        def watched(*args, **kwargs):
            self.event(f"before {name}")
            result = original(*args, **kwargs)
            self.event(f"after {name}")
            return result

        setattr(owner, name, watched)

    def rule(self) -> None:
        """Watch everything; for a process that will not come back."""
        checkpoint.open = lambda path, mode: HalfWritten(path, mode, self)
        for name in ("fsync", "replace", "unlink"):
            self.watch(os, name)
        self.watch(torch.optim.Adam, "step")
        self.watch(AdversarialModel, "nondist_validation")


class HalfWritten:
    """A file in the midst of which the process may be killed."""

    def __init__(self, path: Path, mode: str, fate: Fate):
        self.stream = open(path, mode)  # noqa: SIM115 - closed by `__exit__`
        self.fate, self.writes = fate, 0

    def __enter__(self):
        self.fate.event("after open")
        return self

    def __exit__(self, *error):
        self.stream.close()

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, content):
        self.writes += 1
        if self.writes == 20:  # of some hundreds
            self.stream.flush()
            self.fate.event("within a file")
        return self.stream.write(content)


def left_by(folder: Path) -> dict[str, object]:
    """All that a training leaves to those that come after it, by file."""
    paths = [*folder.glob("models/*"), *folder.glob("models/.*"), *folder.glob("training_states/*")]
    pages = {path.name: path.read_bytes() for path in folder.glob("visualization/*")}
    return {path.name: torch.load(path, weights_only=True) for path in paths} | pages


@pytest.fixture(scope="module")
def runs() -> dict[str, dict]:
    """What unstopped trainings left, by their options."""
    return {}


@pytest.fixture
def unstopped(runs, train, tmp_path):
    """Trains without a stop, once for the same options; returns what is left."""

    def whole(options: dict) -> dict[str, object]:
        if repr(options) not in runs:
            runs[repr(options)] = left_by(train(options, tmp_path / "unstopped"))
        return deepcopy(runs[repr(options)])

    return whole


@pytest.fixture(params=["options", "prior_options"])
def each(request) -> dict:
    """Options of either model: a checkpoint and a validation at every second iteration."""
    options = request.getfixturevalue(request.param)
    options["logger"]["use_tb_logger"] = False
    if "augment_opt" in options["train"]:  # what is saved is between two adjustments, and after one that acted
        options["train"]["augment_opt"] |= {"p": 0.5, "every": 3}
    return options


@pytest.fixture
def without_validation(prior_options) -> dict:
    """Options of a prior: a checkpoint at every second iteration. 4.state holds signs that are older than 2.state."""
    prior_options["logger"]["use_tb_logger"] = False
    prior_options["train"]["augment_opt"]["every"] = prior_options["train"]["total_iter"] = 5
    prior_options["val"] = None
    return prior_options


@pytest.fixture(autouse=True)
def steps_draw_from_global_generators(monkeypatch):
    """As code of the host's or a user's may do; ours does not, so nothing else would tell a wrong state of theirs."""
    original = torch.optim.Adam.step

    def step(self, *args):
        torch.rand(1), np.random.rand(), random.random()
        return original(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", step)


@pytest.mark.parametrize("each", ["prior_options"], indirect=True)
def test_killed_again_and_again_ends_as_never_stopped(each, unstopped, train, tmp_path):
    """Within an epoch of four iterations and at its end; only the newest checkpoint is kept."""
    each["logger"]["keep_last"], each["val"]["val_freq"] = 1, 3
    whole, message, diary = unstopped(each), tmp_path / "message", tmp_path / "diary"
    code, number = None, 3
    while code != 0:

        def doomed(number=number):
            Fate(diary, number).rule()
            misc.get_time_str = lambda: str(number)  # two archived folders of one second would have one name
            train(each, tmp_path / "killed", "--auto_resume")

        code = wait(fork(doomed, message))
        assert code in (0, -signal.SIGKILL), message.read_text()
        number += 12
    killed = tmp_path / "killed" / "experiments" / each["name"]
    assert_same(whole, left_by(killed))
    assert len(whole) == 7  # a checkpoint has three files, the last networks two, and there are two pages
    assert len(diary.read_text().splitlines()) >= 4


def test_training_on_weighted_tars_continues_exactly(options, train, faces, tmp_path):
    roots = []
    for name, weight, images in (("a.tar", 3, sorted(faces.glob("*.png"))[:2]), ("b.tar", 1, faces.glob("*.png"))):
        with tarfile.open(tmp_path / name, "w") as tar:
            for path in images:
                tar.add(path, path.name)
        roots.append({"path": str(tmp_path / name), "weight": weight})
    options["datasets"]["train"] |= {"dataroot_gt": roots, "io_backend": {"type": "tar"}}
    options["logger"]["use_tb_logger"] = False
    options["val"] = None
    whole = left_by(train(options, tmp_path / "whole"))
    options["train"]["total_iter"] = 3
    train(options, tmp_path / "stopped")
    options["train"]["total_iter"] = 4
    resumed = left_by(train(options, tmp_path / "stopped", "--auto_resume"))
    assert_same(whole["net_g_latest.pth"], resumed["net_g_latest.pth"])
    assert_same(whole["net_d_latest.pth"], resumed["net_d_latest.pth"])


@pytest.mark.parametrize(
    ("event", "number"),
    [
        ("within a file", 4),  # of net_g_4; the first three are of iteration 2
        ("after replace", 5),
        ("before replace", 6),  # of 4.state
        ("after replace", 6),
    ],
)
def test_killed_inside_a_save(without_validation, event, number, unstopped, train, tmp_path):
    whole, diary = unstopped(without_validation), tmp_path / "diary"

    def doomed():
        Fate(diary, number, event).rule()
        train(without_validation, tmp_path / "killed")

    assert wait(fork(doomed, tmp_path / "message")) == -signal.SIGKILL
    assert diary.read_text() == f"{event}\n"
    states = {path.name for path in tmp_path.glob("killed/*/*/*/*.state")}
    assert len(states) == (2 if (event, number) == ("after replace", 6) else 1)
    assert_same(whole, left_by(train(without_validation, tmp_path / "killed", "--auto_resume")))


@pytest.mark.parametrize("each", ["prior_options"], indirect=True)
def test_killed_in_the_last_validation_it_is_made_up_for(each, unstopped, train, tmp_path):
    def doomed():
        Fate(tmp_path / "diary", 2, "before nondist_validation").rule()
        train(each, tmp_path / "killed")

    assert wait(fork(doomed, tmp_path / "message")) == -signal.SIGKILL
    assert_same(unstopped(each), left_by(train(each, tmp_path / "killed", "--auto_resume")))


@pytest.mark.parametrize("each", ["options"], indirect=True)
def test_killed_in_a_validation_only_its_best_result_is_lost(each, unstopped, train, tmp_path):
    """Where a checkpoint and a validation fall together, the checkpoint comes first: it must not be lost too."""
    whole = unstopped(each)
    del whole["grid_val_2.png"]  # the page is lost with the result

    def doomed():
        Fate(tmp_path / "diary", 1, "before nondist_validation").rule()
        train(each, tmp_path / "killed")

    assert wait(fork(doomed, tmp_path / "message")) == -signal.SIGKILL
    killed = left_by(train(each, tmp_path / "killed", "--auto_resume"))
    best = [run[state].pop("best_metric_results") for run in (whole, killed) for state in ("2.state", "4.state")]
    assert_same(whole, killed)
    assert best[2] == {}
    assert [metric["iter"] for metric in best[3]["val"].values()] == [4]


@pytest.mark.parametrize(("how", "file"), [("full", "net_g_4.pth"), ("limit", "net_d_4.pth"), ("full", "4.state")])
def test_a_full_disk_names_the_file_and_costs_nothing_else(without_validation, how, file, unstopped, train, tmp_path):
    whole = unstopped(without_validation)

    class Full(HalfWritten):
        def write(self, content):
            if f".{file}." in self.name and self.tell() > 2000:
                if how == "full":
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
            return self.stream.write(content)

    def doomed():
        checkpoint.open = lambda path, mode: Full(path, mode, Fate(tmp_path / "diary", 0))
        train(without_validation, tmp_path / "full")

    assert wait(fork(doomed, tmp_path / "message")) == 1
    message = (tmp_path / "message").read_text().splitlines()[-1]
    assert message.startswith(f"{CheckpointError.__module__}.CheckpointError: {tmp_path}")
    reason = os.strerror(errno.ENOSPC if how == "full" else errno.EFBIG)
    assert re.search(rf"/{file}: could not be written \(\[Errno \d+\] {reason}\)", message)
    left = left_by(
        tmp_path / "full" / "experiments" / without_validation["name"]
    )  # unfinished files would be among them
    order = ["net_g_2.pth", "net_d_2.pth", "2.state", "net_g_4.pth", "net_d_4.pth", "4.state"]
    assert left.keys() == {*order[: order.index(file)]}
    assert_same({name: whole[name] for name in left}, left)  # resuming from these files: see above


@pytest.fixture
def generator_loss_is_nan(monkeypatch):
    """Have the adversarial loss of G be nan at these of its steps, counted from 1; the check before a run is none."""

    def at(*calls: int) -> None:
        original, count = gan_loss.GANLoss.forward, iter(range(1, 1000))

        def forward(self, logits, target_is_real, is_disc=False):
            loss = original(self, logits, target_is_real, is_disc)
            step_of_g = not is_disc and not logits.is_leaf
            return loss * float("nan") if step_of_g and next(count) in calls else loss

        monkeypatch.setattr(gan_loss.GANLoss, "forward", forward)

    return at


def test_steps_that_are_not_finite_are_left_out_and_counted(each, train, generator_loss_is_nan):
    each["logger"]["save_checkpoint_freq"] = 1
    each["val"] = None
    each["train"] |= {"total_iter": 6, "nonfinite_patience": 3}
    if "optim_g" in each["train"]:
        each["train"]["path_reg_weight"] = 0
    generator_loss_is_nan(2, 4, 5)
    folder = train(each)
    log = next(folder.glob("train_*.log")).read_text()
    counts = [line.rpartition("nonfinite_steps: ")[2].split()[0] for line in log.splitlines() if "nonfinite_s" in line]
    assert [float(count) for count in counts] == [1, 1, 2, 3, 3]  # from the second iteration to the sixth
    left = left_by(folder)
    networks = [left[f"net_g_{iteration}.pth"]["params"] for iteration in range(1, 7)]
    moved = [any(not torch.equal(a[key], b[key]) for key in a) for a, b in pairwise(networks)]
    assert moved == [False, True, False, False, True]
    entries = [*left["net_g_6.pth"].values(), *left["net_d_6.pth"].values()]
    assert all(tensor.isfinite().all() for entry in entries for tensor in entry.values())


@pytest.mark.parametrize("each", ["options"], indirect=True)
def test_too_many_in_a_row_end_the_training_whose_last_state_is_good(
    each, unstopped, train, tmp_path, generator_loss_is_nan
):
    each["train"]["nonfinite_patience"] = 2
    generator_loss_is_nan(1)  # a step that was left out long ago is not forgotten
    whole = unstopped(each)
    assert whole["4.state"]["guard"]["skipped"] == 1
    generator_loss_is_nan(1, 3, 4)
    with pytest.raises(TrainingError, match=r"2 steps in a row were not finite; l_g_gan \(nan\) was the first"):
        train(each, tmp_path / "broken")
    assert [path.name for path in (tmp_path / "broken").rglob("*.state")] == ["2.state"]
    generator_loss_is_nan()
    assert_same(whole, left_by(train(each, tmp_path / "broken", "--auto_resume")))
