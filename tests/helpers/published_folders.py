"""A machine of its own for tests of published files: empty folders, and no network."""

from pathlib import Path

import pytest

from gpen_plugin.checkpoints import download


def lonely_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let nothing be found but in the folder that is returned, and nothing be downloaded."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv(download.FOLDERS, str(folder))
    monkeypatch.setenv(download.OFFLINE, "1")
    monkeypatch.setattr(download, "_failures", {})
    return folder
