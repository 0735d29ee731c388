"""Randomness of a training step as a function of its place in the run.

Nothing is drawn from a stream that runs on: what image n of iteration i sees comes from (seed, i, n, purpose). So a
resumed training draws what an unstopped one draws, and two ranks draw together what one rank with twice the batch does.
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
    """Where the random numbers of a run come from.

    Args:
        seed: ``manual_seed`` of the run.
        rank: of this process.
        world_size: how many ranks there are; their images are numbered as the host's sampler deals them out.
        device: on which the numbers are drawn.
    """

    def __init__(self, seed: int, rank: int, world_size: int, device: torch.device):
        self.seed, self.rank, self.world_size = seed, rank, world_size
        own_gpu = device.type == "cuda" and device.index is None
        self.device = torch.device("cuda", torch.cuda.current_device()) if own_gpu else device

    def streams(self, purpose: str, iteration: int, batch: int) -> list[torch.Generator]:
        """One generator for each of this rank's `batch` images."""
        return [self.stream(purpose, iteration, self.rank + n * self.world_size) for n in range(batch)]

    def stream(self, purpose: str, *place: int) -> torch.Generator:
        """The generator of one place, the same on every rank."""
        sequence = np.random.SeedSequence((self.seed, STREAMS.index(purpose), *place))
        generator = torch.Generator(self.device)
        return generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))


def normal(shape: Sequence[int], streams: Sequence[torch.Generator]) -> torch.Tensor:
    """N(0, 1), (N, *shape), each sample from its own stream."""
    return torch.stack([torch.randn(tuple(shape), generator=s, device=s.device) for s in streams])


def noise_maps(prior: GPENPrior, streams: Sequence[torch.Generator]) -> list[torch.Tensor | None]:
    """As `GPENPrior.make_noise`, each sample from its own stream."""
    drawn = zip(*(prior.make_noise(1, stream) for stream in streams), strict=True)
    return [None if maps[0] is None else torch.cat(maps) for maps in drawn]


def mix_styles(
    prior: GPENPrior, streams: Sequence[torch.Generator], mixing_prob: float
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Codes for style mixing (StyleGAN2): a sample is mixed of two with probability `mixing_prob`.

    Args:
        prior: tells the length of a code and how many the blocks take.
        streams: one per sample.
        mixing_prob: from 0 to 1.
    Returns:
        Two codes, (N, F) each, and for each sample the place from which the second rules, (N,).
    """
    first, second = normal((2, prior.num_style_feat), streams).unbind(dim=1)  # (N, 2, F) -> 2 x (N, F)
    chance, where = torch.stack([torch.rand(2, generator=s, device=s.device) for s in streams]).unbind(dim=1)  # (N,)
    place = 1 + (where * (prior.num_latent - 1)).long()  # 1 to num_latent - 1
    return [first, second], place.where(chance < mixing_prob, torch.full_like(place, prior.num_latent))
