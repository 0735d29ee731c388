"""Networks from ONNX files, run by onnxruntime."""

import os
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from gpen_plugin.errors import CheckpointError, MissingFileError, ShapeError


class OnnxNetwork:
    """A network of one input.

    Args:
        path: of the file.
        device: where it is to work; on the CPU if onnxruntime was built without CUDA.
    Raises:
        MissingFileError: onnxruntime is not installed.
        CheckpointError: the file is damaged, or has not one input.
    """

    def __init__(self, path: str | os.PathLike, device: torch.device):
        self.path, self._session = str(path), _session(path, device)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            came = f"has the inputs {', '.join(f'{each.name} {each.shape}' for each in inputs)}"
            raise CheckpointError(self.path, came, "one of (N, C, H, W)", "Name a network of one picture.")
        self._input = inputs[0].name
        self._outputs = [each.name for each in self._session.get_outputs()]
        self.channels, *self.sides = (side if isinstance(side, int) else None for side in inputs[0].shape[1:])

    def __call__(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """Run it.

        Args:
            pictures: (N, C, H, W) float32; each of C, H and W as the file fixes it, see `channels` and `sides`, which
                are None where it does not.
        Returns:
            The outputs by name, in the file's order.
        Raises:
            ShapeError: it does not take pictures of this shape.
        """
        try:
            return dict(zip(self._outputs, self._session.run(None, {self._input: pictures}), strict=True))
        except Exception as error:  # onnxruntime's classes have no base of their own
            came = f"does not take pictures of shape {pictures.shape} ({str(error).strip().splitlines()[0][:200]})"
            raise ShapeError(self.path, came, way_out="Mend input_size or channels.") from error


@lru_cache(maxsize=4)
def open_onnx(path: str, device: torch.device) -> OnnxNetwork:
    """An `OnnxNetwork`, opened once per process."""
    return OnnxNetwork(path, device)


def _session(path: str | os.PathLike, device: torch.device) -> Callable:
    try:
        import onnxruntime
    except ImportError as error:
        came, way_out = "the package onnxruntime is not installed", 'Run: pip install "gpen_plugin[evaluate]"'
        raise MissingFileError(str(path), came, way_out=way_out) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors come back as exceptions
    options.intra_op_num_threads = torch.get_num_threads()
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    there = onnxruntime.get_available_providers()
    providers = [each for each in (*wanted, "CPUExecutionProvider") if each in there]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's classes have no base of their own
        came = f"cannot be opened ({str(error).strip().splitlines()[0][:200]})"
        raise CheckpointError(str(path), came, "an ONNX file", "Fetch or write it again.") from error
