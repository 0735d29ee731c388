"""Several processes of torchrun or srun that share the inputs: `gpen_plugin.restore.ranks`."""

import contextlib
import itertools
import json
import os
import sys

import pytest
from helpers.restore_command import files, write

from gpen_plugin.errors import OptionError
from gpen_plugin.restore.manifest import Manifest
from gpen_plugin.restore.ranks import ALONE, Ranks


def name_for(rank, folder, known=()):
    """A name of an input of this rank of two; the hash is of the path, which differs in each run of the tests."""
    names = (f"{number}.png" for number in itertools.count())
    return next(name for name in names if Ranks(rank, 2).owns(folder / name) and name not in known)


@pytest.fixture
def names(tmp_path):
    """Names of five inputs, three of rank 0 and two of rank 1, in order."""
    names = []
    for rank in (0, 0, 0, 1, 1):
        names.append(name_for(rank, tmp_path / "in", names))
    return sorted(names)


@pytest.fixture
def album(tmp_path, names):
    for seed, name in enumerate(names):
        write(tmp_path / "in" / name, seed)
    return tmp_path / "in"


@pytest.fixture
def run_rank(run, monkeypatch):
    """Run the command as one rank of torchrun's, without waiting for the others."""

    def run_rank(rank, count, *words):
        with monkeypatch.context() as patch:
            patch.setenv("RANK", str(rank))
            patch.setenv("WORLD_SIZE", str(count))
            return run("in", "-o", "out", *words)

    return run_rank


def manifests(folder):
    return sorted(path.name for path in folder.glob("manifest*.jsonl"))


def test_every_input_belongs_to_one_rank(album):
    for count in (1, 2, 3, 50):
        for path in album.iterdir():
            assert sum(Ranks(rank, count).owns(path) for rank in range(count)) == 1
    paths = [album / f"{number}.png" for number in range(1000)]
    assert 400 < sum(Ranks(0, 2).owns(path) for path in paths) < 600


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ALONE),
        ({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Ranks(1, 4, 1)),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}, Ranks(5, 8, 1)),
        ({"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_NTASKS": "8"}, Ranks(5, 8, 0)),
        ({"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, ALONE),  # the script of sbatch
        ({"RANK": "0", "WORLD_SIZE": "1", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, ALONE),
    ],
)
def test_ranks_of_the_environment(variables, expected):
    assert Ranks.of_environment(variables) == expected


def test_impossible_ranks_are_refused():
    with pytest.raises(OptionError, match="RANK: got 2 of 2; expected a number below that of all ranks"):
        Ranks.of_environment({"RANK": "2", "WORLD_SIZE": "2"})


def test_ranks_share_the_inputs_and_each_has_its_own_files(run_rank, tmp_path, album, names):
    said = [run_rank(rank, 2, "--report", "report.json") for rank in range(2)]
    assert [status for status, _ in said] == [0, 0]
    assert files(tmp_path / "out") == names
    assert manifests(tmp_path / "out") == ["manifest-0-of-2.jsonl", "manifest-1-of-2.jsonl"]
    reports = [json.loads((tmp_path / f"report-{rank}-of-2.json").read_text())["jobs"] for rank in range(2)]
    assert sorted(os.path.basename(job["source"]) for jobs in reports for job in jobs) == names
    for rank, jobs in enumerate(reports):
        assert f"rank {rank} of 2: {len(jobs)} of {len(jobs)} inputs written" in said[rank][1].out


def test_another_number_of_ranks_continues(run, run_rank, tmp_path, album):
    run_rank(0, 2)
    assert len(files(tmp_path / "out")) == 3
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in files(tmp_path / "out")}
    outputs = [run_rank(rank, 3)[1].out for rank in range(3)]
    assert sum(f"({number} of them by an earlier run)" in text for text in outputs for number in (1, 2, 3)) > 0
    status, said = run("in", "-o", "out", "--report", "report.json")
    assert status == 0
    assert "5 of 5 inputs written (5 of them by an earlier run), 10 faces" in said.out
    assert len(json.loads((tmp_path / "report.json").read_text())["jobs"]) == 5
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before} == before


def test_the_latest_line_of_all_manifests_counts(run, run_rank, tmp_path, album):
    for rank in range(2):
        run_rank(rank, 2)
    assert run("in", "-o", "out", "--alpha", 0.5, "--redo")[0] == 0
    for rank in range(2):
        status, said = run_rank(rank, 2, "--alpha", 0.5)
        assert status == 0
        assert "by an earlier run" in said.out


@pytest.mark.parametrize("working", [ALONE, Ranks(0, 3)])
def test_ranks_are_refused_while_another_run_works(run_rank, tmp_path, album, working):
    (tmp_path / "out").mkdir()
    with contextlib.closing(Manifest(tmp_path / "out", "settings", working)):
        status, said = run_rank(1, 2)
        assert status == 1
        assert "out is in use by another gpen-restore" in said.err
    assert run_rank(1, 2)[0] == 0


def test_ranks_of_one_run_work_at_the_same_time(run_rank, tmp_path, album):
    (tmp_path / "out").mkdir()
    with contextlib.closing(Manifest(tmp_path / "out", "settings", Ranks(0, 2))):
        assert run_rank(1, 2)[0] == 0


def test_a_failed_input_of_one_rank_does_not_stop_the_others_of_torchrun(clean_python, tmp_path, names):
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).write_text("an order")
    broken = name_for(0, tmp_path / "in", names)
    (tmp_path / "in" / broken).write_text("fail")
    code = "import sys, time; from gpen_plugin.restore.ranks import Ranks; from gpen_plugin.cli import restore\n"
    code += "from helpers.job_runners import open_runner; restore.open_runner = open_runner\n"
    code += "time.sleep(2 * Ranks.of_environment().rank)\nsys.exit(restore.main(sys.argv[1:]))"
    (tmp_path / "restore.py").write_text(code)
    words = ["in", "-o", "out", "--device", "cpu"]  # no device is assigned, so that no rank imports PyTorch
    launch = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "restore.py")
    done = clean_python.run(*launch, *words, cwd=tmp_path, PYTHONPATH=os.pathsep.join(sys.path))
    assert done.returncode == 1, done.stderr
    assert files(tmp_path / "out") == names, done.stderr
    assert f"not written: in/{broken}" in done.stdout
