"""The steps of adversarial training: G, D, R1 and path length of a prior, and G and D of `GPEN` in one."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from gpen_plugin.errors import OptionError
from gpen_plugin.host.distributed import all_reduce_mean
from gpen_plugin.losses import path_lengths, r1_penalty
from gpen_plugin.models.nan_guard import NaNGuard

Losses = dict[str, torch.Tensor]
Precision = Callable[[], AbstractContextManager]


@contextmanager
def no_param_grad(net: nn.Module) -> Iterator[None]:
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
    guard: NaNGuard,
    augment: Callable | None = None,
    autocast: Precision = nullcontext,
) -> Losses:
    """One step of G on Eq. 1 alone, as a prior learns.

    Args:
        net_d: the discriminator; it is frozen meanwhile.
        optimizer: holds the generator's parameters.
        fake: the generator's images with their graph, (N, 3, H, W), in [-1, 1].
        gan: the host's GAN loss, called as ``gan(logits, target_is_real, is_disc)``.
        guard: takes the step, if all is finite.
        augment: what is done to images before the discriminator sees them.
        autocast: the precision in which the discriminator runs.
    Returns:
        The loss by its name in the log, and the gradient's norm.
    """
    with no_param_grad(net_d):
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
    guard: NaNGuard,
    augment: Callable | None = None,
    autocast: Precision = nullcontext,
) -> Losses:
    """One step of D on Eq. 1. Real and fake go back one after the other: that halves the memory.

    Args:
        net_d: the discriminator.
        optimizer: holds its parameters.
        fake: the generator's images, (N, 3, H, W); their graph is cut here.
        real: the true images, same shape.
        gan: the host's GAN loss.
        guard: takes the step, if all is finite.
        augment: what is done to images before the discriminator sees them; first to the real ones.
        autocast: the precision in which the discriminator runs.
    Returns:
        The loss, the gradient's norm, and what `d_logit_stats` tells.
    """
    real, fake = (augment(image) if augment else image for image in (real, fake.detach()))
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
    return losses | d_logit_stats(real_logits, fake_logits) | {"grad_norm_d": norm}


def d_logit_stats(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> Losses:
    """How well D tells images apart, for the log.

    Args:
        real_logits: of true images, (N, 1).
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
    guard: NaNGuard,
) -> Losses:
    """One step of D on the lazy R1 penalty, ``every * gamma / 2 * E |grad D(x)|^2`` (StyleGAN2, appendix B).

    Args:
        net_d: the discriminator.
        optimizer: holds its parameters.
        real: the true images as the discriminator sees them, (N, 3, H, W).
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
    return {"l_d_r1": all_reduce_mean(losses["l_d_r1"])}


def path_length_step(
    draw: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    optimizer: torch.optim.Optimizer,
    directions: torch.Tensor,
    mean: torch.Tensor,
    *,
    weight: float,
    every: int,
    guard: NaNGuard,
    decay: float = 0.01,
) -> tuple[Losses, torch.Tensor]:
    """One step of G on the lazy path length penalty, ``every * weight * E (length - mean)^2`` (StyleGAN2, Eq. 4).

    Args:
        draw: draws images with the generator, (N, 3, H, W), and returns them with their latents, (N, codes, F).
        optimizer: holds its parameters.
        directions: N(0, 1), in the shape of the images.
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
        images, latents = draw()
    lengths = path_lengths(images, latents, directions)
    length = all_reduce_mean(lengths.detach().mean())
    mean = _moved(mean, length, decay)
    penalty = (lengths - mean).square().mean()
    optimizer.zero_grad(set_to_none=True)
    # The image's biases have no part in the gradient: see `r1_step`.
    (every * weight * penalty + 0 * images.sum()).backward()
    losses = {"l_g_path": penalty.detach()}
    guard.step("path", optimizer, losses)
    return {"l_g_path": all_reduce_mean(losses["l_g_path"]), "path_length": length}, mean


def _moved(mean: torch.Tensor, value: torch.Tensor, decay: float) -> torch.Tensor:
    """The moving average; a step that is left out for a number that is not finite leaves it as it was."""
    return torch.where(value.isfinite(), torch.lerp(mean, value, decay), mean)


def generator_and_discriminator_step(
    net_d: nn.Module,
    optimizer: torch.optim.Optimizer,
    fake: torch.Tensor,
    real: torch.Tensor,
    *,
    gan: Callable,
    guard: NaNGuard,
    content: Callable[[torch.Tensor, torch.Tensor], Losses] | None = None,
    feature_matching: Callable | None = None,
    autocast: Precision = nullcontext,
) -> Losses:
    """One step of G on L = L_A + alpha L_C + beta L_F (paper, Eq. 3), whose weights the losses hold; one of D on Eq. 1.

    The images are cut off G's graph before D judges them. G's loss goes back to them, and from there into G; D's loss
    goes back through the same graph to D's weights, once, so that several GPUs exchange D's gradients once. What is
    saved in time is paid for in memory: G's graph and those of both judgements are held at once.

    Args:
        net_d: the discriminator.
        optimizer: holds the parameters of both networks.
        fake: the generator's images with their graph, (N, 3, H, W), in [-1, 1].
        real: the true images, same shape.
        gan: the host's GAN loss, called as ``gan(logits, target_is_real, is_disc)``.
        guard: takes the steps, each if all of it is finite.
        content: (fake, real) -> further weighted terms of G's loss, such as L_C, by their names in the log.
        feature_matching: loss of (features of fake, features of real).
        autocast: the precision in which the discriminator runs.
    Returns:
        G's weighted terms by their names in the log and each one's share of their sum, D's loss, the norms of both
        gradients, and what `d_logit_stats` tells of D.
    """
    shown = fake.detach().requires_grad_()
    with autocast():
        fake_logits, fake_features = net_d(shown, return_features=True)
        real_logits, real_features = net_d(real, return_features=True)
    terms = {"l_g_gan": gan(fake_logits.float(), True, is_disc=False)}
    if content is not None:
        terms |= content(shown.float(), real)
    if feature_matching is not None:
        terms["l_g_feat"] = feature_matching(fake_features, real_features)
    (slope,) = torch.autograd.grad(sum(terms.values()), shown, retain_graph=True)
    terms = {name: term.detach() for name, term in terms.items()}
    del fake_features, real_features  # with the graphs of the losses, they would stay to the end
    optimizer.zero_grad(set_to_none=True)
    fake.backward(slope)
    norm_g = guard.step("g", optimizer, terms)

    optimizer.zero_grad(set_to_none=True)
    loss_d = gan(real_logits.float(), True, is_disc=True) + gan(fake_logits.float(), False, is_disc=True)
    loss_d.backward(inputs=[parameter for parameter in net_d.parameters() if parameter.requires_grad])
    norm_d = guard.step("d", optimizer, {"l_d": loss_d.detach()})
    return {
        **terms,
        **_shares(terms),
        "l_d": loss_d.detach(),
        **d_logit_stats(real_logits, fake_logits),
        "grad_norm_g": norm_g,
        "grad_norm_d": norm_d,
    }


def loss_value(loss: Callable, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor | None:
    """The value of a content loss.

    Args:
        loss: called as ``loss(fake, real)``. It returns a scalar, or several of which some may be None, as BasicSR's
            PerceptualLoss does (content, style): their sum counts.
        fake: the generator's images, (N, 3, H, W).
        real: the ground truth, same shape.
    Returns:
        A scalar with its graph; None where the loss returns no term.
    Raises:
        OptionError: the loss returns something else.
    """
    returned = loss(fake, real)
    terms = [term for term in (returned if isinstance(returned, (tuple, list)) else [returned]) if term is not None]
    for term in terms:
        if not torch.is_tensor(term) or term.numel() != 1:
            got = f"a tensor of shape {tuple(term.shape)}" if torch.is_tensor(term) else f"{type(term).__name__}"
            expected = "a scalar tensor, or several of which each may be None"
            raise OptionError(f"{type(loss).__name__}", f"returned {got}", expected, "Use reduction: mean.")
    return sum(term.reshape(()) for term in terms) if terms else None


def _shares(terms: Losses) -> Losses:
    """How the generator's loss is made up, where it has several terms."""
    total = sum(term.abs() for term in terms.values())
    return {f"{name.replace('l_g', 'share')}": term.abs() / total for name, term in terms.items() if len(terms) > 1}
