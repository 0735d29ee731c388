"""Two runs of one name at the same time: the second is refused before it renames or writes anything."""

import errno
import gc
import logging
import os
import signal
import sys
from collections import OrderedDict
from contextlib import nullcontext, suppress
from pathlib import Path

import basicsr.test
import pytest

from gpen_plugin import registration
from gpen_plugin.errors import OptionError
from gpen_plugin.host import claim_run, run_hooks


class Options(OrderedDict):
    """As the host's parser gives them here; a plain dict could not be watched."""


def parsed(folder: Path, name: str = "small", is_train: bool = True) -> Options:
    kind = "experiments" if is_train else "results"
    return Options(name=name, rank=0, is_train=is_train, path={f"{kind}_root": str(folder / kind / name)})


@pytest.fixture
def elsewhere():
    """Starts a process that claims a run and stays; returns its number."""
    children = []

    def start(opt: Options) -> int:
        ready, done = os.pipe()
        child = os.fork()
        if child == 0:
            claim_run(opt)
            os.write(done, b"1")
            signal.pause()
            os._exit(0)
        children.append(child)
        assert os.read(ready, 1) == b"1"
        os.close(ready)
        os.close(done)
        return child

    yield start
    for child in children:
        end(child)


def end(child: int) -> None:
    with suppress(ProcessLookupError, ChildProcessError):  # it has ended before
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("is_train", [True, False], ids=["training", "test"])
def test_the_second_run_of_a_name_is_refused_until_the_first_has_died(tmp_path, elsewhere, is_train):
    child = elsewhere(parsed(tmp_path, is_train=is_train))
    with pytest.raises(
        OptionError, match=rf"name: got 'small'.*in use by process {child} on .* since 20.*change the name"
    ):
        claim_run(parsed(tmp_path, is_train=is_train))
    for other in (parsed(tmp_path, "other", is_train), parsed(tmp_path / "x", is_train=is_train)):
        claim_run(other)
    claim_run(parsed(tmp_path, is_train=not is_train))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    claim_run(parsed(tmp_path, is_train=is_train))


def test_a_child_of_the_first_that_outlives_it_does_not_hold_the_name(tmp_path):
    """A loader worker, say, for the seconds until it notices that its parent was killed."""
    ready, done = os.pipe()
    first = os.fork()
    if first == 0:
        opt = parsed(tmp_path)
        claim_run(opt)
        worker = os.fork()
        if worker:
            os.write(done, str(worker).encode())
        signal.pause()
    worker = int(os.read(ready, 20))
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    claim_run(parsed(tmp_path))
    os.kill(worker, signal.SIGKILL)


def test_finished_run_releases_its_name_in_a_living_process(tmp_path, elsewhere):
    opt = parsed(tmp_path)
    claim_run(opt)
    del opt
    gc.collect()
    elsewhere(parsed(tmp_path))  # would have died


def test_a_file_system_without_locks_is_reported_and_does_not_stop_the_run(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_hooks.fcntl, "lockf", fail)
    monkeypatch.setattr(logging.getLogger("basicsr"), "handlers", [caplog.handler])
    claim_run(parsed(tmp_path))
    assert ".small.lock cannot be locked (No locks available): a second run" in caplog.messages[0]


def test_a_training_is_refused_before_the_first_is_renamed(options, train, tmp_path, elsewhere):
    child = elsewhere(parsed(tmp_path))
    folder = tmp_path / "experiments/small"
    folder.mkdir()
    for arguments in ([], ["--auto_resume"]):
        with pytest.raises(OptionError, match=f"name: got 'small'.*in use by process {child}"):
            train(options, tmp_path, *arguments)
    assert [path.name for path in folder.parent.iterdir() if path.name[0] != "."] == ["small"]
    assert not list(folder.iterdir())


def test_a_test_is_refused_before_the_first_is_renamed(test_options, tmp_path, elsewhere, monkeypatch, write_options):
    opt = parsed(tmp_path, "small_test", is_train=False)
    child = elsewhere(opt)
    Path(opt["path"]["results_root"]).mkdir()
    monkeypatch.setattr(sys, "argv", ["test.py", "-opt", str(write_options(test_options))])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(OptionError, match=f"name: got 'small_test'.*in use by process {child}"):
        basicsr.test.test_pipeline(str(tmp_path))
    assert not list((tmp_path / "results").glob("*archived*"))


@pytest.mark.parametrize(("model_type", "locks"), [("SRModel", False), ("NoSuchModel", False), ("GPENModel", True)])
def test_a_run_of_the_hosts_own_models_is_not_locked(tmp_path, elsewhere, model_type, locks):
    opt = parsed(tmp_path)
    elsewhere(opt)
    opt["model_type"] = model_type
    with pytest.raises(OptionError, match="name: got 'small'") if locks else nullcontext():
        registration._claim_run(opt)
