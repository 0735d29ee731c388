"""PULSE (Menon et al., CVPR 2020): search the prior for a face that downscales to the given image."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from gpen_plugin.archs.gan_prior_arch import GANPrior
from gpen_plugin.baselines.inversion import (
    Downscaler,
    FrozenPrior,
    Kernel,
    OtherNoise,
    apply_preset,
    check_at_least,
    check_positive,
    sample_generator,
    seeded_noise,
)
from gpen_plugin.baselines.method import Sample, seeded
from gpen_plugin.errors import OptionError

GAUSSIAN_SAMPLES = 65_536  # latents for the fit of the Gaussian
MAPPING_BATCH = 8192
SLOPE = 0.2  # of the leaky ReLU that ends the mapping network
GAIN = math.sqrt(2)  # of the same activation


AUTHORS = {"eps": 2e-3, "gaussian": "diagonal", "cross": "mean", "other_noise": "fixed"}


@dataclass(frozen=True)
class PulseOptions:
    """The keys of a ``type: pulse`` entry."""

    prior: str  # file of a GAN prior; the authors' is StyleGAN v1 for FFHQ at 1024 px
    prior_key: str | None = None  # entry of the file; ~ takes the EMA weights if there are any
    iterations: int = 100  # steps of the search
    lr: float = 0.4  # of Adam; coordinates on the sphere are about 1
    downscale: Kernel = "bicubic"  # kernel that made the degraded image small, ``bicubic`` or ``area``
    downscale_weight: float = 100.0  # of the mean squared difference of the small images, in [0, 1]
    cross_weight: float = 0.05  # of the geodesic cross loss
    noise_maps: int = 3  # number of noise maps that are searched too, coarse to fine
    # the other maps: ``zero``, or ``fixed`` as sampled, which leaves grain that the search cannot remove.
    other_noise: OtherNoise = "zero"
    eps: float = 1e-4  # the search ends once the mean squared difference is below it
    # the Gaussian before the mapping network's last activation: ``full`` covariance (the paper), or ``diagonal``
    gaussian: Literal["full", "diagonal"] = "full"
    # the geodesic cross loss: the ``sum`` of squared angles on the sphere (the paper), or F / 8 times the ``mean`` over
    # all pairs of codes w
    cross: Literal["sum", "mean"] = "sum"
    # ``authors``: what their program does, for each key that has its default: eps, gaussian, cross, other_noise
    preset: Literal["authors"] | None = None
    seed: int = 0  # of the starting point

    def __post_init__(self):
        if self.preset == "authors":
            apply_preset(self, AUTHORS)
        check_at_least(self, {"iterations": 1, "cross_weight": 0, "noise_maps": 0, "eps": 0})
        check_positive(self, "lr", "downscale_weight")


class Pulse:
    """PULSE on a GAN prior."""

    # As in the paper: one latent code per layer, each on the sphere of a Gaussian that is fitted to the outputs of the
    # mapping network before its last leaky ReLU; Adam, projected back to the sphere after every step; the loss is that
    # of downscaling plus the geodesic cross loss, which keeps the codes together.
    # Differences: the noise of GPEN's prior is one map of many channels per resolution, so the three coarsest maps
    # stand for the five of StyleGAN that the authors search, and all others are zero (the authors: the finest only).
    # `gaussian` and `cross` follow the paper where the authors' program differs. On StyleGAN v1 a map has one channel
    # as there, but both layers of a resolution share it. A prior without a mapping network (PGGAN) is searched on the
    # sphere of z itself. Downscaling is the protocol's. The learning rate follows our own curve. The best step is
    # returned even if it is not near the input, because an evaluation must not drop hard faces. The search ends early
    # within `eps`.

    def __init__(self, options: PulseOptions, where: str, device: torch.device):
        self.options = options
        self.prior = FrozenPrior(options.prior, options.prior_key, device, where)
        if options.noise_maps > len(self.prior.net.blocks):
            expected = f"at most {len(self.prior.net.blocks)}, all that the prior has"
            raise OptionError(f"{where}:noise_maps", f"got {options.noise_maps}", expected)
        self.parameters = self.prior.parameters
        self.sphere = LatentSphere(self.prior.net, options.gaussian)
        self.description = f"PULSE, {options.iterations} steps at {options.lr:g}, {self.prior.description}"
        self.identity = {
            "type": "pulse",
            **{name: value for name, value in dataclasses.asdict(options).items() if name != "prior"},
            "prior_sha256": self.prior.sha256,
        }

    def __call__(self, sample: Sample) -> np.ndarray:
        with seeded(self.prior.device):
            return self.prior.to_image(self.search(sample)[0], sample.size)

    @torch.enable_grad()
    def search(self, sample: Sample) -> tuple[torch.Tensor, list[float]]:
        """The best image, (1, 3, S, S), and the mean squared difference of every step, from the sample's own start."""
        options, net = self.options, self.prior.net
        downscaler = Downscaler(options.downscale, self.prior.size, *sample.lq.shape[:2], self.prior.device)
        target, generator = self.prior.to_tensor(sample.lq), sample_generator(options.seed, sample)
        codes = self._leaf(torch.randn(net.num_latent, net.num_style_feat, generator=generator))
        noise = seeded_noise(net, generator, options.other_noise, options.noise_maps)
        searched = [] if net.noise_mode == "none" else [self._leaf(map_) for map_ in noise[: options.noise_maps]]
        noise[: len(searched)] = searched
        optimizer = SphericalAdam([codes], searched, options.lr)
        best, lowest, differences = None, math.inf, []
        for step in range(options.iterations):
            optimizer.set_rate(options.lr * lr_factor(step / options.iterations))
            latents = self.sphere.to_latents(codes)
            image = net.synthesize(latents[None], noise)[-1]
            difference = (downscaler(image) - target).square().mean() / 4  # of [0, 1]: half the range of [-1, 1]
            loss = options.downscale_weight * difference + options.cross_weight * self._cross(codes, latents)
            differences.append(float(difference.detach()))
            if float(loss.detach()) < lowest:
                best, lowest = image.detach(), float(loss.detach())
            if differences[-1] < options.eps:
                return image.detach(), differences
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return best, differences

    def _cross(self, codes: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        if self.options.cross == "sum":
            return geodesic_cross(codes)
        number, length = latents.shape
        return (
            2 * geodesic_cross(latents) / number**2 * length / 8
        )  # each pair twice, and the pairs of a code with itself

    def _leaf(self, start: torch.Tensor) -> torch.Tensor:
        return start.to(self.prior.device).requires_grad_()


class LatentSphere:
    """The Gaussian that whitens the latent codes of a prior, and the map from its sphere to them."""

    def __init__(self, net: GANPrior, gaussian: Literal["full", "diagonal"] = "full"):
        self.maps = next(net.mapping.parameters(), None) is not None
        if not self.maps:
            return
        sums = self._before_activation(net)
        self.mean = sums.mean(dim=0)
        if gaussian == "diagonal":
            self.root = torch.diag(sums.std(dim=0))
        else:
            values, vectors = torch.linalg.eigh(torch.cov(sums.T))
            # the symmetric root: the one that does not depend on the signs that a solver gives to the vectors
            self.root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        device = next(net.parameters()).device
        self.mean, self.root = self.mean.float().to(device), self.root.float().to(device)

    def to_latents(self, codes: torch.Tensor) -> torch.Tensor:
        """Whitened codes, (K, F) -> latent codes w, (K, F). Without a mapping network they are the codes themselves."""
        if not self.maps:
            return codes
        return torch.nn.functional.leaky_relu(codes @ self.root + self.mean, SLOPE) * GAIN

    @staticmethod
    @torch.no_grad()
    def _before_activation(net: GANPrior) -> torch.Tensor:
        """Inputs of the last activation for random z, (GAUSSIAN_SAMPLES, F) float64 on the CPU."""
        generator, parts = torch.Generator().manual_seed(0), []
        for _ in range(GAUSSIAN_SAMPLES // MAPPING_BATCH):
            z = torch.randn(MAPPING_BATCH, net.num_style_feat, generator=generator).to(next(net.parameters()).device)
            parts.append(net.mapping(z).cpu().double())
        return torch.nn.functional.leaky_relu(torch.cat(parts) / GAIN, 1 / SLOPE)


class SphericalAdam(torch.optim.Adam):
    """Adam on spheres: each step is projected back."""

    def __init__(
        self,
        codes: Sequence[torch.Tensor],  # (K, F) each; a row is a point on a sphere of radius sqrt(F)
        maps: Sequence[torch.Tensor],  # (1, C, H, W) each; a channel is a point on a sphere of radius sqrt(H * W)
        lr: float,
    ):
        groups = [{"params": list(codes), "dims": (1,)}, {"params": list(maps), "dims": (2, 3)}]
        super().__init__([group for group in groups if group["params"]], lr=lr)
        self._to_spheres()

    def set_rate(self, lr: float) -> None:
        for group in self.param_groups:
            group["lr"] = lr

    def step(self) -> None:
        super().step()
        self._to_spheres()

    @torch.no_grad()
    def _to_spheres(self) -> None:
        for parameter, dims in self._points():
            parameter.mul_(torch.rsqrt(parameter.square().mean(dims, keepdim=True) + 1e-12))

    def _points(self) -> Iterable[tuple[torch.Tensor, tuple[int, ...]]]:
        return ((parameter, group["dims"]) for group in self.param_groups for parameter in group["params"])


def geodesic_cross(codes: torch.Tensor) -> torch.Tensor:
    """The sum over all pairs of codes, (K, F) on one sphere, of their squared angle."""
    one, other = torch.triu_indices(len(codes), len(codes), 1, device=codes.device)
    first, second = codes[one], codes[other]
    # stable for angles of any size, unlike the arc cosine
    angle = 2 * torch.atan2((first - second).norm(dim=1), (first + second).norm(dim=1))
    return angle.square().sum()


def lr_factor(fraction: float) -> float:
    """Factor of the learning rate at a fraction of the steps: 0.1 to 1 and back over nine tenths, then towards 0."""
    if fraction < 0.9:
        return 1 - 0.9 * abs(fraction / 0.45 - 1)
    return 1 - fraction
