"""Trainings side by side. They are small programs here, which print and write what a training of the host would."""

import errno
import os
import re
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from gpen_plugin.host.training_log import last_iteration
from gpen_plugin.sweep import running
from gpen_plugin.sweep.plan import Training
from gpen_plugin.sweep.running import Place, run_all

HEAD = """
import os, signal, sys, time
from pathlib import Path
name = sys.argv[-1]

def log(iteration):
    print(f"2026-01-01 00:00:00,000 INFO: [epoch:  0, iter:{iteration:8,}, lr:(2.0e-03,)] l_g_gan: 1.0", flush=True)

def wait_for(pattern, count=1):
    end = time.monotonic() + 60
    while len(list(Path().glob(pattern))) < count:
        assert time.monotonic() < end, pattern
        time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "BETWEEN_LOOKS", 0.02)


@pytest.fixture(autouse=True)
def heeding():
    """As in the foreground: a shell's background and nohup let the tests begin with signals ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {kind: signal.signal(kind, handler) for kind, handler in usual.items()}
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)


def program(text: str) -> tuple[str, str]:
    path = Path("program.py")
    path.write_text(HEAD + textwrap.dedent(text))
    return sys.executable, str(path)


def trainings(*names: str) -> list[Training]:
    return [Training(name, name, ("-opt", name), Path("base.yml"), 4000) for name in names]


def output(name: str) -> str:
    return Path("sweeps", f"{name}.txt").read_text()


def test_as_many_as_asked_run_at_a_time():
    text = """
        Path(name + ".alive").touch()
        wait_for("*.*", 3)  # the program, and two trainings: alone it would not go on
        print("beside:", len(list(Path().glob("*.alive"))))
        wait_for("[ab].*", 2)
        time.sleep(0.1)
        Path(name + ".alive").rename(name + ".over")
        """
    assert run_all(trainings(*"abcd"), Place(2), Path("sweeps"), program(text)) == []
    counts = [int(re.search(r"beside: (\d)", output(name))[1]) for name in "abcd"]
    assert max(counts) == 2


def test_one_that_fails_is_told_and_the_others_go_on(capsys):
    text = """
        log(2000)
        if name == "b":
            sys.exit("gpen_plugin: error: of a kind")
        log(4000)
        """
    everything = trainings(*"abc")
    assert run_all(everything, Place(1), Path("sweeps"), program(text)) == [everything[1]]
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert re.fullmatch(r"a: trained in \d\d:\d\d", lines[0])
    assert re.fullmatch(r"b: failed with status 1 after \d\d:\d\d; sweeps/b.txt ends:", lines[1])
    assert lines[2].endswith("l_g_gan: 1.0")
    assert lines[3] == "    gpen_plugin: error: of a kind"
    assert lines[4].startswith("c: trained in")
    assert "3 of 3: 100%" in told.err
    assert "10000/10000" in told.err


def test_progress_counts_from_where_a_training_goes_on(capsys, monkeypatch):
    states = Path("experiments/a/training_states")
    states.mkdir(parents=True)
    (states / "1000.state").touch()
    text = """
        log(1500)
        wait_for("seen")
        print("x" * 10000, flush=True)  # what was seen counts, though it can be seen no more
        time.sleep(0.2)
        """
    seen, original = [], running.Run.look

    def look(run):
        seen.append(original(run))
        if seen[-1] == 500:
            Path("seen").touch()
        return seen[-1]

    monkeypatch.setattr(running.Run, "look", look)
    assert run_all(trainings("a"), Place(1), Path("sweeps"), program(text)) == []
    assert set(seen) <= {0, 500}
    assert seen == sorted(seen)
    assert "500/3000" in capsys.readouterr().err


def test_cores_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(9)), raising=False)
    text = """
        Path(name + ".alive").touch()
        if name in "abc":
            wait_for("[abc].alive", 3)
        print(os.environ["OMP_NUM_THREADS"], os.environ.get("CUDA_VISIBLE_DEVICES"))
        """
    run_all(trainings(*"abc"), Place(3, [4, 6]), Path("sweeps"), program(text))
    assert [output(name) for name in "abc"] == ["3 4\n", "3 6\n", "3 4\n"]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    run_all(trainings("d"), Place(20), Path("sweeps"), program(text))
    assert output("d") == "2 5\n"


def test_there_is_a_core_for_each(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert Place(3).environment()["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_what_ends_the_sweep_ends_its_trainings(kind):
    text = f"""
        Path(name).write_text(str(os.getpid()))
        Path(name + ".ready").touch()
        wait_for("[ab].ready", 2)
        if name == "a":
            os.kill(os.getppid(), signal.{kind})
        time.sleep(600)
        """
    before = signal.getsignal(getattr(signal, kind))
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run_all(trainings(*"abc"), Place(2), Path("sweeps"), program(text))
    for name in "ab":
        with pytest.raises(ProcessLookupError, match=os.strerror(errno.ESRCH)):
            os.kill(int(Path(name).read_text()), 0)
    assert not Path("c").exists()
    assert signal.getsignal(getattr(signal, kind)) is before


def test_one_that_does_not_heed_is_killed(monkeypatch):
    monkeypatch.setattr(running, "TO_END", 0.1)
    text = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(name).write_text(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(600)
        """
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run_all(trainings("a"), Place(1), Path("sweeps"), program(text))
    with pytest.raises(ProcessLookupError, match=os.strerror(errno.ESRCH)):
        os.kill(int(Path("a").read_text()), 0)


@pytest.mark.parametrize(
    ("text", "iteration"),
    [
        ("", None),
        ("    total_iter: 1500\n", None),
        ("INFO: Start training from epoch: 0, iter: 0\n", None),
        ("[small..][epoch:  0, iter:      50, lr:(2.0e-03,)] [eta: 0:01:00]\n", 50),
        ("[epoch:  0, iter:      50, lr:(1,)]\n[epoch:  3, iter:   1,500, lr:(1,)]\nbeside it\n", 1500),
        ("[epoch:  0, iter:      50, lr:(1,)]\n[epoch:  3, iter:   1,5", 50),
    ],
)
def test_the_last_line_of_progress_counts(text, iteration):
    assert last_iteration(text) == iteration
