"""ONNX files: what they fix, and what is said of those that do not fit."""

import sys

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from helpers.onnx_models import constant, mean_colour

from gpen_plugin.errors import CheckpointError, MissingFileError, ShapeError
from gpen_plugin.nets.onnx_file import OnnxNetwork

CPU = torch.device("cpu")


def test_outputs_by_name_and_what_the_file_fixes(tmp_path):
    free = OnnxNetwork(mean_colour(tmp_path / "free.onnx"), CPU)
    assert (free.channels, free.sides) == (3, [None, None])
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    assert np.allclose(free(image)["embedding"], [[1.5, 5.5, 9.5]])
    fixed = OnnxNetwork(mean_colour(tmp_path / "fixed.onnx", 1, 16), CPU)
    assert (fixed.channels, fixed.sides) == (1, [16, 16])
    with pytest.raises(ShapeError, match=r"fixed.onnx: does not take images of shape \(1, 3, 2, 2\)"):
        fixed(image)
    both = OnnxNetwork(
        constant(tmp_path / "both.onnx", {"b": np.ones(1, np.float32), "a": np.zeros(2, np.float32)}), CPU
    )
    assert [*both(image)] == ["b", "a"]


def test_a_damaged_file(tmp_path):
    (tmp_path / "damaged.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match=r"damaged.onnx: cannot be opened"):
        OnnxNetwork(tmp_path / "damaged.onnx", CPU)


def test_without_onnxruntime(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingFileError, match=r'pip install "gpen_plugin\[evaluate\]"'):
        OnnxNetwork(tmp_path / "any.onnx", CPU)
