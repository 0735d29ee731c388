"""What the GAN inversions share: the frozen prior that they search, its noise, and the downscaling of the protocol."""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from gpen_plugin.archs.gan_prior_arch import GANPrior
from gpen_plugin.baselines.method import Sample, count_parameters
from gpen_plugin.checkpoints import sha256_of
from gpen_plugin.data.image_source import resize_square
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import GPENError, OptionError
from gpen_plugin.host import host_module
from gpen_plugin.restore.network import from_network, to_network
from gpen_plugin.restore.prior_sampler import PriorSampler

OtherNoise = Literal["zero", "fixed"]


class FrozenPrior:
    """A GAN prior without gradients of its own, and its description. Errors are those of `PriorSampler`."""

    def __init__(
        self,
        weights: str | PathLike,  # file of a GAN prior
        key: str | None,  # entry of the file; None takes the EMA weights if there are any
        device: str | torch.device,
        where: str,  # key path of the method's entry, for errors
    ):
        try:
            sampler = PriorSampler(weights, key, device, truncation=1.0)
        except GPENError as error:
            raise error.under(f"{where}:prior") from None
        self.net: GANPrior = sampler.net
        self.parameters = count_parameters(sampler.net)
        self.device, self.size = torch.device(device), sampler.spec.out_size
        self.arguments = sampler.spec.arguments()
        self.sha256 = sha256_of(weights)
        self.description = f"on {sampler.spec}, {Path(weights).name} {self.sha256[:12]}"

    def to_tensor(self, image: np.ndarray) -> torch.Tensor:
        """(h, w, 3) BGR uint8 -> (1, 3, h, w) RGB in [-1, 1]."""
        return to_network(image.astype(np.float32) / 255)[None].to(self.device)  # (1, 3, h, w)

    def to_image(self, output: torch.Tensor, size: int) -> np.ndarray:
        """(1, 3, S, S) RGB, about [-1, 1] -> (size, size, 3) BGR uint8; area (down) or bicubic (up) resizing."""
        return resize_square(from_network(output.detach()[0]), size)


def apply_preset(options: object, settings: Mapping[str, object]) -> None:
    """Set each option that has its default to the value of a preset. For ``__post_init__`` of a frozen data class."""
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    for name, value in settings.items():
        if getattr(options, name) == defaults[name]:
            object.__setattr__(options, name, value)


def sample_generator(seed: int, sample: Sample) -> torch.Generator:
    """The generator of a sample, on the CPU, where a seed gives the same numbers on every machine."""
    return torch.Generator().manual_seed(int(rng_from_key(seed, sample.key, sample.condition).integers(2**63)))


def seeded_noise(
    net: GANPrior, generator: torch.Generator, beyond: OtherNoise, searched: int = 0
) -> list[torch.Tensor | None]:
    """One map per resolution: the `searched` coarsest are sampled; the others too if `fixed`, else None (zeros)."""
    noise = net.make_noise(1, generator)
    return noise if beyond == "fixed" else noise[:searched] + [None] * (len(noise) - searched)


def check_at_least(options: object, lowest: Mapping[str, float]) -> None:
    """Raise an `OptionError` for the first attribute that is below its bound or not finite."""
    for name, bound in lowest.items():
        value = getattr(options, name)
        if not bound <= value < float("inf"):
            raise OptionError(name, f"got {value}", f"a number from {bound:g}")


def check_positive(options: object, *names: str) -> None:
    """Raise an `OptionError` for the first attribute that is not finite and above 0."""
    for name in names:
        value = getattr(options, name)
        if not 0 < value < float("inf"):
            raise OptionError(name, f"got {value}", "a number above 0")


# ``bicubic`` is the host's antialiased `imresize` (as in ``fsr``), ``area`` the mean over the pixels that fall together
# (as in ``bfr`` before noise and JPEG), ``bilinear`` PyTorch's, which is not antialiased (mGANprior's program).
Kernel = Literal["bicubic", "area", "bilinear"]


class Downscaler:
    """Downscale an image to the size of a degraded face: A X B^T, exact and differentiable."""

    def __init__(
        self,
        kernel: Kernel,
        size: int,  # side of the image
        height: int,  # of the small image; any size
        width: int,  # of the small image; any size
        device: str | torch.device = "cpu",
    ):
        self._rows = resize_matrix(kernel, size, height).to(device)
        self._columns = resize_matrix(kernel, size, width).to(device)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """(N, C, size, size) -> (N, C, height, width)."""
        return self._rows @ image @ self._columns.T


@lru_cache(maxsize=64)
def resize_matrix(kernel: Kernel, size: int, wanted: int) -> torch.Tensor:
    """The matrix (wanted, size) float32 that resizes a row of `size` pixels to `wanted`; its rows sum to 1."""
    return {"bicubic": _bicubic, "area": _area, "bilinear": _bilinear}[kernel](size, wanted)


def _bilinear(size: int, wanted: int) -> torch.Tensor:
    return F.interpolate(torch.eye(size)[None], size=wanted, mode="linear", align_corners=False)[0].T.contiguous()


def _bicubic(size: int, wanted: int) -> torch.Tensor:
    """The host's weights, added at the pixels that its mirrored border repeats."""
    host = host_module("basicsr.utils.matlab_functions", "bicubic downscaling")
    weights, indices, surplus, _ = host.calculate_weights_indices(size, wanted, wanted / size, "cubic", 4, True)
    source = (indices.long() - surplus) % (2 * size)  # the mirrored image repeats after twice its size
    source = torch.where(source < size, source, 2 * size - 1 - source)
    return torch.zeros(wanted, size).scatter_add_(1, source, weights)


def _area(size: int, wanted: int) -> torch.Tensor:
    """The overlap of each pixel with each of the wanted pixels."""
    edges = torch.arange(wanted + 1, dtype=torch.float64) * size / wanted
    pixels = torch.arange(size, dtype=torch.float64)
    ends = torch.minimum(edges[1:, None], pixels + 1)  # (wanted, size)
    overlap = (ends - torch.maximum(edges[:-1, None], pixels)).clamp(min=0)
    return (overlap * wanted / size).float()
