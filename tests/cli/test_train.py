"""``gpen-train`` and ``gpen-test``: ``--dry-run``, a mistake in the option file, and where a run writes."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from basicsr.utils import logger as host_logger

from gpen_plugin.cli import test as test_command
from gpen_plugin.cli import train
from gpen_plugin.cli.train import main


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["gpen-train"])


def test_valid_file_is_checked_and_nothing_is_made(options, write_options, capsys):
    path = write_options(options)
    assert main(["-opt", str(path), "--dry-run", "--force_yml", "name=other", "train:total_iter=8"]) == 0
    assert capsys.readouterr().out == "other: the option file is valid. Nothing was started.\n"
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train:freeze_decodr=true", "train:freeze_decodr: unknown key; .*Did you mean 'freeze_decoder'"),
        ("trian:x=1", "--force_yml trian:x=1: the option file has no section trian"),
        ("datasets:train:dataroot_gt=missing", "datasets:train:dataroot_gt: .*missing"),
    ],
)
def test_dry_run_finds_what_a_run_would_refuse(options, write_options, capsys, change, message):
    path = write_options(options)
    assert main(["-opt", str(path), "--dry-run", "--force_yml", change]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert list(Path().iterdir()) == []


def test_mistake_is_one_message_and_earlier_experiment_stays(options, write_options, monkeypatch, capsys):
    """As ``python -m gpen_plugin.train`` runs it."""
    Path("experiments", "small").mkdir(parents=True)
    options["network_g"]["out_size"] = 500
    monkeypatch.setattr(sys, "argv", ["gpen-train", "-opt", str(write_options(options))])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit, match=r"^1$"):
        runpy.run_path(train.__file__, run_name="__main__")
    error = capsys.readouterr().err
    assert "network_g:out_size: got 500" in error
    assert "Traceback" not in error
    assert [path.name for path in Path("experiments").iterdir()] == ["small"]


def test_runs_write_below_the_current_folder(options, test_options, write_options, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    options["train"]["total_iter"] = 1
    host_logger.initialized_logger.clear()
    assert train.main(["-opt", str(write_options(options))]) == 0
    weights = Path("experiments/small/models/net_g_latest.pth")
    assert weights.is_file()
    assert Path("tb_logger/small").is_dir()
    test_options["path"]["pretrain_network_g"] = str(weights)
    host_logger.initialized_logger.clear()
    assert test_command.main(["-opt", str(write_options(test_options))]) == 0
    assert len(list(Path("results/small_test/visualization/test").glob("*.png"))) == 2
