import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest
from helpers.job_runners import Opener, Runner, open_runner, write_orders
from helpers.restore_command import files

from gpen_plugin.cli import restore
from gpen_plugin.errors import OptionError
from gpen_plugin.restore import schedule as schedules
from gpen_plugin.restore.inputs import Job, expand
from gpen_plugin.restore.manifest import Manifest
from gpen_plugin.restore.outputs import Outputs
from gpen_plugin.restore.schedule import Schedule
from gpen_plugin.restore.workers import Inline, Workers


class Run:
    """A folder of orders to a `Runner`, the schedule for them, and its reports."""

    def __init__(self, folder, *orders, chunk=2):
        write_orders(folder / "in", *orders)
        self.reports, self.out = [], folder / "out"
        self.outputs = Outputs(self.out)
        self.outputs.open()
        self.manifest = Manifest(self.out, "settings")
        jobs = expand([folder / "in"], self.out).jobs
        self.schedule = Schedule(jobs, self.outputs, [], self.reports.append, chunk=chunk, manifest=self.manifest)

    def close(self):
        self.manifest.close()

    @property
    def order(self):
        return [report.source.name for report in self.reports]


def test_reports_come_in_the_order_of_the_jobs(tmp_path):
    with closing(Run(tmp_path, *"abcde")) as run:
        first, second = run.schedule.take(), run.schedule.take()
        for jobs in (second, first):
            for job, report in Runner()(jobs):
                run.schedule.finish(job, report)
        assert run.order == ["0.png", "1.png", "2.png", "3.png"]
        assert [job.source.name for job in run.schedule.take()] == ["4.png"]
        assert run.schedule.take() == []


def test_jobs_wait_for_one_that_takes_long(tmp_path, monkeypatch):
    monkeypatch.setattr(schedules, "MAX_AHEAD", 3)
    with closing(Run(tmp_path, *"abcde", chunk=1)) as run:
        taken = [run.schedule.take() for _ in range(4)]
        assert [len(jobs) for jobs in taken] == [1, 1, 1, 0]
        for (job,) in taken[1:3]:
            run.schedule.finish(job, next(Runner()([job]))[1])
        assert run.schedule.take() == run.reports == []
        run.schedule.finish(taken[0][0], next(Runner()(taken[0]))[1])
        assert run.order == ["0.png", "1.png", "2.png"]
        assert len(run.schedule.take()) == 1


def test_videos_are_taken_last_and_alone(tmp_path):
    jobs = [Job(tmp_path / name, "video" if name > "c" else "image", tmp_path / "out" / name) for name in "adbec"]
    for job in jobs:
        job.source.touch()
    outputs = Outputs(tmp_path / "out")
    outputs.open()
    schedule = Schedule(jobs, outputs, [], print, chunk=2)
    chunks = [[job.source.name for job in schedule.take()] for _ in range(5)]
    assert chunks == [["a", "b"], ["c"], ["d"], ["e"], []]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_process_that_is_killed_costs_only_its_input(tmp_path, processes):
    orders = ("a", "die once", "b", "fail", "die", "c")
    with closing(Run(tmp_path, *orders)) as run, Workers([Opener()] * processes) as workers:
        workers.run(run.schedule)
        assert workers.facts.network == "a rule"
    assert run.order == [f"{number}.png" for number in range(6)]
    errors = {report.source.name: report.error for report in run.reports if report.error}
    assert list(errors) == ["3.png", "4.png"]
    assert "in/4.png: ended the process that restored it, twice (signal 9)" in errors["4.png"]
    assert files(run.out) == ["0.png", "1.png", "2.png", "5.png"]
    assert (run.out / "1.png").read_text() == "DIE ONCE"


def test_errors_at_the_start_are_raised(tmp_path):
    with pytest.raises(OptionError, match="model: is missing"), Workers([Opener("fail")] * 2):
        raise AssertionError
    message = r"--jobs: the processes end at their start \(signal 9\)"
    with pytest.raises(OptionError, match=message), Workers([Opener("die")]):
        raise AssertionError


def test_inline_runs_the_same_schedule(tmp_path):
    with closing(Run(tmp_path, "a", "fail", "b")) as run:
        Inline(Runner()).run(run.schedule)
    assert [report.error is None for report in run.reports] == [True, False, True]
    assert files(run.out) == ["0.png", "2.png"]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_command_leaves_whole_files_and_no_process(tmp_path, number, monkeypatch):
    write_orders(tmp_path / "in", "sleep", "b", "c", "sleep", "e")
    code = "import sys; from gpen_plugin.cli import restore; from helpers.job_runners import open_runner; "
    code += "restore.open_runner, restore.IMPORTS = open_runner, (); sys.exit(restore.main())"
    words = ["in", "-o", "out", "--jobs", "2", "--report", "report.json"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *words]
    pids = [tmp_path / "in/0.pid", tmp_path / "in/3.pid"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not all(path.exists() and path.read_text() for path in pids):
            time.sleep(0.01)
        process.send_signal(number)
        said = process.stdout.read()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and any(_is_alive(int(path.read_text())) for path in pids):
            time.sleep(0.01)
    assert not any(_is_alive(int(path.read_text())) for path in pids)
    assert files(tmp_path / "out") == ["2.png"]
    jobs = json.loads((tmp_path / "report.json").read_text())["jobs"]
    if number == signal.SIGKILL:
        assert jobs == []
    else:
        assert process.returncode == 128 + number
        assert [os.path.basename(job["source"]) for job in jobs] == ["2.png"]
        assert "1 of 5 inputs written" in said
    write_orders(tmp_path / "in", "a", "b", "c", "d", "e")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(restore, "open_runner", open_runner)
    assert restore.main(["in", "-o", "out"]) == 3  # which counts faces, and there are none
    assert files(tmp_path / "out") == [f"{number}.png" for number in range(5)]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
