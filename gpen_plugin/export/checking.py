"""Hold what was exported against the network that it came from."""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from gpen_plugin.errors import CheckpointError
from gpen_plugin.restore.network import to_network

LOWEST, HIGHEST = -1.0, 1.0  # of the images that an exported network takes and gives
_SMOOTH = 3  # images of random colours

Images = list[torch.Tensor]
Network = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Difference:
    """How far two networks' images are apart, as fractions of the value range.

    Attributes:
        largest: of one value.
        rms: root of the mean square of all.
    """

    largest: float
    rms: float

    def check(self, tolerance: float, where: str, hint: str) -> None:
        """Raise a `CheckpointError` about the file `where` if the largest one is above `tolerance`, or is no number."""
        if not self.largest <= tolerance:
            expected = f"{tolerance:g} or less, so the file is not kept"
            raise CheckpointError(where, f"differs from PyTorch by {self}", expected, hint)

    def __str__(self) -> str:
        return f"{self.largest:.1e} of the value range (rms {self.rms:.1e})"


def make_test_inputs(in_size: int, batch: int | None, seed: int = 0) -> Images:
    """Images to compare with: three with smooth random colours and one of noise.

    Args:
        in_size: their side, S.
        batch: how many a network takes at once; None if any number, which is tried with one and with three.
        seed: of the first smooth image and of the noise.
    Returns:
        Batches (N, 3, S, S), RGB in [-1, 1]; where `batch` asks for more, the images come again.
    """
    noise = torch.rand(3, in_size, in_size, generator=torch.Generator().manual_seed(seed)) * (HIGHEST - LOWEST) + LOWEST
    images = [noise, *(_smooth_image(seed + index, in_size) for index in range(_SMOOTH))]
    if batch is None:
        return [noise[None], torch.stack(images[1:])]
    endless = itertools.cycle(images)
    return [torch.stack(list(itertools.islice(endless, batch))) for _ in range(math.ceil(len(images) / batch))]


def difference(expected: Network, given: Network, batches: Iterable[torch.Tensor]) -> Difference:
    """Compare what two networks make of the same batches, both (N, 3, S, S) -> (N, 3, T, T) on the CPU."""
    peaks, squares, count = [], 0.0, 0
    for batch in batches:
        gap = (given(batch) - expected(batch)).double() / (HIGHEST - LOWEST)  # (N, 3, T, T)
        peaks.append(gap.abs().max())
        squares, count = squares + gap.square().sum().item(), count + gap.numel()
    return Difference(torch.stack(peaks).max().item(), math.sqrt(squares / count))  # NaN, if there is one


def _smooth_image(seed: int, size: int) -> torch.Tensor:
    grid = np.random.default_rng(seed).random((8, 8, 3), np.float32)
    image = np.clip(cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)
    return to_network(image, (LOWEST, HIGHEST))
