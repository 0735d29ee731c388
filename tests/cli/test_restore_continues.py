"""The same command again continues: `gpen_plugin.restore.manifest`."""

import contextlib
import json
import os
import signal
import time

import cv2
import pytest
from helpers.forks import fork, wait
from helpers.restore_command import files, write

from gpen_plugin.restore.batch import Runner
from gpen_plugin.restore.manifest import NAME, Manifest


@pytest.fixture
def restored(monkeypatch):
    """Names of the inputs that are restored, in order."""
    names, write_results = [], Runner._write_results

    def counted(self, job, *arguments):
        names.append(job.source.name)
        return write_results(self, job, *arguments)

    monkeypatch.setattr(Runner, "_write_results", counted)
    return names


@pytest.fixture
def album(tmp_path):
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        write(tmp_path / "in" / name, seed)
    return tmp_path / "in"


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out" / NAME).read_text().splitlines()]


def test_done_inputs_are_skipped_and_counted(run, tmp_path, album, restored):
    assert run("in", "-o", "out")[0] == 0
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in files(tmp_path / "out")}
    write(album / "d.png", 3)
    status, said = run("in", "-o", "out", "--report", "report.json")
    assert status == 0
    assert restored == ["a.png", "b.png", "c.png", "d.png"]
    assert "4 of 4 inputs written (3 of them by an earlier run), 8 faces" in said.out
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before} == before
    jobs = json.loads((tmp_path / "report.json").read_text())["jobs"]
    assert [len(job["faces"]) for job in jobs] == [2] * 4


def test_an_entry_has_what_a_program_needs(run, tmp_path, album):
    (album / "broken.png").write_bytes(b"not an image")
    run("in", "-o", "out", "--save-faces")
    last = {os.path.basename(line["source"]): line for line in lines(tmp_path)}
    assert [last[name]["status"] for name in ("a.png", "b.png", "broken.png", "c.png")] == [
        "done",
        "done",
        "failed",
        "done",
    ]
    assert last["a.png"]["source"] == str(album / "a.png")
    assert last["a.png"]["outputs"] == {"a.png": (tmp_path / "out/a.png").stat().st_size}
    assert last["a.png"]["size"] == (album / "a.png").stat().st_size
    assert last["a.png"]["seconds"] > 0
    assert len(last["a.png"]["report"]["faces"]) == 2
    assert "broken.png" in last["broken.png"]["report"]["error"]


def test_failed_inputs_are_tried_again(run, tmp_path, album, restored):
    whole = (album / "b.png").read_bytes()
    (album / "b.png").write_bytes(b"not an image")
    assert run("in", "-o", "out")[0] == 1
    (album / "b.png").write_bytes(whole)
    assert run("in", "-o", "out")[0] == 0
    assert restored == ["a.png", "c.png", "b.png"]


@pytest.mark.parametrize("change", ["option", "input", "result"])
def test_a_result_that_is_not_valid_any_more_is_reported_and_kept(run, tmp_path, album, change):
    run("in", "-o", "out")
    words = ("--alpha", 0.5) if change == "option" else ()
    if change == "input":
        write(album / "b.png", 9)
    if change == "result":
        cv2.imwrite(str(tmp_path / "out/b.png"), cv2.imread(str(tmp_path / "out/b.png"))[:10])
    before = (tmp_path / "out/b.png").read_bytes()
    status, said = run("in", "-o", "out", *words)
    assert status == 1
    why = {"option": "with other options", "input": "before in/b.png changed", "result": "has changed since"}[change]
    assert f"out/b.png: was restored {why}" in said.err or f"out/b.png: {why}" in said.err
    assert (tmp_path / "out/b.png").read_bytes() == before
    assert run("in", "-o", "out", "--redo", *words)[0] == 0
    assert (tmp_path / "out/b.png").read_bytes() != before
    assert run("in", "-o", "out", *words)[0] == 0


def test_copied_input_with_another_time_is_the_same(run, tmp_path, album, restored):
    run("in", "-o", "out")
    os.utime(album / "a.png", (1, 1))
    assert run("in", "-o", "out")[0] == 0
    assert restored == ["a.png", "b.png", "c.png"]


def test_redo_does_not_replace_files_of_others(run, tmp_path, album):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b.png").write_bytes(b"mine")
    assert run("in", "-o", "out")[0] == 1
    status, said = run("in", "-o", "out", "--redo")
    assert status == 1
    assert "out/b.png: is there already" in said.err
    assert (tmp_path / "out/b.png").read_bytes() == b"mine"


def test_a_torn_line_is_run_again(run, tmp_path, album, restored):
    run("in", "-o", "out", "--save-faces", "--compare")
    path = tmp_path / "out" / NAME
    raw = path.read_bytes()
    path.write_bytes(raw[:-40])  # as if the process was killed while it wrote the last line
    assert run("in", "-o", "out", "--save-faces", "--compare")[0] == 0
    assert restored == ["a.png", "b.png", "c.png", "c.png"]
    assert [line["status"] for line in lines(tmp_path)][-1] == "done"


def test_a_damaged_manifest_is_an_error(run, tmp_path, album):
    run("in", "-o", "out")
    path = tmp_path / "out" / NAME
    path.write_bytes(b"oops\n" + path.read_bytes())
    status, said = run("in", "-o", "out")
    assert status == 1
    assert f"out/{NAME}: is damaged at byte 0" in said.err


def test_a_lost_result_is_made_again(run, tmp_path, album, restored):
    run("in", "-o", "out", "--compare", "--save-faces")
    (tmp_path / "out/b.png").unlink()  # what was written beside it is still there
    assert run("in", "-o", "out", "--compare", "--save-faces")[0] == 0
    assert restored[3:] == ["b.png"]


def test_a_second_process_is_refused(run, tmp_path, album):
    (tmp_path / "out").mkdir()
    with contextlib.closing(Manifest(tmp_path / "out", "settings")):
        status, said = run("in", "-o", "out")
    assert status == 1
    assert "out is in use by another gpen-restore" in said.err
    assert run("in", "-o", "out")[0] == 0


def test_after_sigkill_the_command_continues(run, tmp_path, album, restored):
    for seed in range(3, 6):
        write(album / f"{seed}.png", seed)
    run("in", "-o", "whole", "--save-faces", "--batch", 2)
    child = fork(lambda: run("in", "-o", "out", "--save-faces", "--batch", 2)[0], tmp_path / "error.txt")
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while not (tmp_path / "out/4.png").exists() and not os.waitid(os.P_PID, child, ended):
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    assert wait(child) == -signal.SIGKILL, "ended before it was killed"
    restored.clear()
    assert run("in", "-o", "out", "--save-faces", "--batch", 2)[0] == 0
    assert 0 < len(restored) < 6
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    for name in files(tmp_path / "whole"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert list({line["source"]: line["status"] for line in lines(tmp_path)}.values()) == ["done"] * 6
