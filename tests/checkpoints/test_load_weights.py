"""Weights of somebody else's network: damaged and malicious files are refused, whatever the damage."""

import io
import pickle
from pathlib import Path

import pytest
import torch

from gpen_plugin.checkpoints.download import read_weights
from gpen_plugin.errors import CheckpointError


class Malice:
    def __reduce__(self):
        return (Path.touch, (Path("malice_was_here"),))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", pickle.dumps({"a": Malice()}, 2), b"<html>"])
def test_damaged_and_malicious_files_are_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path("bad.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.pth: cannot be read, or is not safe to read"):
        read_weights("bad.pth")
    assert not Path("malice_was_here").exists()


def test_truncated_auxiliary_file_is_refused(tmp_path):
    """Of the kind that torchvision still publishes, from before PyTorch's were zip files."""
    stream = io.BytesIO()
    torch.save({"weight": torch.ones(9, 9)}, stream, _use_new_zipfile_serialization=False)
    for length in range(0, stream.tell(), 7):
        (tmp_path / "bad.pth").write_bytes(stream.getvalue()[:length])
        with pytest.raises(CheckpointError, match=r"bad\.pth: cannot be read"):
            read_weights(tmp_path / "bad.pth")


def test_weights_are_read(tmp_path):
    torch.save({"a": torch.arange(3)}, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth")["a"].tolist() == [0, 1, 2]
    torch.save([1], tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth: holds a list; expected tensors by name"):
        read_weights(tmp_path / "a.pth")
