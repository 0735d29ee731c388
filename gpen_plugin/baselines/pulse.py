"""PULSE (Menon et al., CVPR 2020): look among the prior's faces for one that downscales to the given image."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.baselines.inversion import (
    Downscaler,
    FrozenPrior,
    Kernel,
    OtherNoise,
    check_at_least,
    check_positive,
    sample_generator,
    seeded_noise,
)
from gpen_plugin.baselines.method import Sample, seeded
from gpen_plugin.errors import OptionError

GAUSSIAN_SAMPLES = 65_536  # latents that the Gaussian is fitted to
MAPPING_BATCH = 8192
SLOPE = 0.2  # of the leaky ReLU that ends the mapping network
GAIN = math.sqrt(2)  # and what it multiplies by


@dataclass(frozen=True)
class PulseOptions:
    """The keys of a ``type: pulse`` entry.

    Args:
        prior: a GPENPrior's file.
        prior_key: its entry; None takes the averaged weights where there are any.
        iterations: steps of the search.
        lr: Adam's; coordinates on the sphere are about 1.
        downscale: what made the degraded image small, see `Downscaler`.
        downscale_weight: of the mean squared difference of the small images, in [0, 1].
        cross_weight: of the geodesic cross loss.
        noise_maps: how many of the noise maps, coarse to fine, are searched too.
        other_noise: the others; ``zero``, or ``fixed`` as they are drawn, which leaves grain that nothing can remove.
        eps: the search ends where the mean squared difference falls below it.
        seed: of the starting point.
    Raises:
        OptionError: a number is out of range.
    """

    prior: str
    prior_key: str | None = None
    iterations: int = 100
    lr: float = 0.4
    downscale: Kernel = "bicubic"
    downscale_weight: float = 100.0
    cross_weight: float = 0.05
    noise_maps: int = 3
    other_noise: OtherNoise = "zero"
    eps: float = 1e-4
    seed: int = 0

    def __post_init__(self):
        check_at_least(self, {"iterations": 1, "cross_weight": 0, "noise_maps": 0, "eps": 0})
        check_positive(self, "lr", "downscale_weight")


class Pulse:
    """The method.

    As the paper describes it: one latent code per place, each on the sphere that a Gaussian fitted to the mapping
    network's outputs keeps its mass on, after the network's last leaky ReLU is undone; Adam, brought back to the sphere
    after every step; the loss is that of downscaling and the geodesic cross loss, which keeps the codes together.

    What differs: the prior is GPEN's, whose noise is one map of many channels per resolution, so that the three
    coarsest maps stand for the five of StyleGAN that its authors search, and the others are zero, of which its
    authors zero the finest alone; the Gaussian has the latents' whole covariance, where the authors' program takes
    each coordinate's deviation; the cross loss is the paper's sum over pairs on the sphere, where that program scales
    a mean of pairs after the mapping; downscaling is the protocol's own; the rate rises and falls by our curve; the
    best step is returned even where it does not come near enough to the input, for an evaluation must not drop hard
    faces; and the search ends early once it is within `eps`.

    Args:
        options: see `PulseOptions`.
        where: key path of the entry, for errors.
        device: where to compute.
    """

    def __init__(self, options: PulseOptions, where: str, device: torch.device):
        self.options = options
        self.prior = FrozenPrior(options.prior, options.prior_key, device, where)
        if options.noise_maps > len(self.prior.net.blocks):
            expected = f"at most {len(self.prior.net.blocks)}, all that the prior has"
            raise OptionError(f"{where}:noise_maps", f"got {options.noise_maps}", expected)
        self.sphere = LatentSphere(self.prior.net)
        self.description = f"PULSE, {options.iterations} steps at {options.lr:g}, {self.prior.description}"
        self.identity = {
            "type": "pulse",
            **{name: value for name, value in dataclasses.asdict(options).items() if name != "prior"},
            "prior_sha256": self.prior.sha256,
        }

    def __call__(self, case: Sample) -> np.ndarray:
        """See `Method`."""
        with seeded(self.prior.device):
            return self.prior.to_image(self.search(case)[0], case.size)

    @torch.enable_grad()
    def search(self, case: Sample) -> tuple[torch.Tensor, list[float]]:
        """Search from the case's own starting point.

        Returns:
            The image of the best step, (1, 3, S, S), and the mean squared difference at every step.
        """
        options, net = self.options, self.prior.net
        downscaler = Downscaler(options.downscale, self.prior.size, *case.lq.shape[:2], self.prior.device)
        target, draw = self.prior.to_tensor(case.lq), sample_generator(options.seed, case)
        codes = self._leaf(torch.randn(net.num_latent, net.num_style_feat, generator=draw))
        noise = seeded_noise(net, draw, options.other_noise, options.noise_maps)
        searched = [] if net.noise_mode == "none" else [self._leaf(map_) for map_ in noise[: options.noise_maps]]
        noise[: len(searched)] = searched
        optimiser = SphericalAdam([codes], searched, options.lr)
        best, lowest, differences = None, math.inf, []
        for step in range(options.iterations):
            optimiser.set_rate(options.lr * lr_factor(step / options.iterations))
            image = net.synthesise(self.sphere.to_latents(codes)[None], noise)[-1]
            difference = (downscaler(image) - target).square().mean() / 4  # of [0, 1]: half the range of [-1, 1]
            loss = options.downscale_weight * difference + options.cross_weight * geodesic_cross(codes)
            differences.append(float(difference.detach()))
            if float(loss.detach()) < lowest:
                best, lowest = image.detach(), float(loss.detach())
            if differences[-1] < options.eps:
                return image.detach(), differences
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return best, differences

    def _leaf(self, start: torch.Tensor) -> torch.Tensor:
        return start.to(self.prior.device).requires_grad_()


class LatentSphere:
    """The Gaussian that whitens latent codes, and the way from its sphere to them.

    Args:
        net: the prior whose mapping network it is fitted to.
    """

    def __init__(self, net: GPENPrior):
        sums = self._before_activation(net)
        self.mean = sums.mean(dim=0)
        values, vectors = torch.linalg.eigh(torch.cov(sums.T))
        # the symmetric root: the one that does not depend on the signs that a solver gives to the vectors
        self.root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        device = net.constant.device
        self.mean, self.root = self.mean.float().to(device), self.root.float().to(device)

    def to_latents(self, codes: torch.Tensor) -> torch.Tensor:
        """Whitened codes, (K, F) -> latent codes w, (K, F)."""
        return torch.nn.functional.leaky_relu(codes @ self.root + self.mean, SLOPE) * GAIN

    @staticmethod
    @torch.no_grad()
    def _before_activation(net: GPENPrior) -> torch.Tensor:
        """What the last activation was given for random z, (GAUSSIAN_OF, F) float64 on the CPU."""
        draw, parts = torch.Generator().manual_seed(0), []
        for _ in range(GAUSSIAN_SAMPLES // MAPPING_BATCH):
            z = torch.randn(MAPPING_BATCH, net.num_style_feat, generator=draw).to(net.constant.device)
            parts.append(net.mapping(z).cpu().double())
        return torch.nn.functional.leaky_relu(torch.cat(parts) / GAIN, 1 / SLOPE)


class SphericalAdam(torch.optim.Adam):
    """Adam on spheres: whatever a step does, length is given back.

    Args:
        codes: (K, F) each; a row is a point on a sphere of radius sqrt(F).
        maps: (1, C, H, W) each; a channel is a point on a sphere of radius sqrt(H * W).
        lr: the rate.
    """

    def __init__(self, codes: Sequence[torch.Tensor], maps: Sequence[torch.Tensor], lr: float):
        groups = [{"params": list(codes), "dims": (1,)}, {"params": list(maps), "dims": (2, 3)}]
        super().__init__([group for group in groups if group["params"]], lr=lr)
        self._to_spheres()

    def set_rate(self, lr: float) -> None:
        """Of the steps from now on."""
        for group in self.param_groups:
            group["lr"] = lr

    def step(self) -> None:
        """A step of Adam, then back to the spheres."""
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


def lr_factor(share: float) -> float:
    """The rate's factor after a share of the steps: a tenth to 1 and back over nine tenths, then towards 0."""
    if share < 0.9:
        return 1 - 0.9 * abs(share / 0.45 - 1)
    return 1 - share
