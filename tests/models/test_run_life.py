"""How a training ends and what it keeps: signals, the best checkpoints, profile, memory, deterministic operations."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from basicsr.models import build_model
from helpers import REPOSITORY
from models.test_crash_safety import left_by
from models.test_gpen_model import assert_same, ready
from models.test_train_state import files, folders, listed  # noqa: F401 - a fixture
from test_preflight import parsed

from gpen_plugin.errors import GPENError
from gpen_plugin.host import stop_signals
from gpen_plugin.models import train_state
from gpen_plugin.models.adversarial_model import AdversarialModel
from gpen_plugin.models.monitors import peak_memory
from gpen_plugin.preflight import check_run


@pytest.fixture
def send(monkeypatch):
    """Sends a signal to this process in the step of an iteration."""

    def at(iteration: int, number: int) -> None:
        original = AdversarialModel.end_of_iteration

        def end_of_iteration(self, losses, current_iter):
            if current_iter == iteration:
                os.kill(os.getpid(), number)
            original(self, losses, current_iter)

        monkeypatch.setattr(AdversarialModel, "end_of_iteration", end_of_iteration)

    yield at
    stop_signals.unwatch_signals()


@pytest.mark.parametrize(
    ("fixture", "number", "iteration", "workers"),
    [("options", signal.SIGTERM, 2, 1), ("options", signal.SIGUSR1, 4, 0), ("prior_options", signal.SIGUSR1, 3, 0)],
)
def test_a_stopped_training_resumes_exactly(fixture, number, iteration, workers, request, train, tmp_path, send):
    """Within an epoch, at its end (of four iterations) and where a checkpoint and a validation are due."""
    options = request.getfixturevalue(fixture)
    options["logger"] |= {"use_tb_logger": False, "keep_last": 1}
    options["train"]["total_iter"] = 5
    options["datasets"]["train"]["num_worker_per_gpu"] = workers
    whole = train(options, tmp_path / "whole")
    assert signal.getsignal(number) is signal.SIG_DFL
    send(iteration, number)
    with pytest.raises(SystemExit) as stopped:
        train(options, tmp_path / "stopped")
    assert stopped.value.code == 75
    folder = tmp_path / "stopped/experiments" / options["name"]
    assert [path.name for path in folder.glob("training_states/*")] == [f"{iteration}.state"]
    log = next(folder.glob("train_*.log")).read_text()
    assert f"Stopped by {signal.Signals(number).name}. The state of iteration {iteration} is saved." in log
    assert_same(left_by(whole), left_by(train(options, tmp_path / "stopped", "--auto_resume")))


def test_a_signal_to_all_processes_spares_the_workers(options, write_options, tmp_path):
    """As a queue sends it: to the training and its loader's workers, in a process group of their own."""
    options["datasets"]["train"] |= {"num_worker_per_gpu": 2, "dataset_enlarge_ratio": 1000}
    options["train"]["total_iter"], options["val"], options["logger"]["use_tb_logger"] = 2000, None, False
    options["logger"]["save_checkpoint_freq"] = 2000
    command = [sys.executable, "-m", "gpen_plugin.train", "-opt", str(write_options(options))]
    output = tmp_path / "output"
    with output.open("w") as stream:
        run = subprocess.Popen(command, cwd=tmp_path, stdout=stream, stderr=stream, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while "iter:       3" not in output.read_text():
            assert run.poll() is None, output.read_text()[-3000:]
            assert time.monotonic() < until, output.read_text()[-3000:]
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGTERM)
        assert run.wait(120) == 75, output.read_text()[-3000:]
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
    assert len([*tmp_path.glob("experiments/small/training_states/*.state")]) == 1
    assert "Stopped by SIGTERM" in output.read_text()


def test_handlers_of_others_stay(monkeypatch):
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        own = signal.getsignal(signal.SIGUSR1)
        assert stop_signals.watch_signals()
        assert signal.getsignal(signal.SIGUSR1) is own
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop_signals.stop_signal() == "SIGTERM"
        stop_signals.unwatch_signals()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        stop_signals.unwatch_signals()
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (0, False), (1, False)])
def test_batch_script_requeues_a_stopped_training(tmp_path, code, requeued):
    for name, text in (("srun", f'echo "$@" > call; exit {code}'), ("scontrol", 'echo "$@" > requeue')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    command = ["bash", str(REPOSITORY / "docs/slurm/train.sbatch"), "x.yml", "--force_yml", "name=y"]
    assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == code
    call = (tmp_path / "call").read_text()
    assert "-m gpen_plugin.train -opt x.yml --force_yml name=y --launcher slurm --auto_resume" in call
    assert (tmp_path / "requeue").exists() == requeued
    assert not requeued or (tmp_path / "requeue").read_text() == "requeue 17\n"


VALUES = {"val": {"psnr": {9: 20.0, 10: 30.0, 20: 25.0, 30: 10.0}, "swd": {9: 1.0, 10: 5.0, 20: float("nan")}}}
METRICS = {"psnr": {}, "swd": {"better": "lower"}}


@pytest.mark.parametrize(("count", "best"), [(0, set()), (1, {9, 10}), (2, {9, 10, 20}), (9, {9, 10, 20, 30})])
def test_best_iterations_of_each_metric(count, best):
    assert train_state.best_iterations(VALUES, METRICS, count) == best
    assert train_state.best_iterations({"val": {"psnr": {1: 2.0, 2: 2.0}}}, METRICS, 1) == {2}


def test_the_best_are_kept_beside_the_last(folders):  # noqa: F811
    train_state.prune_checkpoints(folders, 30, 1, {9})
    assert listed(folders) == files(9, 30)
    assert train_state.validations_on_disk(folders, VALUES)["val"]["psnr"] == {9: 20.0, 30: 10.0}


def test_a_training_keeps_its_best_checkpoint_over_a_resume(options, train, tmp_path, monkeypatch):
    values = iter([3.0, 9.0, 5.0, 4.0, 6.0])
    monkeypatch.setattr("gpen_plugin.models.validation.calculate_metric", lambda *_: next(values))
    options["datasets"]["val"]["num_images"] = 1
    options["logger"] |= {"use_tb_logger": False, "save_checkpoint_freq": 1, "keep_last": 1, "keep_best": 1}
    options["val"]["val_freq"], options["train"]["total_iter"] = 1, 4
    check_run(parsed(options))
    folder = train(options)
    assert {path.name for path in folder.glob("training_states/*")} == {"2.state", "4.state"}
    options["train"]["total_iter"] = 5
    train(options, tmp_path, "--auto_resume")
    assert {path.name for path in folder.glob("training_states/*")} == {"2.state", "5.state"}
    assert {path.name for path in folder.glob("models/net_g_*")} == {f"net_g_{i}.pth" for i in (2, 5, "latest")}
    state = torch.load(folder / "training_states/5.state", weights_only=True)
    assert state["validations"]["val"]["psnr"] == {2: 9.0, 5: 6.0}


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        ({"keep_best": 1}, "logger:keep_best: given without keep_last"),
        ({"keep_best": 0, "keep_last": 1}, "logger:keep_best: got 0; expected 1 or more checkpoints"),
        (
            {"keep_best": 1, "keep_last": 1, "save_checkpoint_freq": 3},
            "logger:keep_best: no iteration is a multiple of both 3 and 2",
        ),
        ({"profile": {"start": 1}}, "logger:profile:start: got 1; expected 2 or more"),
        ({"profile": {"begin": 5}}, "logger:profile:begin: unknown key"),
        ({"profile": {"start": 5}}, "logger:profile:start: got 5; expected at most train:total_iter, 4"),
        ({"wandb": {"projct": "x"}}, "logger:wandb:projct: unknown key.*Did you mean 'project'"),
        ({"wandb": {"resume_id": "x"}}, "logger:wandb:project: missing, and resume_id is given"),
    ],
)
def test_wrong_logger_options_are_found_before_the_run(options, logger, message):
    options["logger"] |= logger
    with pytest.raises(GPENError, match=message):
        check_run(parsed(options))


def test_best_needs_a_metric(options):
    options["logger"] |= {"keep_best": 1, "keep_last": 1}
    options["val"]["metrics"] = None
    with pytest.raises(GPENError, match="logger:keep_best: given without val:metrics"):
        check_run(parsed(options))


@pytest.mark.parametrize(("start", "name"), [(2, "iterations_2_to_3"), (4, "iterations_4_to_4")])
def test_trace_of_the_chosen_iterations(options, train, start, name):
    """The second one ends with the training."""
    options["logger"] |= {"use_tb_logger": False, "profile": {"start": start, "iterations": 2}}
    options["val"] = None
    folder = train(options)
    (path,) = folder.glob("profile/*")
    assert path.name == f"{name}.pt.trace.json"
    events = json.loads(path.read_text())["traceEvents"]
    steps = [event for event in events if event.get("name", "").startswith("Optimizer.step")]
    assert len(steps) == {2: 5, 4: 3}[start]  # G and D in each iteration, R1 in each second one


def test_peak_memory_on_a_gpu(monkeypatch):
    assert peak_memory(torch.device("cpu")) == {}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**29)
    assert peak_memory(torch.device("cuda")) == {"peak_memory_gib": 1.5}


def test_deterministic_operations(options, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    options["train"]["deterministic"] = True
    try:
        build_model(ready(options))
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        logging.getLogger("basicsr").handlers.clear()
