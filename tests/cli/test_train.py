"""``gpen-train --dry-run``: the checks of a run, and nothing else."""

import re
import sys
from pathlib import Path

import pytest

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
