"""``--engine ray``: `gpen_plugin.restore.ray_engine`. Its stages run in this process, except where Ray is installed."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path

import pytest
from helpers.restore_command import files, write

from gpen_plugin.restore import ray_engine
from gpen_plugin.restore.manifest import NAME

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def restored(monkeypatch):
    """Run the stages without Ray; the targets that are restored, in order."""
    targets = []

    def in_process(self, rows, finished):
        restore, size = ray_engine.RestoreRows(**self._restore), self._shard_size or self._batch
        write = (ray_engine.WriteShard if self._shard_size else ray_engine.WriteFiles)(self._output)
        photographs = [row for item in rows for row in ray_engine.ReadItem(self._suffix, finished)(item)]
        targets.extend(row["name"] for row in photographs)
        for start in range(0, len(photographs), size):
            part = photographs[start : start + size]
            out = write(restore({column: [row[column] for row in part] for column in part[0]}))
            yield out["part"][0], json.loads(out["entries"][0])

    monkeypatch.setattr(ray_engine.RayRunner, "_written", in_process)
    return targets


@pytest.fixture
def album(tmp_path):
    for seed, name in enumerate(("a.png", "b.png", "sub/c.1.png")):
        write(tmp_path / "in" / name, seed)
    return tmp_path / "in"


@pytest.fixture
def shard(tmp_path, album):
    """A tar of two samples with captions."""
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for key, source in (("k/000", "a.png"), ("k/001", "b.png")):
            add(archive, f"{key}.png", (album / source).read_bytes())
            add(archive, f"{key}.txt", key.encode())
    return tmp_path / "x.tar"


def add(archive, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def members(folder):
    """Contents by name of all tars of a folder; a name that is there twice is an error."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                assert member.name not in found
                found[member.name] = archive.extractfile(member).read()
    return found


RAY = ("--engine", "ray")


def test_files_are_those_of_the_local_engine(run, tmp_path, album, restored):
    (album / "broken.png").write_bytes(b"no image")
    assert run("in", "-o", "local")[0] == 1
    status, said = run("in", "-o", "out", *RAY, "--report", "report.json")
    assert status == 1
    assert f"failed: {album}/broken.png: is no image of a kind that can be read" in said.err
    assert "3 of 4 inputs written, 6 faces" in said.out
    assert files(tmp_path / "out") == files(tmp_path / "local")
    for name in files(tmp_path / "out"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    jobs = json.loads((tmp_path / "report.json").read_text())["jobs"]
    assert sorted(len(job.get("faces", ())) for job in jobs) == [0, 2, 2, 2]


def test_both_engines_continue_each_other(run, tmp_path, album, restored):
    assert run("in/a.png", "in/b.png", "-o", "out", *RAY)[0] == 0
    status, said = run("in", "-o", "out")
    assert status == 0
    assert "3 of 3 inputs written (2 of them by an earlier run), 6 faces" in said.out
    write(album / "d.png", 3)
    status, said = run("in", "-o", "out", *RAY)
    assert restored == ["a.png", "b.png", "d.png"]
    assert "4 of 4 inputs written (3 of them by an earlier run), 8 faces" in said.out
    last = {line["source"]: line for line in map(json.loads, (tmp_path / "out" / NAME).read_text().splitlines())}
    line = last[str(album / "d.png")]
    assert line["size"] == (album / "d.png").stat().st_size
    assert line["outputs"] == {"d.png": (tmp_path / "out/d.png").stat().st_size}


def test_a_file_of_others_is_not_replaced(run, tmp_path, album, restored):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b.png").write_bytes(b"mine")
    status, said = run("in", "-o", "out", *RAY)
    assert status == 1
    assert "out/b.png: is there already" in said.err
    assert (tmp_path / "out/b.png").read_bytes() == b"mine"
    assert restored == ["a.png", "sub/c.1.png"]


def test_photographs_of_a_tar_become_files(run, tmp_path, shard, restored):
    assert run("x.tar", "-o", "out", *RAY)[0] == 0
    assert files(tmp_path / "out") == ["x/k/000.png", "x/k/001.png"]
    (tmp_path / "out/x/k/001.png").unlink()
    _, said = run("x.tar", "-o", "out", *RAY)
    assert restored == ["x/k/000.png", "x/k/001.png", "x/k/001.png"]
    assert "2 of 2 inputs written (1 of them by an earlier run), 4 faces" in said.out


def test_a_damaged_tar_and_a_name_outside_of_the_folder_are_reported(run, tmp_path, shard, restored):
    with tarfile.open(tmp_path / "y.tar", "w") as archive:
        add(archive, "../evil.png", b"x")
    (tmp_path / "x.tar").write_bytes(shard.read_bytes()[:-12000])
    status, said = run("x.tar", "y.tar", "-o", "out", *RAY)
    assert status == 1
    assert "x.tar: cannot be accessed" in said.err
    assert "tar://../evil.png::" in said.err
    assert "has a name that leads out of the output folder" in said.err
    assert files(tmp_path / "out") == ["x/k/000.png"]
    assert not (tmp_path / "evil.png").exists()


def test_shards_hold_results_reports_and_captions(run, tmp_path, album, shard, restored):
    assert run("in", "-o", "local")[0] == 0
    assert run("in", "x.tar", "-o", "out/s-%03d.tar", *RAY, "--shard-size", 2)[0] == 0
    found = members(tmp_path / "out")
    images = ["a.png", "b.png", "sub/c%2E1.png", "x/k/000.png", "x/k/001.png"]
    assert sorted(found) == sorted([*images, *(f"{name}.json" for name in images), "x/k/000.txt", "x/k/001.txt"])
    assert found["sub/c%2E1.png"] == (tmp_path / "local/sub/c.1.png").read_bytes()
    assert found["x/k/001.txt"] == b"k/001"
    assert len(json.loads(found["a.png.json"])["faces"]) == 2
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["s-000.tar", "s-001.tar", "s-002.tar"]


def test_shards_continue(run, tmp_path, album, shard, restored):
    run("in/a.png", "x.tar", "-o", "out/s-%03d.tar", *RAY, "--shard-size", 2)
    (tmp_path / "out/s-000.tar").unlink()
    (tmp_path / "out/.gpen-1234.part").write_bytes(b"of a killed worker")
    del restored[:]
    status, said = run("in", "x.tar", "-o", "out/s-%03d.tar", *RAY, "--shard-size", 2)
    assert status == 0
    assert "5 of 5 inputs written (1 of them by an earlier run), 10 faces" in said.out
    assert len(restored) == 4
    assert len([name for name in members(tmp_path / "out") if name.endswith(".png")]) == 5
    assert not list((tmp_path / "out").glob(".gpen*"))


def test_a_shard_that_has_no_name_yet_gets_it(run, tmp_path, album, restored):
    run("in", "-o", "out/s-%03d.tar", *RAY)
    (record,) = (tmp_path / "out").glob("manifest-*.jsonl")
    part = json.loads(record.read_text().splitlines()[0])["part"]
    (tmp_path / "out/s-000.tar").rename(tmp_path / "out" / part)  # as if the run was killed before it renamed it
    before = list(restored)
    assert run("in", "-o", "out/s-%03d.tar", *RAY)[0] == 0
    assert restored == before
    assert len(members(tmp_path / "out")) == 6


def test_redo_replaces_shards(run, tmp_path, album, restored):
    run("in", "-o", "out/s-%03d.tar", *RAY)
    status, said = run("in", "-o", "out/s-%03d.tar", *RAY, "--alpha", 0.5)
    assert status == 1
    assert "a.png: was restored with other options or weights" in said.err
    assert run("in", "-o", "out/s-%03d.tar", *RAY, "--alpha", 0.5, "--redo")[0] == 0
    assert len(restored) == 6
    assert len(members(tmp_path / "out")) == 6


def test_urls_are_read_and_written(run, tmp_path, album, restored):
    memory = fsspec.filesystem("memory")
    folder = f"/{uuid.uuid4().hex}"
    for path in ("a.png", "sub/c.1.png"):
        memory.pipe_file(f"{folder}/in/{path}", (album / path).read_bytes())
    memory.pipe_file(f"{folder}/in/notes.txt", b"text")
    assert run("in", "-o", "local")[0] == 0
    for _ in range(2):
        status, said = run(f"memory:/{folder}/in", "in/b.png", "-o", f"memory:/{folder}/out", *RAY)
        assert status == 0
    assert "3 of 3 inputs written (3 of them by an earlier run), 6 faces" in said.out
    assert sorted(restored) == ["a.png", "b.png", "sub/c.1.png"]
    for name in restored:
        assert memory.cat_file(f"{folder}/out/{name}") == (tmp_path / "local" / name).read_bytes()
    memory.rm_file(f"{folder}/out/b.png")
    assert run(f"memory:/{folder}/in/*.png", "in/b.png", "-o", f"memory:/{folder}/out", *RAY)[0] == 0
    assert restored[3:] == ["b.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workers", 2), "--workers: got it without --engine ray"),
        ((*RAY, "--compare"), "--compare: got it with --engine ray"),
        ((*RAY, "--jobs", 2), "--jobs: got it with --engine ray"),
        ((*RAY, "--num-gpus", -1), "--num-gpus: got -1.0; expected a number above 0"),
        (("-o", "memory://out"), "--output: got memory://out; expected a local folder"),
        (("-o", "out.tar"), "--output: got out.tar; expected a local folder"),
        (("-o", "out.tar", *RAY), "--output: got out.tar; expected a name with a number"),
        (("-o", "nosuch://out", *RAY), "nosuch://out: cannot be opened"),
        (("film.mp4", *RAY), "--engine ray: got the video film.mp4"),
        (("file://FOLDER/other/a.png", *RAY), "other/a.png would both become a.png"),
    ],
)
def test_what_does_not_fit_is_refused(run, tmp_path, album, restored, words, message):
    (tmp_path / "film.mp4").write_bytes(b"")
    write(tmp_path / "other/a.png")
    status, said = run("in", *(str(word).replace("FOLDER", str(tmp_path)) for word in words))
    assert status == 1
    assert message in said.err
    assert not restored


def test_a_killed_worker_loses_nothing_and_repeats_nothing(tmp_path, weights):
    pytest.importorskip("ray")
    for seed in range(48):
        write(tmp_path / f"in/{seed}.png", seed)
    mark = uuid.uuid4().hex
    words = ["in", "-o", "out/s-%03d.tar", "--shard-size", "6", "--batch", "2", "--workers", "2", "--num-cpus", "0.5"]
    words += [*RAY, "--aligned", "--device", "cpu", "--model", str(weights)]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    environment |= {"GPEN_TEST": mark}
    process = subprocess.Popen(
        [sys.executable, "-m", "gpen_plugin.restore", *words],
        cwd=tmp_path,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    titles, busy = {}, []
    while process.poll() is None and not (len(titles) == 2 and busy):
        titles = worker_titles(mark)
        busy = [pid for pid, title in titles.items() if ".submit" in title]
    assert busy, process.communicate()[1]
    os.kill(busy[0], signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "48 of 48 inputs written" in out
    images = [name for name in members(tmp_path / "out") if name.endswith(".png")]
    assert sorted(images) == sorted(f"{seed}.png" for seed in range(48))
    assert not list((tmp_path / "out").glob(".gpen*"))


def worker_titles(mark):
    """Titles of the processes that restore in the run whose environment has this mark; Ray adds what they call."""
    titles = {}
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_text()
            if "RestoreRows" in title and mark in Path(f"/proc/{pid}/environ").read_text():
                titles[pid] = title
        except OSError:
            pass
    return titles
