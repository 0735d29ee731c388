"""The command: what it says, its exit status, and one sweep of the real thing."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers import REPOSITORY

from gpen_plugin.host.training_log import last_iteration
from gpen_plugin.sweep import __main__ as command
from gpen_plugin.sweep import running

SWEEP = {"base": "base.yml", "name": "small_{variant}_s{seed}", "variants": {"GPEN": {}, "w/o noise": {}}}
PROGRAM = """
import sys
from pathlib import Path
name = next(word for word in sys.argv if word.startswith("name=")).removeprefix("name=")
Path("made").open("a").write(name + "\\n")
if name == "small_gpen_s0":
    sys.exit("gpen_plugin: error: broken")
Path("experiments", name, "models").mkdir(parents=True)
Path("experiments", name, "models", "net_g_latest.pth").touch()
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "BETWEEN_LOOKS", 0.02)


@pytest.fixture
def small(tmp_path, monkeypatch) -> list[str]:
    """Words of the command for trainings that are a small program, of which GPEN's fails; nothing is checked."""
    Path("sweep.yml").write_text(yaml.safe_dump(SWEEP | {"seeds": [0, 1]}, sort_keys=False))
    Path("base.yml").write_text(yaml.safe_dump({"name": "base", "train": {"total_iter": 2}}))
    Path("program.py").write_text(PROGRAM)
    checked = []
    monkeypatch.setattr(command, "check_trainings", lambda trainings, environment: checked.append(trainings))
    program = (sys.executable, "program.py")
    monkeypatch.setattr(command, "run_all", lambda *given: running.run_all(*given, program=program))
    return ["-opt", "sweep.yml"]


def made() -> list[str]:
    return Path("made").read_text().split()


def test_a_failure_is_told_at_the_end_and_made_up_for_later(small, capsys):
    assert command.main(small) == 1
    assert made() == ["small_gpen_s0", "small_w_o_noise_s0", "small_gpen_s1", "small_w_o_noise_s1"]
    told = capsys.readouterr()
    assert "4 trainings, 0 finished; 1 at a time." in told.out
    assert "    gpen_plugin: error: broken" in told.out
    assert "1 of 4 failed: small_gpen_s0" in told.err
    Path("made").unlink()
    Path("program.py").write_text(PROGRAM.replace("small_gpen_s0", "none"))
    assert command.main(small) == 0
    assert made() == ["small_gpen_s0"]
    assert "4 trainings, 3 finished" in capsys.readouterr().out
    Path("made").unlink()
    assert command.main(small) == 0
    assert not Path("made").exists()


def test_words_go_before_the_file(small):
    words = ["--only", "w/o noise", "--seeds", "5", "6", "--processes", "2"]
    assert command.main([*small, *words]) == 0
    assert sorted(made()) == ["small_w_o_noise_s5", "small_w_o_noise_s6"]


def test_a_dry_run_prints_and_starts_nothing(small, capsys):
    command.main([*small, "--only", "w/o noise", "--seeds", "0"])
    Path("made").unlink()
    states = Path("experiments/small_gpen_s0/training_states")
    states.mkdir(parents=True)
    (states / "1.state").touch()
    capsys.readouterr()
    assert command.main([*small, "--seeds", "0", "1", "--devices", "0", "1", "--dry-run"]) == 0
    assert not Path("made").exists()
    words = "python -m gpen_plugin.train -opt base.yml --auto_resume --force_yml"
    assert capsys.readouterr().out.splitlines() == [
        "4 trainings, 1 finished; 2 at a time.",
        "from iteration 1: small_gpen_s0",
        f"    {words} name=small_gpen_s0 manual_seed=0",
        "finished: small_w_o_noise_s0",
        "from the start: small_gpen_s1",
        f"    {words} name=small_gpen_s1 manual_seed=1",
        "from the start: small_w_o_noise_s1",
        f"    {words} name=small_w_o_noise_s1 manual_seed=1",
    ]


def test_stopped_by_hand(small, capsys, monkeypatch):
    def stopped(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_all", stopped)
    assert command.main(small) == 130
    assert "The same command goes on where they were." in capsys.readouterr().err


def test_mistakes_end_with_a_message(small, capsys):
    assert command.main([*small, "--seeds", "-1"]) == 1
    assert "gpen_plugin: error: seeds: got [-1]" in capsys.readouterr().err


def test_a_sweep_of_real_trainings(options, write_options, monkeypatch, capsys):
    """One is refused before anything is made; then a training runs to its end, and is finished until more is wanted."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for section in (options["network_g"], options["network_d"], *options["datasets"].values()):
        section["out_size"] = 16
    options["train"]["total_iter"] = 2
    options["logger"] |= {"save_checkpoint_freq": 1, "use_tb_logger": False}
    write_options(options, "base.yml")
    variants = {
        "fine": {"network_g:noise_mode": "none"},
        "typo": {"train:freeze_decodr": True},
        "both": {"train:freeze_decodr": False},
        "no such": {"trian:x": 1},
    }
    sweep = write_options(SWEEP | {"variants": variants, "seeds": [0, 1]}, "sweep.yml")
    assert command.main(["-opt", str(sweep)]) == 1
    told = capsys.readouterr().err
    assert "2 problems" in told
    assert "  - typo, both: train:freeze_decodr: unknown key" in told
    assert "Did you mean 'freeze_decoder'" in told
    assert "  - no such: --force_yml trian:x=1: the option file has no section trian" in told
    assert not Path("experiments").exists()

    words = ["-opt", str(sweep), "--only", "fine", "--seeds", "4"]
    assert command.main(words) == 0
    state = torch.load("experiments/small_fine_s4/training_states/2.state", weights_only=True)
    assert state["iter"] == 2
    weights = torch.load("experiments/small_fine_s4/models/net_g_latest.pth", weights_only=True)["params_ema"]
    assert max(tensor.shape[-1] for name, tensor in weights.items() if "noise" in name or "const" in name) <= 16
    printed = Path("sweeps/sweep/small_fine_s4.txt").read_text()
    assert last_iteration(printed) == 2
    assert "manual_seed: 4" in printed
    assert "noise_mode: none" in printed

    capsys.readouterr()
    assert command.main([*words, "--dry-run"]) == 0
    assert "finished: small_fine_s4" in capsys.readouterr().out
    options["train"]["total_iter"] = 3
    write_options(options, "base.yml")
    monkeypatch.setattr(command, "check_trainings", lambda *given: None)
    assert command.main([*words, "--dry-run"]) == 0
    assert "from iteration 2: small_fine_s4" in capsys.readouterr().out
