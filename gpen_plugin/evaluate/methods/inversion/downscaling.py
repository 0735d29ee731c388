"""The protocol's downscaling as a product of matrices: exact, differentiable and fast."""

from functools import lru_cache
from typing import Literal

import torch

from gpen_plugin.host import host_module

Kernel = Literal["bicubic", "area"]


class Downscaler:
    """An image -> the small image that a degraded face is held against: A X B^T.

    Args:
        kernel: ``bicubic``, the host's antialiased `imresize` (what ``fsr`` does); ``area``, the mean over the pixels
            that fall together (what ``bfr`` does before noise and JPEG).
        size: side of the image.
        height: of the small image, of any size.
        width: likewise.
        device: where the images are.
    """

    def __init__(self, kernel: Kernel, size: int, height: int, width: int, device: str | torch.device = "cpu"):
        self._rows = resize_matrix(kernel, size, height).to(device)
        self._columns = resize_matrix(kernel, size, width).to(device)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """(N, C, size, size) -> (N, C, height, width)."""
        return self._rows @ image @ self._columns.T


@lru_cache(maxsize=64)
def resize_matrix(kernel: Kernel, size: int, wanted: int) -> torch.Tensor:
    """The matrix, (wanted, size) float32, that resizes a row of `size` pixels to `wanted`; its rows sum to 1."""
    return (_bicubic if kernel == "bicubic" else _area)(size, wanted)


def _bicubic(size: int, wanted: int) -> torch.Tensor:
    """The host's own weights, entered at the pixels that its mirrored border stands for."""
    host = host_module("basicsr.utils.matlab_functions", "bicubic downscaling")
    weights, indices, surplus, _ = host.calculate_weights_indices(size, wanted, wanted / size, "cubic", 4, True)
    source = (indices.long() - surplus) % (2 * size)  # the mirrored image repeats after twice its size
    source = torch.where(source < size, source, 2 * size - 1 - source)
    return torch.zeros(wanted, size).scatter_add_(1, source, weights)


def _area(size: int, wanted: int) -> torch.Tensor:
    """How much of each pixel lies below each of the wanted ones."""
    edges = torch.arange(wanted + 1, dtype=torch.float64) * size / wanted
    pixels = torch.arange(size, dtype=torch.float64)
    ends = torch.minimum(edges[1:, None], pixels + 1)  # (wanted, size)
    overlap = (ends - torch.maximum(edges[:-1, None], pixels)).clamp(min=0)
    return (overlap * wanted / size).float()
