"""One check and one wording for a tensor whose shape does not fit."""

from collections.abc import Mapping

import torch

from gpen_plugin.errors import ShapeError


def check_shape(name: str, tensor: torch.Tensor, dimensions: Mapping[str, int | None]) -> None:
    """Hold a tensor's shape against named dimensions.

    Args:
        name: what the tensor is, for the message, such as ``modulated_conv(style)``.
        tensor: of any shape.
        dimensions: the name of each dimension and its size, ``None`` where any size will do.
    Raises:
        ShapeError: naming the first dimension that does not fit, what was expected and what came.
    """
    shape = tuple(tensor.shape)
    wanted = "(" + ", ".join(key if size is None else f"{key}={size}" for key, size in dimensions.items()) + ")"
    if len(shape) != len(dimensions):
        raise ShapeError(name, f"got {len(shape)} dimensions, shape {shape}", wanted)
    for (key, size), came in zip(dimensions.items(), shape, strict=True):
        if size is not None and came != size:
            raise ShapeError(name, f"got {key}={came} in shape {shape}", wanted)
