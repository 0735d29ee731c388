"""Each script of datasets_prep/ as a command."""

import runpy
import sys

import pytest
from helpers import REPOSITORY

SCRIPTS = sorted(path for path in (REPOSITORY / "datasets_prep").glob("*.py") if "__main__" in path.read_text())


def test_scripts_are_found():
    assert len(SCRIPTS) > 3


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_is_shown(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.startswith(f"usage: {script.name} [-h]")
