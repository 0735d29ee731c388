"""One training iteration, step by step (paper, section 3.3; StyleGAN2's ``loss.py`` has the same four steps).

- Fine-tuning (`GPENModel`) and the methods to compare with (`RestorationGANModel`): `generator_and_discriminator_step`,
  and at every k-th iteration `r1_step`; `content_step` for a training without a discriminator.
- Prior (`GPENPriorModel`): `discriminator_step`, `generator_step`, and lazily `r1_step` and `path_length_step`.

Images are (N, 3, H, W), logits (N, 1), or (N, 1, h, w) for the patches of an image. Every step returns its losses and
statistics by their names in the log, and takes

- ``gan``: BasicSR's GANLoss, ``gan(logits, target_is_real, is_disc)``: softplus(-D(x)) for a target that is real,
  softplus(D(x)) for one that is not (Eq. 1);
- ``guard``: a `NaNGuard`, which calls ``optimizer.step()`` if all losses and gradients are finite;
- ``discriminate``: images -> D's logits, one tensor per scale, and its features (see `logits_and_features`);
- ``autocast``: the precision of D's forward pass; losses are computed in float32.

Elsewhere: G's forward pass and the order of the steps (`optimize_parameters` of each model), the average of gradients
over GPUs (DistributedDataParallel, inside ``backward``), EMA and logging (`AdversarialModel.end_of_iteration`).
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from gpen_plugin.errors import TrainingError
from gpen_plugin.host.distributed import all_gather_object, all_reduce_mean
from gpen_plugin.losses import path_lengths, r1_penalty
from gpen_plugin.models.loss_terms import Features, Losses

Precision = Callable[[], AbstractContextManager]
Discriminate = Callable[[torch.Tensor], tuple[list[torch.Tensor], list[torch.Tensor]]]


def logits_and_features(net_d: nn.Module, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Logits of each scale of a discriminator, and its features.

    Our discriminators return both with ``return_features=True``. BasicSR's return logits, or for each scale a list of
    features that ends with the logits.
    """
    bare = getattr(net_d, "module", net_d)
    if "return_features" in inspect.signature(bare.forward).parameters:
        logits, features = net_d(images, return_features=True)
        return (logits if isinstance(logits, list) else [logits]), features
    answer = net_d(images)
    if torch.is_tensor(answer):
        return [answer], []
    scales = [scale if isinstance(scale, list | tuple) else [scale] for scale in answer]
    return [scale[-1] for scale in scales], [features for scale in scales for features in scale[:-1]]


def generator_and_discriminator_step(
    net_d: nn.Module,
    optimizer: torch.optim.Optimizer,  # of both networks
    fake: torch.Tensor,  # G's images with their graph
    real: torch.Tensor,
    *,
    gan: Callable,
    guard: "NaNGuard",
    # (fake, real, D's features of both) -> the other weighted terms of G's loss, such as L_C and L_F
    losses: Callable[[torch.Tensor, torch.Tensor, Features], Losses] | None = None,
    # further weighted terms of G's loss with graphs of their own, which do not pass through the images
    auxiliary: Losses | None = None,
    penalty: Callable[[Discriminate], Losses] | None = None,  # weighted terms of D's loss besides the adversarial one
    discriminate: Discriminate | None = None,  # None: D of the images alone
    autocast: Precision = nullcontext,
) -> Losses:
    """A step of G on L_A + alpha L_C + beta L_F (Eq. 3; the losses hold the weights) and a step of D on Eq. 1.

    Both steps share one forward pass of D for each image. The graph is cut at the fake images: G's losses go back
    through D to the images, then from the images through G; D's loss goes back through the same graph of D to its
    weights. This saves D's forward passes, and under DDP one exchange of D's gradients. It costs memory: the graphs of
    G and of D for both images exist at once.
    """
    discriminate = discriminate or (lambda images: logits_and_features(net_d, images))
    images = fake.detach().requires_grad_()
    with autocast():
        fake_logits, fake_features = discriminate(images)
        real_logits, real_features = discriminate(real)

    # G: minimize L_A + alpha L_C + beta L_F
    terms = {"l_g_gan": _sum_of_scales(gan, fake_logits, True, is_disc=False)}
    if losses is not None:
        terms |= losses(images.float(), real, (fake_features, real_features))
    (gradient,) = torch.autograd.grad(sum(terms.values()), images, retain_graph=True)
    terms = {name: term.detach() for name, term in terms.items()}
    del fake_features, real_features  # frees them and the graphs of the losses
    optimizer.zero_grad(set_to_none=True)
    others = list((auxiliary or {}).values())
    torch.autograd.backward([fake, *others], [gradient, *[None] * len(others)])
    terms |= {name: term.detach() for name, term in (auxiliary or {}).items()}
    norm_g = guard.step("g", optimizer, terms)

    # D: minimize softplus(-D(real)) + softplus(D(fake))
    optimizer.zero_grad(set_to_none=True)
    loss_d = _sum_of_scales(gan, real_logits, True, is_disc=True)
    loss_d = loss_d + _sum_of_scales(gan, fake_logits, False, is_disc=True)
    penalties = penalty(discriminate) if penalty is not None else {}
    loss_d = sum(penalties.values(), loss_d)
    loss_d.backward(inputs=[parameter for parameter in net_d.parameters() if parameter.requires_grad])
    norm_d = guard.step("d", optimizer, {"l_d": loss_d.detach()})

    norms = {"grad_norm_g": norm_g, "grad_norm_d": norm_d}
    stats = d_logit_stats(_flat(real_logits), _flat(fake_logits))
    penalties = {name: term.detach() for name, term in penalties.items()}
    return {**terms, **_fractions(terms), "l_d": loss_d.detach(), **penalties, **stats, **norms}


def content_step(
    optimizer: torch.optim.Optimizer,
    terms: Losses,  # G's weighted losses with their graphs
    *,
    guard: "NaNGuard",
) -> Losses:
    """A step of G on losses that need no discriminator."""
    optimizer.zero_grad(set_to_none=True)
    sum(terms.values()).backward()
    terms = {name: term.detach() for name, term in terms.items()}
    return {**terms, **_fractions(terms), "grad_norm_g": guard.step("g", optimizer, terms)}


def _sum_of_scales(gan: Callable, logits: Sequence[torch.Tensor], target: bool, *, is_disc: bool) -> torch.Tensor:
    return sum(gan(each.float(), target, is_disc=is_disc) for each in logits)


def _flat(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([each.flatten() for each in logits])


def generator_step(
    net_d: nn.Module,
    optimizer: torch.optim.Optimizer,
    fake: torch.Tensor,
    *,
    gan: Callable,
    guard: "NaNGuard",
    augment: Callable | None = None,
    autocast: Precision = nullcontext,
) -> Losses:
    """A step of a prior G on Eq. 1. `fake` has its graph; `augment` is applied to what D sees; D is frozen."""
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
    guard: "NaNGuard",
    augment: Callable | None = None,
    autocast: Precision = nullcontext,
) -> Losses:
    """A step of D on Eq. 1. Real and fake images go back one after the other, which halves the memory."""
    real, fake = (augment(images) if augment else images for images in (real, fake.detach()))
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


def r1_step(
    net_d: nn.Module,
    optimizer: torch.optim.Optimizer,
    real: torch.Tensor,  # as D sees them
    *,
    gamma: float,
    every: int,
    guard: "NaNGuard",
    discriminate: Discriminate | None = None,  # None: D of the images alone
) -> Losses:
    """A step of D on lazy R1, ``every * gamma / 2 * E |grad D(x)|^2`` (StyleGAN2, appendix B)."""
    images = real.detach().requires_grad_(True)
    with torch.compiler.set_stance("force_eager"):  # compiled networks cannot be differentiated twice
        scales = [net_d(images)] if discriminate is None else discriminate(images)[0]
    # of several patches the mean, and of several scales the sum: (N, 1)
    logits = sum(scale if scale.ndim == 2 else scale.flatten(1).mean(1, keepdim=True) for scale in scales)
    penalty = r1_penalty(logits, images)
    optimizer.zero_grad(set_to_none=True)
    # 0 * logits: D's last bias has no gradient in the penalty, and DDP would wait for it
    (every * gamma / 2 * penalty + 0 * logits.sum()).backward()
    losses = {"l_d_r1": penalty.detach()}
    guard.step("r1", optimizer, losses)
    return {"l_d_r1": all_reduce_mean(losses["l_d_r1"])}  # unweighted


def path_length_step(
    generate: Callable[[], tuple[torch.Tensor, torch.Tensor]],  # G's images and their latents, (N, codes, F)
    optimizer: torch.optim.Optimizer,
    directions: torch.Tensor,  # N(0, 1) in the shape of the images
    mean: torch.Tensor,  # moving average of the lengths, a scalar
    *,
    weight: float,
    every: int,
    guard: "NaNGuard",
    decay: float = 0.01,  # weight of the new lengths in the average
) -> tuple[Losses, torch.Tensor]:
    """A step of G on the lazy path length penalty, ``every * weight * E (length - mean)^2`` (StyleGAN2, Eq. 4).

    Returns the unweighted penalty and the mean length, averaged over the ranks; and the new moving average.
    """
    with torch.compiler.set_stance("force_eager"):
        images, latents = generate()
    lengths = path_lengths(images, latents, directions)  # [N]
    length = all_reduce_mean(lengths.detach().mean())
    mean = torch.where(length.isfinite(), torch.lerp(mean, length, decay), mean)
    penalty = (lengths - mean).square().mean()
    optimizer.zero_grad(set_to_none=True)
    # 0 * images: the biases of the RGB layers have no gradient in the penalty; see `r1_step`
    (every * weight * penalty + 0 * images.sum()).backward()
    losses = {"l_g_path": penalty.detach()}
    guard.step("path", optimizer, losses)
    return {"l_g_path": all_reduce_mean(losses["l_g_path"]), "path_length": length}, mean


def d_logit_stats(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> Losses:
    """D's mean logits (far apart: D has won) and the mean sign of the real ones (near 1: D has memorised its set)."""
    real, fake = real_logits.detach().float(), fake_logits.detach().float()
    return {"out_d_real": real.mean(), "out_d_fake": fake.mean(), "d_sign_real": real.sign().mean()}


@contextmanager
def no_param_grad(net: nn.Module) -> Iterator[None]:
    """Gradients pass through `net` but do not reach its parameters."""
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    net.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _fractions(terms: Losses) -> Losses:
    """Each term's fraction of G's loss, if it has several."""
    total = sum(term.abs() for term in terms.values())
    return {f"{name.replace('l_g', 'share')}": term.abs() / total for name, term in terms.items() if len(terms) > 1}


class NaNGuard:
    """Takes optimizer steps, except those with losses or gradients that are not finite, which it counts by name.

    All ranks skip the same steps, so their weights stay equal.
    """

    def __init__(self, patience: int = 10):
        self.patience = patience  # so many skipped steps of one name in a row end the training; 0 sets no limit
        self.skipped = 0
        self._in_a_row: dict[str, int] = {}  # by name: good steps of D must not hide a diverged G
        self._first: dict[str, str] = {}

    def step(self, name: str, optimizer: torch.optim.Optimizer, losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Call ``optimizer.step()`` after ``backward``, if `losses` (scalars) and gradients are finite on all ranks.

        Returns the norm of all gradients, a scalar. TrainingError: `patience` is exhausted; names the first number that
        was not finite.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        numbers = {**losses, f"the gradient of step {name}": norm}
        if self._finite_on_all_ranks(torch.stack([number.detach().float().reshape(()) for number in numbers.values()])):
            optimizer.step()
            self._in_a_row[name] = 0
            return norm
        optimizer.zero_grad(set_to_none=True)
        self._count(name, numbers)
        return norm

    def state_dict(self) -> dict[str, int]:
        """For the training state."""
        return {"skipped": self.skipped, "in_a_row": dict(self._in_a_row), "first": dict(self._first)}

    def load_state_dict(self, state: Mapping) -> None:
        self.skipped = state["skipped"]
        self._in_a_row, self._first = dict(state["in_a_row"]), dict(state["first"])

    def _finite_on_all_ranks(self, numbers: torch.Tensor) -> bool:
        finite = numbers.isfinite().all()
        if torch.distributed.is_initialized():
            finite = finite.float()
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
        return bool(finite)

    def _count(self, name: str, numbers: Mapping[str, torch.Tensor]) -> None:
        self.skipped += 1
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
        if self._in_a_row[name] == 1:
            self._first[name] = _first_not_finite(numbers)
        if self._in_a_row[name] == self.patience:
            raise TrainingError(
                f"train:nonfinite_patience: {self.patience}",
                f"{self.patience} steps in a row were not finite; {self._first[name]} was the first",
                "finite losses and gradients",
                "The last saved state is good. Resume from it with a lower learning rate, with precision: fp32, or "
                "with a larger r1_reg_weight.",
            )


def _first_not_finite(numbers: Mapping[str, torch.Tensor]) -> str:
    """The first number that is not finite on some rank: a loss stands before its gradient."""
    values = [
        (index, f"{name} ({float(number)})", float(number)) for index, (name, number) in enumerate(numbers.items())
    ]
    broken = [(index, text) for index, text, value in values if not math.isfinite(value)]
    return min(found for of_one in all_gather_object(broken) for found in of_one)[1]
