"""How pictures enter a network and leave it: the one place where value range and order of channels change."""

from collections.abc import Sequence

import numpy as np
import torch

from gpen_plugin.data.degradation import resize_bilinear
from gpen_plugin.errors import DataError, ShapeError


def to_network(picture: np.ndarray, value_range: tuple[float, float] = (-1, 1), *, rgb: bool = True) -> torch.Tensor:
    """Turn a picture into what a network takes.

    Args:
        picture: (H, W, 3) BGR float32 in [0, 1].
        value_range: lowest and highest value of the result.
        rgb: its order of channels; BGR otherwise.
    Returns:
        (3, H, W) float32, contiguous.
    """
    low, high = map(np.float32, value_range)
    channels = (picture[:, :, ::-1] if rgb else picture).transpose(2, 0, 1)  # (3, H, W)
    return torch.from_numpy(np.ascontiguousarray(channels) * (high - low) + low)


def from_network(output: torch.Tensor, value_range: tuple[float, float] = (-1, 1), *, rgb: bool = True) -> np.ndarray:
    """Turn what a network gives into a picture, as the validation of a training does.

    Args:
        output: (3, H, W), float, about `value_range`: what is beyond is clipped.
        value_range: its lowest and highest value.
        rgb: its order of channels; BGR otherwise.
    Returns:
        (H, W, 3) BGR uint8.
    """
    picture = (_unit(output, value_range) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()  # (H, W, 3)
    return np.ascontiguousarray(picture[:, :, ::-1] if rgb else picture)


def faces_to_network(faces: Sequence[np.ndarray], size: int, value_range: tuple[float, float]) -> torch.Tensor:
    """Turn faces into a batch; those of another size are resized bilinearly.

    Args:
        faces: (H, W, 3) BGR float32 in [0, 1]; one or more.
        size: side that the network takes.
        value_range: lowest and highest value of the result.
    Returns:
        (N, 3, size, size) float32, RGB.
    Raises:
        ShapeError: a face of another shape or type.
    """
    for face in faces:
        if face.ndim != 3 or face.shape[2] != 3 or 0 in face.shape or face.dtype != np.float32:
            raise ShapeError("faces", f"got {face.shape} {face.dtype}", "(H, W, 3) float32 in BGR order, in [0, 1]")
    fitting = [face if face.shape[:2] == (size, size) else resize_bilinear(face, size) for face in faces]
    return torch.stack([to_network(face, value_range) for face in fitting])  # (N, 3, size, size)


def faces_from_network(output: torch.Tensor, value_range: tuple[float, float], where: str) -> list[np.ndarray]:
    """Turn a network's batch into faces.

    Args:
        output: (N, 3, S, S) RGB, float, about `value_range`: what is beyond is clipped.
        value_range: its lowest and highest value.
        where: which network it is from, for the error.
    Returns:
        N faces, (S, S, 3) BGR float32 in [0, 1].
    Raises:
        DataError: values that are no numbers, which clipping would make black spots of.
    """
    broken = (~output.isfinite()).flatten(1).any(dim=1)  # (N, 3, S, S) -> (N,)
    if broken.any():
        came = f"gave values that are no numbers for {int(broken.sum())} of {len(output)} faces"
        way_out = "In half precision large networks overflow: use fp32. If this is fp32, the weights are damaged."
        raise DataError(where, came, "finite values", way_out)
    pictures = _unit(output, value_range).flip(1).permute(0, 2, 3, 1)  # (N, S, S, 3), BGR
    return list(pictures.contiguous().cpu().numpy())


def _unit(output: torch.Tensor, value_range: tuple[float, float]) -> torch.Tensor:
    """To [0, 1], float32, where `output` is."""
    low, high = value_range
    return ((output.float() - low) / (high - low)).clamp(0, 1)
