"""Face networks from ONNX files: ours, and those that other tools share."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from gpen_plugin.errors import CheckpointError, ShapeError
from gpen_plugin.metrics.onnx_file import OnnxNetwork
from gpen_plugin.restore.network_pictures import faces_from_network, faces_to_network
from gpen_plugin.restore.zoo import Conventions, ReleasedModel

LARGEST_OF_ARCFACE = 256  # pixels: up to here other tools align by ArcFace's template, beyond by FFHQ's


class OnnxFaceNetwork:
    """An ONNX file as a `FaceNetwork`.

    It takes RGB faces of one size, and its first output are faces. Our own files tell their conventions; of others,
    the released model that the name speaks of tells them, or else what the tools that made them agree on: [-1, 1].

    Args:
        path: of the file.
        device: where it is to work; on the CPU where onnxruntime was built for nothing else.
        known: the released model that it is called after.
    Raises:
        MissingFileError: onnxruntime is not installed.
        CheckpointError: the file is damaged, or is of another network.
    """

    def __init__(self, path: Path, device: torch.device, known: ReleasedModel | None = None):
        self._file = OnnxNetwork(path, device)
        self.in_size = self._checked_input()
        conventions = _conventions(self._file, self.in_size, known)
        self.template, self.alpha, self.task = conventions.template, conventions.alpha, conventions.task
        self._value_range = conventions.value_range
        self.out_size = self._checked_output()
        if known is not None and self.out_size != known.out_size:
            came, way_out = f"gives {self.out_size} px", "Give the file a name of its own."
            raise CheckpointError(str(path), came, f"{known.out_size} px, as {known.name}", way_out)
        precision = self._file.metadata.get("gpen_precision", np.dtype(self._file.precision).name)
        self.description = f"ONNX network {self.out_size} px, {path.name}; {precision} on {self._file.provider}"

    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `FaceNetwork`. A file that fixes the size of its batch is run as often as need be."""
        if not faces:
            return []
        pictures = faces_to_network(faces, self.in_size, self._value_range).numpy()
        output = torch.from_numpy(self._run(pictures))  # (N, 3, out_size, out_size)
        return faces_from_network(output, self._value_range, self.description)

    def _run(self, pictures: np.ndarray) -> np.ndarray:
        """(N, 3, S, S) -> (N, 3, T, T), both float; the last batch of a fixed size is filled up with its last face."""
        size = self._file.batch or len(pictures)
        missing = -len(pictures) % size
        filled = np.concatenate([pictures, np.repeat(pictures[-1:], missing, axis=0)])  # (N + missing, 3, S, S)
        try:
            parts = [next(iter(self._file(part).values())) for part in np.split(filled, len(filled) // size)]
        except ShapeError as error:
            way_out = "If it takes one at a time, whatever it says, restore with a batch of 1."
            raise CheckpointError(self._file.path, error.came, "a network of RGB faces", way_out) from error
        return np.concatenate(parts)[: len(pictures)]

    def _checked_input(self) -> int:
        file = self._file
        height, width = file.sides
        if file.channels != 3 or height is None or height != width:
            shape = ", ".join("any" if side is None else str(side) for side in (file.channels, height, width))
            expected, way_out = "(3, S, S) of one size S", "Export it with a fixed height and width."
            raise CheckpointError(file.path, f"takes pictures of shape ({shape})", expected, way_out)
        return height

    def _checked_output(self) -> int:
        """The side of what it gives; from a run, if the file does not tell."""
        shape = tuple(self._file.output_shape)
        if not all(isinstance(side, int) for side in shape[1:]) or len(shape) != 4:
            shape = self._run(np.zeros((1, 3, self.in_size, self.in_size), np.float32)).shape
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise CheckpointError(self._file.path, f"gives {shape}", "faces (N, 3, S, S) as its first output")
        return shape[2]


def _conventions(file: OnnxNetwork, in_size: int, known: ReleasedModel | None) -> Conventions:
    """What the file tells, over what its name tells, over what is usual."""
    if known is not None:
        usual = known.conventions
    elif "gpen_version" in file.metadata:
        usual = Conventions()
    else:
        usual = Conventions(template="arcface" if in_size <= LARGEST_OF_ARCFACE else "ffhq")
    told = {key: file.metadata[f"gpen_{key}"] for key in ("task", "template") if f"gpen_{key}" in file.metadata}
    if "gpen_alpha" in file.metadata:
        told["alpha"] = _alpha(file.metadata["gpen_alpha"], f"{file.path}: gpen_alpha")
    if "gpen_value_range" in file.metadata:
        told["value_range"] = _value_range(file.metadata["gpen_value_range"], f"{file.path}: gpen_value_range")
    return replace(usual, **told)


def _alpha(text: str, where: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise CheckpointError(where, f"got {text}", "a number from 0 to 1")
    return alpha


def _value_range(text: str, where: str) -> tuple[float, float]:
    try:
        low, high = map(float, json.loads(text))
    except (ValueError, TypeError):
        low = high = 0.0
    if not low < high:
        raise CheckpointError(where, f"got {text}", "two numbers such as [-1, 1]")
    return low, high
