"""Draw images with a trained GAN prior, each from its seed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from os import PathLike
from typing import Literal

import numpy as np
import torch

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.errors import CheckpointError, OptionError

NoiseChoice = Literal["random", "fixed", "zero"]

SHARED_SEED = 0  # of what all samples have in common: the mean latent and the fixed noise
MEAN_OF = 4096  # latents whose mean truncation pulls towards


@dataclass(frozen=True)
class Drawing:
    """All that an image is made of.

    Attributes:
        latents: (1, num_latent, F).
        noise_seeds: whose noise each resolution takes, coarse to fine.
    """

    latents: torch.Tensor
    noise_seeds: tuple[int, ...]


class PriorSampler:
    """A GAN prior with its weights, as a function from seeds to images.

    An image is a function of its seed, the weights and the arguments here alone, so that it can be drawn again.

    Args:
        weights: a GPENPrior's file; sizes and widths are read off its tensors.
        key: entry of the file, e.g. ``params``; None takes the averaged weights where there are any.
        device: where to compute.
        truncation: 1 leaves w as it is, 0 gives the mean w of `MEAN_OF` z. Beyond them w is one that the mapping
            hardly ever gives and the decoder was not trained on.
        noise: ``random``, each seed its own; ``fixed``, one for all; ``zero``.
        batch: images drawn at once.
    Raises:
        CheckpointError: the file cannot be read, or holds something else than a GPENPrior.
        OptionError: `truncation` is outside [0, 1].
    """

    def __init__(
        self,
        weights: str | PathLike,
        key: str | None = None,
        device: str | torch.device = "cpu",
        truncation: float = 0.7,
        noise: NoiseChoice = "random",
        batch: int = 8,
    ):
        if not 0 <= truncation <= 1:  # NaN is neither
            expected = "a number from 0, the mean face, to 1, all variety"
            raise OptionError("truncation", f"got {truncation:g}", expected)
        self.spec = checkpoint.infer_spec(checkpoint.read(weights, key), str(weights))
        if self.spec.kind != "GPENPrior":
            hint = "Name a net_g_*.pth of a prior's training."
            raise CheckpointError(str(weights), f"holds {self.spec}", "a GPENPrior", hint)
        self.net = GPENPrior(**self.spec.arguments())
        checkpoint.load_into(self.net, weights, key)
        self.net.to(device).eval().requires_grad_(False)
        self.device, self.truncation, self.noise, self.batch = device, truncation, noise, batch
        self.mean = self.net.mean_latent(MEAN_OF, _stream(SHARED_SEED)) if truncation != 1 else None

    def __call__(self, drawings: Iterable[Drawing]) -> Iterator[np.ndarray]:
        """Draw, `batch` at a time: uint8 BGR images, (S, S, 3)."""
        drawings = iter(drawings)
        while group := list(islice(drawings, self.batch)):
            yield from self._draw(group)

    def z(self, seed: int) -> torch.Tensor:
        """The code of a seed, (1, F)."""
        return torch.randn(1, self.net.num_style_feat, generator=_stream(seed)).to(self.device)

    def drawing(self, z: torch.Tensor, seed: int) -> Drawing:
        """A code, (1, F), with the noise of a seed."""
        latents = self.net.to_latents(z, truncation=self.truncation, truncation_latent=self.mean)
        return Drawing(latents, (seed,) * len(self.net.blocks))

    def seeded(self, seed: int) -> Drawing:
        """The sample of a seed."""
        return self.drawing(self.z(seed), seed)

    def mixed(self, source: Drawing, style: Drawing, from_resolution: int) -> Drawing:
        """Style mixing: the blocks from `from_resolution` on take their codes and noise from `style`.

        The image of the block before shares a code with them, so its colours are the style's already.

        Args:
            source: gives pose and shape.
            style: gives what is finer.
            from_resolution: a power of two from 4, which takes all from `style`, to the image's size.
        Raises:
            OptionError: there is no such block.
        """
        if str(from_resolution) not in self.net.blocks:
            raise OptionError("from_resolution", f"got {from_resolution}", f"one of {', '.join(self.net.blocks)}")
        below = [block for size, block in self.net.blocks.items() if int(size) < from_resolution]
        first = sum(len(block.convs) for block in below)
        latents = torch.cat([source.latents[:, :first], style.latents[:, first:]], dim=1)  # (1, num_latent, F)
        return Drawing(latents, source.noise_seeds[: len(below)] + style.noise_seeds[len(below) :])

    def between(self, seeds: Sequence[int], frames: int, space: Literal["w", "z"]) -> Iterator[Drawing]:
        """The way from each seed to the next.

        Args:
            seeds: two or more.
            frames: images from one seed to just before the next, 1 or more.
            space: ``w`` goes straight, ``z`` along the arc.
        Yields:
            frames * (len(seeds) - 1) + 1 drawings; the first, every `frames`-th and the last are the seeds' own.
        """
        for one, other in pairwise(seeds):
            start, end = self.seeded(one), self.seeded(other)
            for share in (frame / frames for frame in range(frames)):
                if space == "z":
                    yield self.drawing(_on_arc(self.z(one), self.z(other), share), one)
                else:
                    yield Drawing(torch.lerp(start.latents, end.latents, share), start.noise_seeds)
        yield self.seeded(seeds[-1])

    @torch.inference_mode()
    def _draw(self, group: list[Drawing]) -> list[np.ndarray]:
        latents = torch.cat([drawing.latents for drawing in group])  # (N, num_latent, F)
        output = self.net.synthesise(latents, self._noise(group))[-1].float().cpu().numpy()  # (N, 3, S, S)
        images = np.clip((output + 1) * 127.5, 0, 255).round().astype(np.uint8)
        return [np.ascontiguousarray(image.transpose(1, 2, 0)[..., ::-1]) for image in images]

    def _noise(self, group: list[Drawing]) -> list[torch.Tensor | None]:
        if self.noise == "zero" or self.net.noise_mode == "none":
            return [None] * len(self.net.blocks)
        if self.noise == "fixed":
            return self._shared_noise
        seeds = [drawing.noise_seeds for drawing in group]
        maps = {seed: self._noise_of(seed) for seed in {seed for row in seeds for seed in row}}
        return [torch.cat([maps[row[place]][place] for row in seeds]) for place in range(len(self.net.blocks))]

    @cached_property
    def _shared_noise(self) -> list[torch.Tensor | None]:
        return self.net.make_noise(1, _stream(SHARED_SEED))

    def _noise_of(self, seed: int) -> list[torch.Tensor | None]:
        """What the seed's stream gives after z."""
        stream = _stream(seed)
        torch.randn(1, self.net.num_style_feat, generator=stream)
        return self.net.make_noise(1, stream)


def _stream(seed: int) -> torch.Generator:
    """On the CPU, where a seed means the same on every machine."""
    return torch.Generator().manual_seed(seed)


def _on_arc(start: torch.Tensor, end: torch.Tensor, share: float) -> torch.Tensor:
    """Spherical interpolation (Shoemake 1985) of codes (1, F)."""
    cosine = torch.cosine_similarity(start, end).clamp(-1, 1)
    angle = cosine.acos().clamp(1e-4, torch.pi - 1e-4)
    return (((1 - share) * angle).sin() * start + (share * angle).sin() * end) / angle.sin()
