"""A step of G and one of D on the same pictures, which D judges once for both.

G's step leaves D's weights as they are, so what D makes of the pictures before it is what D would make of them after.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn

from gpen_plugin.errors import OptionError
from gpen_plugin.models.gan_steps import Losses, Precision, verdict
from gpen_plugin.models.step_guard import StepGuard


def paired_steps(
    net_d: nn.Module,
    optimizer: torch.optim.Optimizer,
    fake: torch.Tensor,
    real: torch.Tensor,
    *,
    gan: Callable,
    guard: StepGuard,
    content: Callable[[torch.Tensor, torch.Tensor], Losses] | None = None,
    feature_matching: Callable | None = None,
    autocast: Precision = nullcontext,
) -> Losses:
    """One step of G on L = L_A + alpha L_C + beta L_F (paper, Eq. 3), whose weights the losses hold; one of D on Eq. 1.

    The pictures are cut off G's graph before D judges them. G's loss goes back to them, and from there into G; D's loss
    goes back through the same graph to D's weights, once, so that several GPUs exchange D's gradients once. What is
    saved in time is paid for in memory: G's graph and those of both judgements are held at once.

    Args:
        net_d: the discriminator.
        optimizer: holds the parameters of both networks.
        fake: the generator's pictures with their graph, (N, 3, H, W), in [-1, 1].
        real: the true pictures, same shape.
        gan: the host's GAN loss, called as ``gan(logits, target_is_real, is_disc)``.
        guard: takes the steps, each if all of it is finite.
        content: (fake, real) -> further weighted terms of G's loss, such as L_C, by their names in the log.
        feature_matching: loss of (features of fake, features of real).
        autocast: the precision in which the discriminator runs.
    Returns:
        G's weighted terms by their names in the log and each one's share of their sum, D's loss, the norms of both
        gradients, and what `verdict` tells of D.
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
        **verdict(real_logits, fake_logits),
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
