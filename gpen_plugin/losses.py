"""Losses and penalties of GPEN's two trainings: R1, path length, and feature matching (paper, Eq. 2)."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from gpen_plugin.errors import OptionError
from gpen_plugin.host import register


def r1_penalty(logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Squared gradient norm of D at real images, averaged over the batch (Mescheder et al. 2018, Eq. 9).

    Args:
        logits: D(images), (N, 1), computed with ``images.requires_grad``.
        images: real images, (N, 3, H, W).
    Returns:
        A scalar that can be differentiated again. The weight gamma / 2 is left to the caller.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_lengths(images: torch.Tensor, latents: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Norms of ``J^T y``, J the Jacobian of an image by its latent codes (StyleGAN2, Eq. 4).

    Args:
        images: (N, 3, H, W), drawn from `latents`.
        latents: (N, codes, F), with gradients on.
        directions: y, N(0, 1), in the shape of `images`; divided here by the root of H * W, so that the lengths do
            not depend on the size.
    Returns:
        (N,), which can be differentiated again: the norm over F, a root mean square over the codes.
    """
    height, width = images.shape[2:]
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

    The real features are detached. That D itself does not learn from this loss is up to the caller.

    Args:
        loss_weight: factor on the sum; the paper's beta is 0.02.
        norm: the distance of two feature maps. ``l2`` is the norm as the equation prints it: it grows with the
            square root of the number of elements, so its weight against L1 depends on the image's size. ``rms`` is
            the same, divided by that root; ``l1`` and ``mse`` are means over the elements.
        layers: ``all``, or the numbers of the layers used: 0 is the discriminator's stem, 1 its first residual
            block; negative numbers count from the end.
    Raises:
        OptionError: an unknown norm; at the first call, a layer that the discriminator does not have.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        norm: Literal["l2", "rms", "l1", "mse"] = "l2",
        layers: Literal["all"] | Sequence[int] = "all",
    ):
        super().__init__()
        if norm not in NORMS:
            raise OptionError("norm", f"got {norm!r}", "one of " + ", ".join(NORMS), "l2 is the paper's.")
        self.loss_weight = loss_weight
        self.norm = norm
        self.layers = layers

    def forward(self, fake_features: Sequence[torch.Tensor], real_features: Sequence[torch.Tensor]) -> torch.Tensor:
        """The weighted loss of a batch.

        Args:
            fake_features: features of restored images, one (N, C_i, H_i, W_i) per layer.
            real_features: features of the true images, of the same shapes.
        Returns:
            A scalar.
        """
        total = fake_features[0].new_zeros(())
        for i in self.chosen_layers(len(fake_features)):
            difference = _wide(fake_features[i]) - _wide(real_features[i].detach())
            difference = difference.flatten(1)  # (N, C_i * H_i * W_i)
            total = total + NORMS[self.norm](difference).mean()
        return self.loss_weight * total

    def chosen_layers(self, count: int) -> Sequence[int]:
        """Numbers of the layers used, of a discriminator with `count` of them; OptionError if one is not there."""
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


def _wide(features: torch.Tensor) -> torch.Tensor:
    """Under mixed precision features come in bfloat16, whose sums of many squares are too coarse."""
    return features.to(torch.promote_types(features.dtype, torch.float32))
