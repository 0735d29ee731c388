"""How far a step of the latent code moves the picture: what StyleGAN2 keeps constant while it trains a generator."""

import math

import torch


def path_lengths(pictures: torch.Tensor, latents: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Norms of ``J^T y``, J the Jacobian of a picture by its latent codes (StyleGAN2, Eq. 4).

    Args:
        pictures: (N, 3, H, W), drawn from `latents`.
        latents: (N, codes, F), with gradients on.
        directions: y, N(0, 1), in the shape of `pictures`; divided here by the root of H * W, so that the lengths do
            not depend on the size.
    Returns:
        (N,), which can be differentiated again: the norm over F, a root mean square over the codes.
    """
    height, width = pictures.shape[2:]
    projected = (pictures * directions).sum() / math.sqrt(height * width)
    (gradient,) = torch.autograd.grad(projected, latents, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()
