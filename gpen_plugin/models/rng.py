"""Random numbers of a training step.

Those of image n in iteration i are seeded with (seed, purpose, i, n). So a resumed training has the numbers of an
uninterrupted one, and two ranks together those of one rank with twice the batch.
"""

from collections.abc import Sequence

import numpy as np
import torch

from gpen_plugin.archs.gan_prior_arch import GPENPrior

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


def noise_maps(prior: GPENPrior, generators: Sequence[torch.Generator]) -> list[torch.Tensor | None]:
    """As `GPENPrior.make_noise`, each sample from its own generator."""
    maps_of_samples = zip(*(prior.make_noise(1, generator) for generator in generators), strict=True)
    return [None if maps[0] is None else torch.cat(maps) for maps in maps_of_samples]


def mix_styles(
    prior: GPENPrior, generators: Sequence[torch.Generator], mixing_prob: float
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Style mixing (StyleGAN2): two codes, (N, F), and the index of the first layer that takes the second, (N,).

    With probability 1 - `mixing_prob` that is past the last layer.
    """
    first, second = normal((2, prior.num_style_feat), generators).unbind(dim=1)  # (N, 2, F) -> 2 x (N, F)
    u, position = torch.stack([torch.rand(2, generator=g, device=g.device) for g in generators]).unbind(dim=1)  # (N,)
    index = 1 + (position * (prior.num_latent - 1)).long()  # 1 to num_latent - 1
    return [first, second], index.where(u < mixing_prob, torch.full_like(index, prior.num_latent))
