"""The gradient penalty on real pictures that StyleGAN2 trains its discriminator with."""

import torch


def r1_penalty(logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Squared gradient norm of D at real pictures, averaged over the batch (Mescheder et al. 2018, Eq. 9).

    Args:
        logits: D(images), (N, 1), computed with ``images.requires_grad``.
        images: real pictures, (N, 3, H, W).
    Returns:
        A scalar that can be differentiated again. The weight gamma / 2 is left to the caller.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()
