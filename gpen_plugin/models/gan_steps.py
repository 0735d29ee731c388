"""The steps of adversarial training that GPEN takes over from StyleGAN2, one optimiser step each.

One optimiser may hold the parameters of every network: a step changes only those that its loss reaches, because
the gradients of the others are None and Adam passes them over.

The regularisers differentiate twice. They run in single precision and uncompiled: bfloat16 rounds their small
differences away, and compiled graphs cannot be differentiated twice.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed
from torch import nn

from gpen_plugin.losses import path_lengths, r1_penalty
from gpen_plugin.models.step_guard import StepGuard

Losses = dict[str, torch.Tensor]
Precision = Callable[[], AbstractContextManager]


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Gradients pass through `net` but do not reach its parameters."""
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    net.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def generator_step(
    net_d: nn.Module,
    optimizer: torch.optim.Optimizer,
    fake: torch.Tensor,
    *,
    gan: Callable,
    guard: StepGuard,
    augment: Callable | None = None,
    autocast: Precision = nullcontext,
) -> Losses:
    """One step of G on Eq. 1 alone, as a prior learns.

    Args:
        net_d: the discriminator; it is frozen meanwhile.
        optimizer: holds the generator's parameters.
        fake: the generator's pictures with their graph, (N, 3, H, W), in [-1, 1].
        gan: the host's GAN loss, called as ``gan(logits, target_is_real, is_disc)``.
        guard: takes the step, if all is finite.
        augment: what is done to pictures before the discriminator sees them.
        autocast: the precision in which the discriminator runs.
    Returns:
        The loss by its name in the log, and the gradient's norm.
    """
    with frozen(net_d):
        with autocast():
            logits = net_d(augment(fake) if augment else fake)
        loss = gan(logits.float(), True, is_disc=False)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        losses = {"l_g_gan": loss.detach()}
        return losses | {"grad_norm_g": guard.step("g", optimizer, losses)}


def discriminator_step(
    net_d: nn.Module,
    optimizer: torch.optim.Optimizer,
    fake: torch.Tensor,
    real: torch.Tensor,
    *,
    gan: Callable,
    guard: StepGuard,
    augment: Callable | None = None,
    autocast: Precision = nullcontext,
) -> Losses:
    """One step of D on Eq. 1. Real and fake go back one after the other: that halves the memory.

    Args:
        net_d: the discriminator.
        optimizer: holds its parameters.
        fake: the generator's pictures, (N, 3, H, W); their graph is cut here.
        real: the true pictures, same shape.
        gan: the host's GAN loss.
        guard: takes the step, if all is finite.
        augment: what is done to pictures before the discriminator sees them; first to the real ones.
        autocast: the precision in which the discriminator runs.
    Returns:
        The loss, the gradient's norm, and what `verdict` tells.
    """
    real, fake = (augment(picture) if augment else picture for picture in (real, fake.detach()))
    optimizer.zero_grad(set_to_none=True)
    with autocast():
        real_logits = net_d(real)
    loss_real = gan(real_logits.float(), True, is_disc=True)
    loss_real.backward()
    with autocast():
        fake_logits = net_d(fake)
    loss_fake = gan(fake_logits.float(), False, is_disc=True)
    loss_fake.backward()
    losses = {"l_d": (loss_real + loss_fake).detach()}
    norm = guard.step("d", optimizer, losses)
    return losses | verdict(real_logits, fake_logits) | {"grad_norm_d": norm}


def verdict(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> Losses:
    """How well D tells pictures apart, for the log.

    Args:
        real_logits: of true pictures, (N, 1).
        fake_logits: of the generator's, (N, 1).
    Returns:
        D's mean logits as ``out_d_real`` and ``out_d_fake`` (far apart, D has won), and ``d_sign_real``, the mean sign
        of the real ones (near 1, D knows its training set by heart).
    """
    real, fake = real_logits.detach().float(), fake_logits.detach().float()
    return {"out_d_real": real.mean(), "out_d_fake": fake.mean(), "d_sign_real": real.sign().mean()}


def r1_step(
    net_d: nn.Module,
    optimizer: torch.optim.Optimizer,
    real: torch.Tensor,
    *,
    gamma: float,
    every: int,
    guard: StepGuard,
) -> Losses:
    """One step of D on the lazy R1 penalty, ``every * gamma / 2 * E |grad D(x)|^2`` (StyleGAN2, appendix B).

    Args:
        net_d: the discriminator.
        optimizer: holds its parameters.
        real: the true pictures as the discriminator sees them, (N, 3, H, W).
        gamma: weight of the penalty.
        every: the number of iterations that this step stands for.
        guard: takes the step, if all is finite.
    Returns:
        The penalty of all ranks without its weight, as ``l_d_r1``.
    """
    images = real.detach().requires_grad_(True)
    with torch.compiler.set_stance("force_eager"):
        logits = net_d(images)
    penalty = r1_penalty(logits, images)
    optimizer.zero_grad(set_to_none=True)
    # The last bias has no part in the gradient; without the second term distributed training would wait for it.
    (every * gamma / 2 * penalty + 0 * logits.sum()).backward()
    losses = {"l_d_r1": penalty.detach()}
    guard.step("r1", optimizer, losses)
    return {"l_d_r1": mean_over_ranks(losses["l_d_r1"])}


def path_length_step(
    draw: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    optimizer: torch.optim.Optimizer,
    directions: torch.Tensor,
    mean: torch.Tensor,
    *,
    weight: float,
    every: int,
    guard: StepGuard,
    decay: float = 0.01,
) -> tuple[Losses, torch.Tensor]:
    """One step of G on the lazy path length penalty, ``every * weight * E (length - mean)^2`` (StyleGAN2, Eq. 4).

    Args:
        draw: draws pictures with the generator, (N, 3, H, W), and returns them with their latents, (N, codes, F).
        optimizer: holds its parameters.
        directions: N(0, 1), in the shape of the pictures.
        mean: the moving average of the lengths, a scalar.
        weight: of the penalty.
        every: the number of iterations that this step stands for.
        guard: takes the step, if all is finite.
        decay: how far the average moves towards the present lengths.
    Returns:
        The penalty without its weight as ``l_g_path``, the mean length as ``path_length``; and the new average. All
        three are of all ranks.
    """
    with torch.compiler.set_stance("force_eager"):
        pictures, latents = draw()
    lengths = path_lengths(pictures, latents, directions)
    length = mean_over_ranks(lengths.detach().mean())
    mean = _moved(mean, length, decay)
    penalty = (lengths - mean).square().mean()
    optimizer.zero_grad(set_to_none=True)
    # The picture's biases have no part in the gradient: see `r1_step`.
    (every * weight * penalty + 0 * pictures.sum()).backward()
    losses = {"l_g_path": penalty.detach()}
    guard.step("path", optimizer, losses)
    return {"l_g_path": mean_over_ranks(losses["l_g_path"]), "path_length": length}, mean


def _moved(mean: torch.Tensor, value: torch.Tensor, decay: float) -> torch.Tensor:
    """The moving average; a step that is left out for a number that is not finite leaves it as it was."""
    return torch.where(value.isfinite(), torch.lerp(mean, value, decay), mean)


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over the ranks; every rank has to call this."""
    if not torch.distributed.is_initialized():
        return value
    value = value / torch.distributed.get_world_size()
    torch.distributed.all_reduce(value)
    return value
