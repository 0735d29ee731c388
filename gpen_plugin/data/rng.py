"""Random numbers: those of an image are a function of its key, those of a training step of the iteration.

The numbers of image n in iteration i are seeded with (seed, purpose, i, n). So a resumed training has the numbers of an
uninterrupted one, and two ranks together those of one rank with twice the batch.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

STREAMS = (
    "generator",
    "discriminator",
    "path length",
    "direction",
    "augmentation of G",
    "augmentation of D",
    "sample",
    "mean",
)


def rng_from_key(*parts: str | int) -> np.random.Generator:
    """A generator that depends on `parts` only, such as a seed and an image key; unlike `hash`, on every machine."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogateescape")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


class StepRNG:
    """The random generators of a run, on `device`. Images of the ranks are numbered as by BasicSR's sampler."""

    def __init__(self, seed: int, rank: int, world_size: int, device: torch.device):
        self.seed, self.rank, self.world_size = seed, rank, world_size
        own_gpu = device.type == "cuda" and device.index is None
        self.device = torch.device("cuda", torch.cuda.current_device()) if own_gpu else device

    def generators(self, purpose: str, iteration: int, batch: int) -> list[torch.Generator]:
        """One generator for each of this rank's `batch` images."""
        return [self.generator(purpose, iteration, self.rank + n * self.world_size) for n in range(batch)]

    def generator(self, purpose: str, *index: int) -> torch.Generator:
        """The generator of one index, the same on every rank."""
        sequence = np.random.SeedSequence((self.seed, STREAMS.index(purpose), *index))
        generator = torch.Generator(self.device)
        return generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))


def normal(shape: Sequence[int], generators: Sequence[torch.Generator]) -> torch.Tensor:
    """N(0, 1), (N, *shape), each sample from its own generator."""
    return torch.stack([torch.randn(tuple(shape), generator=g, device=g.device) for g in generators])
