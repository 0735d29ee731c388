"""Losses and penalties: R1, gradient penalty, path length, feature matching (paper, Eq. 2), landmarks, identity."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from gpen_plugin.config.schema import unknown_name
from gpen_plugin.errors import OptionError
from gpen_plugin.host import register, registered, resolve
from gpen_plugin.nets import arcface, fan


def r1_penalty(
    logits: torch.Tensor,  # D(images), (N, 1)
    images: torch.Tensor,  # real images, (N, 3, H, W), with requires_grad
) -> torch.Tensor:
    """E |grad D(x)|^2, differentiable, without the weight gamma / 2 (Mescheder et al. 2018, Eq. 9)."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def gradient_penalty(
    # images -> D's logits, (N, 1) or (N, 1, h, w), one tensor per scale
    critic: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    real: torch.Tensor,  # (N, 3, H, W)
    fake: torch.Tensor,  # of the same shape
    fractions: torch.Tensor,  # position of each sample between real (1) and fake (0), (N, 1, 1, 1)
) -> torch.Tensor:
    """E (|grad D(x)| - 1)^2 between real and fake images, without its weight (WGAN-GP, Gulrajani et al., Eq. 3)."""
    between = torch.lerp(fake.detach(), real.detach(), fractions).requires_grad_()
    total = sum(logits.flatten(1).mean(1).sum() for logits in critic(between))
    (gradient,) = torch.autograd.grad(total, between, create_graph=True)
    return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1).square().mean()


def path_lengths(
    images: torch.Tensor,  # (N, 3, H, W), generated from `latents`
    latents: torch.Tensor,  # (N, codes, F), with requires_grad
    directions: torch.Tensor,  # y, N(0, 1), (N, 3, H, W)
) -> torch.Tensor:
    """Norms of J^T y, J = d image / d latents: (N,), differentiable; RMS over the codes (StyleGAN2, Eq. 4)."""
    height, width = images.shape[2:]  # the division by sqrt(H * W) makes lengths independent of the size
    projected = (images * directions).sum() / math.sqrt(height * width)
    (gradient,) = torch.autograd.grad(projected, latents, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


# One distance per sample and layer: (N, elements) -> (N,)
NORMS = {
    "l2": lambda difference: torch.linalg.vector_norm(difference, dim=1),
    "rms": lambda difference: torch.linalg.vector_norm(difference, dim=1) / difference.shape[1] ** 0.5,
    "l1": lambda difference: difference.abs().mean(dim=1),
    "mse": lambda difference: difference.square().mean(dim=1),
}


@register("loss")
class DiscriminatorFeatureMatchingLoss(nn.Module):
    """``L_F = E[ sum_i || D^i(X) - D^i(G(X~)) ||_2 ]`` over intermediate layers i of the discriminator (Eq. 2).

    The real features are detached. The caller prevents D from learning from this loss. OptionError: an unknown norm;
    at the first call, a layer that the discriminator lacks.
    """

    on = "feature"  # it gets the lists of features

    def __init__(
        self,
        loss_weight: float = 1.0,  # factor on the sum; the paper's beta is 0.02
        # the distance of two feature maps. ``l2`` is the norm as the equation prints it: it grows with the square root
        # of the number of elements, so its weight against L1 depends on the image's size. ``rms`` is the same, divided
        # by that root; ``l1`` and ``mse`` are means over the elements
        norm: Literal["l2", "rms", "l1", "mse"] = "l2",
        # ``all``, or the numbers of the layers used: 0 is the discriminator's stem, 1 its first residual block;
        # negative numbers count from the end
        layers: Literal["all"] | Sequence[int] = "all",
    ):
        super().__init__()
        if norm not in NORMS:
            raise OptionError("norm", f"got {norm!r}", "one of " + ", ".join(NORMS), "l2 is the paper's.")
        self.loss_weight = loss_weight
        self.norm = norm
        self.layers = layers

    def forward(self, fake_features: Sequence[torch.Tensor], real_features: Sequence[torch.Tensor]) -> torch.Tensor:
        """The weighted loss, a scalar, of features of restored and true images, one (N, C_i, H_i, W_i) per layer."""
        total = fake_features[0].new_zeros(())
        for i in self.chosen_layers(len(fake_features)):
            difference = _wide(fake_features[i]) - _wide(real_features[i].detach())
            difference = difference.flatten(1)  # (N, C_i * H_i * W_i)
            total = total + NORMS[self.norm](difference).mean()
        return self.loss_weight * total

    def chosen_layers(self, count: int) -> Sequence[int]:
        """Indices of the layers used, of `count`. OptionError if the discriminator lacks one."""
        if self.layers == "all":
            return range(count)
        outside = [i for i in self.layers if not -count <= i < count]
        if outside:
            raise OptionError(
                "layers",
                f"got {list(self.layers)}",
                f"numbers from 0 to {count - 1}, the layers of this discriminator",
                f"Remove {outside}.",
            )
        return self.layers


@register("loss")
class HeatmapLoss(nn.Module):
    """Mean squared difference of the heat maps of 68 landmarks that FAN finds in two images (Super-FAN, Eq. 3).

    MissingFileError: FAN's file is not on this machine and cannot be downloaded. CheckpointError: it is another file.
    """

    value_range = (0, 1)  # of the images that it gets

    def __init__(
        self,
        loss_weight: float = 1.0,  # factor on the mean
        weights: str | None = None,  # path of FAN's weights; ~ searches for 2DFAN4-11f355bf06.pth.tar
        # heat maps of `all` of FAN's hourglasses, or of the `first` or `last`
        stacks: Literal["all", "first", "last"] = "all",
    ):
        super().__init__()
        if stacks not in ("all", "first", "last"):
            raise OptionError("stacks", f"got {stacks!r}", "all, first or last")
        self.loss_weight, self.stacks = loss_weight, stacks
        self.fan = fan.load_fan(weights)

    def forward(self, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """The weighted loss, a scalar, of two batches of faces, (N, 3, H, W) RGB in [0, 1]."""
        with torch.no_grad():
            expected = self.heatmaps(real)
        pairs = zip(self.heatmaps(fake), expected, strict=True)
        return self.loss_weight * torch.stack([F.mse_loss(one, other) for one, other in pairs]).mean()

    def heatmaps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The chosen heat maps of images as in `forward`: (N, 68, 64, 64) each."""
        if images.shape[2:] != (fan.SIDE, fan.SIDE):
            images = F.interpolate(images, (fan.SIDE, fan.SIDE), mode="bilinear", antialias=True)
        found = self.fan(images.float())
        return {"all": found, "first": found[:1], "last": found[-1:]}[self.stacks]


@register("loss")
class IdentityLoss(nn.Module):
    """Distance of the embeddings of two faces, which a recognition network sees as `calculate_identity` shows them.

    MissingFileError: the file or the package gfpgan is missing. CheckpointError: the file is another.
    """

    value_range = (0, 1)  # of the images that it gets

    def __init__(
        self,
        loss_weight: float = 1.0,  # factor on the mean
        weights: str | None = None,  # path of the network's weights; ~ searches for arcface_resnet18.pth
        # registered network of gray images of 128 px, as GFPGAN's `network_identity`; ~ for gfpgan's ArcFace
        network: Mapping | None = None,
        # registered loss of two batches of embeddings, as GFPGAN's `L1_opt`; ~ for one minus their cosine
        criterion: Mapping | None = None,
    ):
        super().__init__()
        self.loss_weight = loss_weight
        self.recognizer = arcface.load_recognizer(network, weights)
        self.criterion = None
        if criterion is not None:
            options = {key: value for key, value in criterion.items() if key != "type"}
            self.criterion = _registered_loss(criterion.get("type"))(**options)
        self.register_buffer("luma", torch.tensor(arcface.LUMA[::-1].copy()).view(1, 3, 1, 1), persistent=False)

    def forward(self, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """The weighted loss, a scalar, of two batches of faces, (N, 3, H, W) RGB in [0, 1]."""
        with torch.no_grad():
            expected = self.embed(real)
        if self.criterion is not None:
            return self.loss_weight * self.criterion(self.embed(fake), expected)
        return self.loss_weight * (1 - F.cosine_similarity(self.embed(fake), expected)).mean()

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings of images as in `forward`: (N, D)."""
        side = arcface.GFPGAN_INPUT.side
        if images.shape[2:] != (side, side):  # no antialiasing, as in its training
            images = F.interpolate(images, (side, side), mode="bilinear", align_corners=False)
        return self.recognizer(((images.float() * 2 - 1) * self.luma).sum(dim=1, keepdim=True))


def _registered_loss(name: object) -> Callable:
    found = resolve("loss", name)
    if found is None:
        raise unknown_name(name, list(registered("loss")), "criterion:type")
    return found


def _wide(features: torch.Tensor) -> torch.Tensor:
    """Float32 for the features of mixed precision: bfloat16 is too coarse for sums of many squares."""
    return features.to(torch.promote_types(features.dtype, torch.float32))
