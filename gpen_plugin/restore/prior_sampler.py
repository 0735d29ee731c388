"""Generate images with a trained GAN prior, each from its seed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from os import PathLike
from typing import Literal

import numpy as np
import torch

from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.errors import CheckpointError, OptionError

NoiseChoice = Literal["random", "fixed", "zero"]

SHARED_SEED = 0  # of the mean latent and the fixed noise
MEAN_SAMPLES = 4096  # latents of the mean for truncation


@dataclass(frozen=True)
class Sample:
    latents: torch.Tensor  # (1, num_latent, F)
    noise_seeds: tuple[int, ...]  # whose noise each resolution takes, coarse to fine


class PriorSampler:
    """A GAN prior with its weights. An image depends on its seed, the weights and the arguments only.

    Raises:
        CheckpointError: the file cannot be read, or holds something else than a GAN prior.
        OptionError: `truncation` is outside [0, 1].
    """

    def __init__(
        self,
        weights: str | PathLike,  # of a GAN prior of any kind, whose tensors determine its sizes
        # entry of the file, e.g. ``params``; None prefers the averaged weights
        key: str | None = None,
        device: str | torch.device = "cpu",  # where to compute
        # 1 leaves w unchanged, 0 gives the mean w of `MEAN_SAMPLES` z
        truncation: float = 0.7,
        noise: NoiseChoice = "random",  # ``random``, each seed its own; ``fixed``, one for all; ``zero``
        batch: int = 8,  # images per batch
    ):
        if not 0 <= truncation <= 1:  # NaN is neither
            expected = "a number from 0, the mean face, to 1, all variety"
            raise OptionError("truncation", f"got {truncation:g}", expected)
        self.spec = checkpoint.infer_spec(checkpoint.read(weights, key), str(weights))
        if self.spec.kind != self.spec.prior:
            hint = "Name a net_g_*.pth of a prior's training."
            raise CheckpointError(str(weights), f"holds {self.spec}", "a GPENPrior or another GAN prior", hint)
        self.net = checkpoint.build(self.spec)
        checkpoint.load_into(self.net, weights, key)
        self.net.to(device).eval().requires_grad_(False)
        self.device, self.truncation, self.noise, self.batch = device, truncation, noise, batch
        self.mean = self.net.mean_latent(MEAN_SAMPLES, _generator(SHARED_SEED)) if truncation != 1 else None

    def __call__(self, samples: Iterable[Sample]) -> Iterator[np.ndarray]:
        """Generate images, uint8 BGR, (S, S, 3), `batch` at a time."""
        samples = iter(samples)
        while group := list(islice(samples, self.batch)):
            yield from self._generate(group)

    def z(self, seed: int) -> torch.Tensor:
        """The code of a seed, (1, F)."""
        return torch.randn(1, self.net.num_style_feat, generator=_generator(seed)).to(self.device)

    def to_sample(self, z: torch.Tensor, seed: int) -> Sample:
        """A code, (1, F), with the noise of a seed."""
        latents = self.net.to_latents(z, truncation=self.truncation, truncation_latent=self.mean)
        return Sample(latents, (seed,) * len(self.net.blocks))

    def from_seed(self, seed: int) -> Sample:
        return self.to_sample(self.z(seed), seed)

    def mix(
        self,
        source: Sample,  # gives pose and shape
        style: Sample,  # gives what is finer
        from_resolution: int,  # a power of two from 4, which takes all from `style`, to the image's size
    ) -> Sample:
        """Style mixing: the blocks from `from_resolution` on get their codes and noise from `style`.

        The image of the block before shares a code with them, so it already has the colors of the style.

        Raises: OptionError: there is no such block.
        """
        if self.net.num_latent == 1:
            kind = type(self.net).__name__
            raise OptionError("mode", "got mix", f"another mode: {kind} has a single latent code", "Use interpolate.")
        if str(from_resolution) not in self.net.blocks:
            raise OptionError("from_resolution", f"got {from_resolution}", f"one of {', '.join(self.net.blocks)}")
        below = [block for size, block in self.net.blocks.items() if int(size) < from_resolution]
        first = sum(block.num_latent for block in below)
        latents = torch.cat([source.latents[:, :first], style.latents[:, first:]], dim=1)  # (1, num_latent, F)
        return Sample(latents, source.noise_seeds[: len(below)] + style.noise_seeds[len(below) :])

    def interpolate(
        self,
        seeds: Sequence[int],  # two or more
        frames: int,  # images from one seed to just before the next, 1 or more
        space: Literal["w", "z"],  # ``w`` goes straight, ``z`` along the arc
    ) -> Iterator[Sample]:
        """Interpolate between each seed and the next.

        Yields: frames * (len(seeds) - 1) + 1 samples; the first, every `frames`-th and the last are those of the seeds.
        """
        for one, other in pairwise(seeds):
            start, end = self.from_seed(one), self.from_seed(other)
            for fraction in (frame / frames for frame in range(frames)):
                if space == "z":
                    yield self.to_sample(_slerp(self.z(one), self.z(other), fraction), one)
                else:
                    yield Sample(torch.lerp(start.latents, end.latents, fraction), start.noise_seeds)
        yield self.from_seed(seeds[-1])

    @torch.inference_mode()
    def _generate(self, group: list[Sample]) -> list[np.ndarray]:
        latents = torch.cat([to_sample.latents for to_sample in group])  # (N, num_latent, F)
        output = self.net.synthesize(latents, self._noise(group))[-1].float().cpu().numpy()  # (N, 3, S, S)
        images = np.clip((output + 1) * 127.5, 0, 255).round().astype(np.uint8)
        return [np.ascontiguousarray(image.transpose(1, 2, 0)[..., ::-1]) for image in images]

    def _noise(self, group: list[Sample]) -> list[torch.Tensor | None]:
        if self.noise == "zero" or self.net.noise_mode == "none":
            return [None] * len(self.net.blocks)
        if self.noise == "fixed":
            return self._shared_noise
        seeds = [to_sample.noise_seeds for to_sample in group]
        maps = {seed: self._seed_noise(seed) for seed in {seed for row in seeds for seed in row}}
        return [torch.cat([maps[row[i]][i] for row in seeds]) for i in range(len(self.net.blocks))]

    @cached_property
    def _shared_noise(self) -> list[torch.Tensor | None]:
        return self.net.make_noise(1, _generator(SHARED_SEED))

    def _seed_noise(self, seed: int) -> list[torch.Tensor | None]:
        """The seed's random numbers after z."""
        stream = _generator(seed)
        torch.randn(1, self.net.num_style_feat, generator=stream)
        return self.net.make_noise(1, stream)


def _generator(seed: int) -> torch.Generator:
    """On the CPU, where a seed means the same on every machine."""
    return torch.Generator().manual_seed(seed)


def _slerp(start: torch.Tensor, end: torch.Tensor, fraction: float) -> torch.Tensor:
    """Spherical interpolation (Shoemake 1985) of codes (1, F)."""
    cosine = torch.cosine_similarity(start, end).clamp(-1, 1)
    angle = cosine.acos().clamp(1e-4, torch.pi - 1e-4)
    return (((1 - fraction) * angle).sin() * start + (fraction * angle).sin() * end) / angle.sin()
