"""The steps of adversarial training that GPEN takes over from StyleGAN2, one optimiser step each.

One optimiser may hold the parameters of every network: a step changes only those that its loss reaches, because
the gradients of the others are None and Adam passes them over.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from gpen_plugin.losses import r1_penalty

Losses = dict[str, torch.Tensor]


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Gradients pass through `net` but do not reach its parameters."""
    net.requires_grad_(False)
    try:
        yield
    finally:
        net.requires_grad_(True)


def generator_step(
    net_d: nn.Module,
    optimizer: torch.optim.Optimizer,
    fake: torch.Tensor,
    real: torch.Tensor | None,
    *,
    gan: Callable,
    pixel: Callable | None = None,
    feature_matching: Callable | None = None,
) -> Losses:
    """One step on L = L_A + alpha L_C + beta L_F (paper, Eq. 3); the weights are inside the losses.

    Args:
        net_d: the discriminator; it is frozen meanwhile.
        optimizer: holds the generator's parameters.
        fake: the generator's pictures with their graph, (N, 3, H, W), in [-1, 1].
        real: the true pictures, same shape; None where neither `pixel` nor `feature_matching` is given.
        gan: the host's GAN loss, called as ``gan(logits, target_is_real, is_disc)``.
        pixel: content loss of (fake, real).
        feature_matching: loss of (features of fake, features of real).
    Returns:
        The weighted terms by their names in the log.
    """
    terms: Losses = {}
    with frozen(net_d):
        logits, fake_features = net_d(fake, return_features=True)
        terms["l_g_gan"] = gan(logits, True, is_disc=False)
        if pixel is not None:
            terms["l_g_pix"] = pixel(fake, real)
        if feature_matching is not None:
            with torch.no_grad():
                _, real_features = net_d(real, return_features=True)
            terms["l_g_feat"] = feature_matching(fake_features, real_features)
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        optimizer.step()
    return {name: term.detach() for name, term in terms.items()}


def discriminator_step(
    net_d: nn.Module, optimizer: torch.optim.Optimizer, fake: torch.Tensor, real: torch.Tensor, *, gan: Callable
) -> Losses:
    """One step of D on Eq. 1. Real and fake go back one after the other: that halves the memory.

    Args:
        net_d: the discriminator.
        optimizer: holds its parameters.
        fake: the generator's pictures, (N, 3, H, W); their graph is cut here.
        real: the true pictures, same shape.
        gan: the host's GAN loss.
    Returns:
        Loss terms, and D's mean logits as ``out_d_real`` and ``out_d_fake``: far apart, D has won.
    """
    optimizer.zero_grad(set_to_none=True)
    real_logits = net_d(real)
    loss_real = gan(real_logits, True, is_disc=True)
    loss_real.backward()
    fake_logits = net_d(fake.detach())
    loss_fake = gan(fake_logits, False, is_disc=True)
    loss_fake.backward()
    optimizer.step()
    return {
        "l_d": (loss_real + loss_fake).detach(),
        "out_d_real": real_logits.detach().mean(),
        "out_d_fake": fake_logits.detach().mean(),
    }


def r1_step(
    net_d: nn.Module, optimizer: torch.optim.Optimizer, real: torch.Tensor, *, gamma: float, every: int
) -> Losses:
    """One step of D on the lazy R1 penalty, ``every * gamma / 2 * E |grad D(x)|^2`` (StyleGAN2, appendix B).

    Args:
        net_d: the discriminator.
        optimizer: holds its parameters.
        real: the true pictures, (N, 3, H, W).
        gamma: weight of the penalty.
        every: the number of iterations that this step stands for.
    Returns:
        The penalty without its weight, as ``l_d_r1``.
    """
    images = real.detach().requires_grad_(True)
    logits = net_d(images)
    penalty = r1_penalty(logits, images)
    optimizer.zero_grad(set_to_none=True)
    # The last bias has no part in the gradient; without the second term distributed training would wait for it.
    (every * gamma / 2 * penalty + 0 * logits.sum()).backward()
    optimizer.step()
    return {"l_d_r1": penalty.detach()}
