"""A training that waits for its data says so, once, and names the setting."""

import logging
import time
import types

import pytest

from gpen_plugin.data.gpen_face_dataset import GPENFaceDataset
from gpen_plugin.models import monitors
from gpen_plugin.models.monitors import MAX_WAIT_FRACTION, WINDOW, DataWaitMonitor


class Clock:
    """Time that a test lets pass: of it all, and of it in waiting."""

    def __init__(self, monkeypatch):
        self.now = self.waited = 1000.0
        monkeypatch.setattr(monitors, "time", types.SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(monitors, "data_wait_seconds", lambda: self.waited)

    def iterations(self, watch: DataWaitMonitor, number: int, waiting: float, working: float) -> None:
        for _ in range(number):
            self.waited += waiting
            self.now += waiting + working
            watch.update()


@pytest.fixture
def clock(monkeypatch, caplog) -> Clock:
    monkeypatch.setattr(
        logging.getLogger("basicsr"), "handlers", [caplog.handler]
    )  # the host's logger does not propagate
    return Clock(monkeypatch)


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_loader_that_is_too_slow_makes_one_warning(clock, caplog):
    watch = DataWaitMonitor(workers=3)
    clock.iterations(watch, WINDOW, waiting=0.3, working=0.1)
    assert not warnings(caplog)  # one look more and the window is full
    clock.iterations(watch, 5 * WINDOW, waiting=0.3, working=0.1)
    (warning,) = warnings(caplog)
    assert "75% of the last 100 iterations" in warning
    assert "num_worker_per_gpu (now 3;" in warning


@pytest.mark.parametrize(("share", "warned"), [(0.9 * MAX_WAIT_FRACTION, 0), (1.1 * MAX_WAIT_FRACTION, 1)])
def test_what_is_tolerated(clock, caplog, share, warned):
    clock.iterations(DataWaitMonitor(0), 2 * WINDOW, waiting=share, working=1 - share)
    assert len(warnings(caplog)) == warned


def test_the_start_of_the_workers_does_not_count(clock, caplog):
    watch = DataWaitMonitor(4)
    clock.iterations(watch, 1, waiting=60, working=0.1)
    clock.iterations(watch, 3 * WINDOW, waiting=0, working=0.1)
    assert not warnings(caplog)


def test_a_loader_that_becomes_slow_later_is_found(clock, caplog):
    watch = DataWaitMonitor(4)
    clock.iterations(watch, 3 * WINDOW, waiting=0, working=0.1)
    assert not warnings(caplog)
    clock.iterations(watch, 2 * WINDOW, waiting=1, working=0.1)
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(("seconds", "warned"), [(0.2, 1), (0, 0)], ids=["slow", "fast"])
def test_in_a_training_the_time_in_the_loader_counts(prior_options, train, monkeypatch, seconds, warned):
    """With windows of two iterations."""
    monkeypatch.setattr(monitors, "WINDOW", 2)
    original = GPENFaceDataset.__getitem__
    monkeypatch.setattr(GPENFaceDataset, "__getitem__", lambda self, i: (time.sleep(seconds), original(self, i))[1])
    prior_options["logger"] |= {"use_tb_logger": False, "save_checkpoint_freq": 100}
    prior_options["val"] = None
    folder = train(prior_options)
    log = next(folder.glob("train_*.log")).read_text()
    assert log.count("num_worker_per_gpu (now 0;") == warned
