"""mGANprior (Gu, Shen and Zhou, CVPR 2020): several latent codes, whose features are composed inside the prior."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

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
from gpen_plugin.checkpoints import sha256_of
from gpen_plugin.checkpoints.download import find_weights
from gpen_plugin.errors import MissingFileError, OptionError
from gpen_plugin.metrics.lpips import BACKBONES
from gpen_plugin.nets.loading import load_frozen, load_tensors

FILE = BACKBONES["vgg"]
LAYERS = 23  # up to the ReLU after conv4_3
AUTHORS_LAYERS, AUTHORS_SIZE = 16, 256  # up to the ReLU after conv3_3; pixels
SMALLEST = 32  # pixels; three poolings reduce smaller images below 4
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's networks, RGB in [0, 1]


class VGGFeatures(nn.Module):
    """Features of an image in VGG-16: after conv4_3, each normalized to length 1; or the authors'.

    CheckpointError: the file cannot be read, or is of another network.
    """

    def __init__(
        self,
        path: Path,  # torchvision's VGG-16
        device: torch.device,
        authors: bool = False,  # features after conv3_3, of the image resized to 256 px, not normalized
    ):
        super().__init__()
        self.authors, number = authors, AUTHORS_LAYERS if authors else LAYERS
        from torchvision.models import vgg16

        with torch.device("meta"):  # uses no random numbers
            layers = vgg16(weights=None).features[:number]
        tensors = {
            name.removeprefix("features."): tensor
            for name, tensor in load_tensors(path).items()
            if name.startswith("features.") and int(name.split(".")[1]) < number
        }
        self.layers = load_frozen(layers, tensors, str(path), device)
        self.register_buffer("mean", torch.tensor(MEAN, device=device)[:, None, None])
        self.register_buffer("deviation", torch.tensor(DEVIATION, device=device)[:, None, None])

    def distance(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The distance of two results of `forward`, (N,): squared per pixel, or the authors' mean L1 and its factor."""
        if self.authors:
            return 0.001 * (one - other).abs().mean(dim=(1, 2, 3))
        return (one - other).square().sum(dim=1).mean(dim=(1, 2))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, 3, h, w) RGB in [-1, 1] -> (N, 512, h', w'). Images below 32 px are enlarged bilinearly."""
        if self.authors:
            image = F.interpolate(image, size=AUTHORS_SIZE, mode="nearest")
            return self.layers(((image + 1) / 2 - self.mean) / self.deviation)
        height, width = (max(side, SMALLEST) for side in image.shape[2:])
        if image.shape[2:] != (height, width):
            image = F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)
        return F.normalize(self.layers(((image + 1) / 2 - self.mean) / self.deviation), dim=1)


AUTHORS = {
    "codes": 20,
    "iterations": 2000,
    "optimizer": "sgd",
    "lr": 1.0,
    "lr_importance": 1.0,
    "downscale": "bilinear",
    "perceptual_weight": 1.0,
}


@dataclass(frozen=True)
class MGANPriorOptions:
    """The keys of a ``type: mganprior`` entry."""

    prior: str  # file of a GAN prior; the authors' is PGGAN for CelebA-HQ at 1024 px
    prior_key: str | None = None  # entry of the file; ~ takes the EMA weights if there are any
    iterations: int = 3000  # steps of the search
    codes: int = 10  # number of latent codes, N
    compose_at: int = 16  # resolution after whose block the features are composed, below that of the prior
    optimizer: Literal["adam", "sgd"] = "adam"  # of the search; ``sgd`` has no momentum
    lr: float = 0.02  # learning rate of the codes, which are sampled from N(0, 1)
    lr_importance: float = 0.005  # learning rate of the importances, which start at 1 / N
    downscale: Kernel = "bicubic"  # kernel that made the degraded image small, ``bicubic``, ``area`` or ``bilinear``
    # of the squared distance of VGG-16's features, beside the mean squared difference of the small images in [0, 1]; 0
    # needs no VGG-16.
    perceptual_weight: float = 0.1
    vgg: str | None = None  # path of torchvision's VGG-16 file; it is searched for by default
    noise: OtherNoise = "zero"  # ``zero``, or ``fixed`` as sampled, which leaves grain that the search cannot remove
    # ``authors``: what their super-resolution program does, for each key that has its default; the loss is theirs: the
    # mean squared difference in [-1, 1], plus 0.001 times the L1 distance of VGG-16's features after conv3_3 at 256 px
    preset: Literal["authors"] | None = None
    seed: int = 0  # of the starting point

    def __post_init__(self):
        if self.preset == "authors":
            apply_preset(self, AUTHORS)
        check_at_least(self, {"iterations": 1, "codes": 1, "perceptual_weight": 0})
        check_positive(self, "lr", "lr_importance")


@dataclass(frozen=True, eq=False)
class Search:
    """The unknowns of the search in a prior of F features, composed where it has C channels."""

    codes: torch.Tensor  # z, (N, F)
    importances: torch.Tensor  # of each code for each channel, (N, C, 1, 1)
    # of each code for the image of the blocks so far, (N, 3, 1, 1); without effect if there is none
    image_importances: torch.Tensor
    style: torch.Tensor  # z of the blocks above the composition, (1, F)


class MGANPrior:
    """mGANprior on a GAN prior."""

    # As in the paper: N codes each run through the blocks below a layer; their features there are summed, weighted by
    # an importance per code and channel; the blocks above turn the sum into an image; codes and importances minimize
    # the mean squared difference of the downscaled image and its distance in VGG's features.
    # On PGGAN with ``preset: authors`` it is their program, except that the best step is returned, not the last, and
    # that theirs divides the sum by N once more, which the pixel norm undoes but for the size of its gradient.
    # Differences without it: the layers of a style-based prior take a latent code too, so one more code is searched for
    # the blocks above. StyleGAN2 adds images up block by block, so the image so far is composed as the features are.
    # PGGANs have no noise, so that of the prior is zero. The optimizer is Adam, because the two kinds of unknowns
    # differ in scale. VGG's features are normalized as in LPIPS, so the loss does not depend on their size.

    def __init__(self, options: MGANPriorOptions, where: str, device: torch.device):
        self.options = options
        self.prior = FrozenPrior(options.prior, options.prior_key, device, where)
        self.parameters = self.prior.parameters
        names = list(self.prior.net.blocks)
        if str(options.compose_at) not in names[:-1]:
            expected = "one of " + ", ".join(names[:-1])
            raise OptionError(f"{where}:compose_at", f"got {options.compose_at}", expected)
        self.below = names.index(str(options.compose_at)) + 1
        self.features, perceptual, vgg_sha256 = self._find_vgg(where)
        self.description = (
            f"mGANprior, {options.codes} codes composed at {options.compose_at} px, {options.iterations} steps, "
            f"{perceptual}, {self.prior.description}"
        )
        self.identity = {
            "type": "mganprior",
            **{name: value for name, value in dataclasses.asdict(options).items() if name not in ("prior", "vgg")},
            "prior_sha256": self.prior.sha256,
            "vgg_sha256": vgg_sha256,
        }

    def __call__(self, sample: Sample) -> np.ndarray:
        with seeded(self.prior.device):
            return self.prior.to_image(self.search(sample)[0], sample.size)

    @torch.enable_grad()
    def search(self, sample: Sample) -> tuple[torch.Tensor, list[float]]:
        """The best image, (1, 3, S, S), and the loss of every step, from the sample's own starting point."""
        options, generator = self.options, sample_generator(self.options.seed, sample)
        downscaler = Downscaler(options.downscale, self.prior.size, *sample.lq.shape[:2], self.prior.device)
        target = self.prior.to_tensor(sample.lq)
        wanted = None if self.features is None else self.features(target)
        found, noise = self._start(generator), seeded_noise(self.prior.net, generator, options.noise)
        optimizer = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[options.optimizer](
            [
                {"params": [found.codes, found.style], "lr": options.lr},
                {"params": [found.importances, found.image_importances], "lr": options.lr_importance},
            ]
        )
        best, losses = None, []
        for _ in range(options.iterations):
            image = self.compose(found, noise)
            small = downscaler(image)
            loss = (small - target).square().mean()
            if options.preset is None:
                loss = loss / 4  # of [0, 1]: half the range of [-1, 1]
            if wanted is not None:
                distance = self.features.distance(self.features(small), wanted).mean()
                loss = loss + options.perceptual_weight * distance
            if float(loss.detach()) < min(losses, default=math.inf):
                best = image.detach()
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return best, losses

    def compose(self, found: Search, noise: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Synthesize the image, (1, 3, S, S); `noise` as in `GANPrior.synthesize`."""
        net, below, codes = self.prior.net, self.below, self.prior.net.to_latents(found.codes)  # (N, num_latent, F)
        x, image = net.features_to_sum(below, codes, noise)
        x = net.finish_sum(below, (x * found.importances).sum(dim=0, keepdim=True), noise)  # (1, C, r, r)
        if image is not None:
            image = (image * found.image_importances).sum(dim=0, keepdim=True)  # (1, 3, r, r)
        return net.run_blocks(below, None, x, image, net.to_latents(found.style), noise)[1][-1]

    def _start(self, generator: torch.Generator) -> Search:
        net, many = self.prior.net, self.options.codes
        width = net.channels_to_sum(self.options.compose_at)
        z = torch.randn(many + 1, net.num_style_feat, generator=generator).to(self.prior.device)
        importances = [z.new_full((many, channels, 1, 1), 1 / many) for channels in (width, 3)]
        return Search(*(tensor.requires_grad_() for tensor in (z[:many].clone(), *importances, z[many:].clone())))

    def _find_vgg(self, where: str) -> tuple[VGGFeatures | None, str, str | None]:
        """The features, their description, and the digest of their file."""
        options = self.options
        if options.perceptual_weight == 0:
            return None, "no perceptual loss", None
        try:
            path = find_weights(FILE, options.vgg, f"{where}:vgg")
        except MissingFileError:
            if options.vgg is not None:
                raise
            return None, f"without the perceptual loss ({FILE.name} is missing)", None
        return VGGFeatures(path, self.prior.device, options.preset == "authors"), "VGG-16", sha256_of(path)
