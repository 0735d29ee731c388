"""What the inversions share: the prior that they search, and the way in and out of its value range."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from gpen_plugin.archs import GPENPrior
from gpen_plugin.checkpoints.download import sha256_of
from gpen_plugin.data.degradation import rng_from_key
from gpen_plugin.data.image_source import resize_square
from gpen_plugin.errors import GPENError, OptionError
from gpen_plugin.evaluate.case import Case
from gpen_plugin.restore.network import from_network, to_network
from gpen_plugin.restore.prior_sampler import PriorSampler

OtherNoise = Literal["zero", "fixed"]


class SearchedPrior:
    """A frozen GAN prior with what an evaluation has to say of it.

    Args:
        weights: a GPENPrior's file.
        key: entry of the file; None takes the averaged weights where there are any.
        device: where to compute.
        where: key path of the method's entry, for errors.
    Attributes:
        net: the prior, evaluating and without gradients of its own.
        size: side of its images.
        arguments: with which its class builds it.
        sha256: of the file.
        description: network, file and hash.
    Raises:
        CheckpointError: see `PriorSampler`.
    """

    def __init__(self, weights: str | PathLike, key: str | None, device: str | torch.device, where: str):
        try:
            sampler = PriorSampler(weights, key, device, truncation=1.0)
        except GPENError as error:
            raise error.under(f"{where}:prior") from None
        self.net: GPENPrior = sampler.net
        self.device, self.size = torch.device(device), sampler.spec.out_size
        self.arguments = sampler.spec.arguments()
        self.sha256 = sha256_of(weights)
        self.description = f"on {sampler.spec}, {Path(weights).name} {self.sha256[:12]}"

    def enter(self, image: np.ndarray) -> torch.Tensor:
        """(h, w, 3) BGR uint8 -> (1, 3, h, w) RGB in [-1, 1]."""
        return to_network(image.astype(np.float32) / 255)[None].to(self.device)  # (1, 3, h, w)

    def leave(self, output: torch.Tensor, size: int) -> np.ndarray:
        """(1, 3, S, S) RGB, about [-1, 1] -> (size, size, 3) BGR uint8; area (down) or bicubic (up) resizing."""
        return resize_square(from_network(output.detach()[0]), size)


def stream(seed: int, case: Case) -> torch.Generator:
    """Randomness of a case, drawn on the CPU, where a seed means the same on every machine."""
    return torch.Generator().manual_seed(int(rng_from_key(seed, case.key, case.condition).integers(2**63)))


def drawn_noise(
    net: GPENPrior, draw: torch.Generator, beyond: OtherNoise, searched: int = 0
) -> list[torch.Tensor | None]:
    """One map per resolution: the `searched` coarsest are drawn; the others too if `fixed`, else None, for zeros."""
    noise = net.make_noise(1, draw)
    return noise if beyond == "fixed" else noise[:searched] + [None] * (len(noise) - searched)


def at_least(options: object, lowest: Mapping[str, float]) -> None:
    """Raise an `OptionError` for the first attribute that is below its lowest value, or not finite."""
    for name, bound in lowest.items():
        value = getattr(options, name)
        if not bound <= value < float("inf"):
            raise OptionError(name, f"got {value}", f"a number from {bound:g}")


def above_zero(options: object, *names: str) -> None:
    """Raise an `OptionError` for the first attribute that is not a finite number above 0."""
    for name in names:
        value = getattr(options, name)
        if not 0 < value < float("inf"):
            raise OptionError(name, f"got {value}", "a number above 0")
