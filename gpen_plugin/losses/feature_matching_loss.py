"""Feature matching on the discriminator (paper, Eq. 2)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from gpen_plugin.errors import OptionError
from gpen_plugin.host import register

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
            square root of the number of elements, so its weight against L1 depends on the picture's size. ``rms`` is
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
            fake_features: features of restored pictures, one (N, C_i, H_i, W_i) per layer.
            real_features: features of the true pictures, of the same shapes.
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
