"""Networks from ONNX files, run by onnxruntime."""

import os
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from gpen_plugin.errors import CheckpointError, MissingFileError, ShapeError

PROVIDERS = {"cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider", "cpu": "CPUExecutionProvider"}
PRECISIONS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxNetwork:
    """A network of one input.

    Args:
        path: of the file.
        device: where it is to work; on the CPU if onnxruntime was built without what the device needs.
    Attributes:
        path: of the file.
        batch, channels, sides: what the file fixes of the shape (N, C, H, W) of its input; None where it does not.
        precision: of its input, float32 or float16.
        output_shape: of its first output, as the file tells it: numbers, names and None.
        metadata: texts by name that whoever made the file wrote into it.
        provider: where it works, as onnxruntime calls it: ``CPU``, ``CUDA`` or ``CoreML``.
    Raises:
        MissingFileError: onnxruntime is not installed.
        CheckpointError: the file is damaged, or has not one input of floats.
    """

    def __init__(self, path: str | os.PathLike, device: torch.device):
        self.path, self._session = str(path), _session(path, device)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in PRECISIONS:
            got = f"has the inputs {', '.join(f'{each.name} {each.shape} {each.type}' for each in inputs)}"
            raise CheckpointError(self.path, got, "one of (N, C, H, W), float", "Name a network of one image.")
        outputs = self._session.get_outputs()
        self._input, self._outputs = inputs[0].name, [each.name for each in outputs]
        self.precision, self.output_shape = PRECISIONS[inputs[0].type], outputs[0].shape
        fixed = (side if isinstance(side, int) else None for side in inputs[0].shape)
        self.batch, self.channels, *self.sides = fixed
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self.provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run it.

        Args:
            images: (N, C, H, W) float32, each as the file fixes it.
        Returns:
            The outputs by name, in the file's order and precision.
        Raises:
            ShapeError: it does not take images of this shape.
        """
        given = {self._input: images.astype(self.precision, copy=False)}
        try:
            return dict(zip(self._outputs, self._session.run(None, given), strict=True))
        except Exception as error:  # onnxruntime's classes have no base of their own
            got = f"does not take images of shape {images.shape} ({str(error).strip().splitlines()[0][:200]})"
            raise ShapeError(self.path, got, hint="Mend input_size or channels.") from error


@lru_cache(maxsize=4)
def open_onnx(path: str, device: torch.device) -> OnnxNetwork:
    """An `OnnxNetwork`, opened once per process."""
    return OnnxNetwork(path, device)


def _session(path: str | os.PathLike, device: torch.device) -> Callable:
    try:
        import onnxruntime
    except ImportError as error:
        got, hint = "the package onnxruntime is not installed", 'Run: pip install "gpen_plugin[evaluate]"'
        raise MissingFileError(str(path), got, hint=hint) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors come back as exceptions
    options.intra_op_num_threads = torch.get_num_threads()
    there = onnxruntime.get_available_providers()
    wanted = dict.fromkeys(PROVIDERS.get(kind) for kind in (device.type, "cpu"))  # each once, in this order
    providers = [each for each in wanted if each in there]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's classes have no base of their own
        got = f"cannot be opened ({str(error).strip().splitlines()[0][:200]})"
        raise CheckpointError(str(path), got, "an ONNX file", "Fetch or write it again.") from error
