"""One training iteration, step by step (paper, section 3.3; StyleGAN2's ``loss.py`` has the same four steps).

- Fine-tuning (`GPENModel`) and the methods to compare with (`RestorationGANModel`): `generator_and_discriminator_step`,
  and at every k-th iteration `r1_step`; `content_step` for a training without a discriminator.
- Prior (`GPENPriorModel`): `discriminator_step`, `generator_step`, and lazily `r1_step` and `path_length_step`.

Images are (N, 3, H, W), logits (N, 1), or (N, 1, h, w) for the patches of an image. Every step adds up the gradients of
the parts of its batch (``train:micro_batch``), returns its losses and statistics by their names in the log, and takes

- ``parts``: an iterator of `Part`, so that the graph of one part is freed before the next is made;
- ``gan``: BasicSR's GANLoss, ``gan(logits, target_is_real, is_disc)``: softplus(-D(x)) for a target that is real,
  softplus(D(x)) for one that is not (Eq. 1);
- ``guard``: a `NaNGuard`, which calls ``optimizer.step()`` if all losses and gradients are finite;
- ``autocast``: the precision of D's forward pass; losses are computed in float32.

Elsewhere: G's forward pass and the order of the steps (`optimize_parameters` of each model), the average of gradients
over GPUs (DistributedDataParallel, inside ``backward``), EMA and logging (`AdversarialModel.end_of_iteration`).
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from gpen_plugin.errors import TrainingError
from gpen_plugin.host.distributed import all_gather_object, all_reduce_mean
from gpen_plugin.losses import path_lengths, r1_penalty
from gpen_plugin.models.loss_terms import Features, Losses

Precision = Callable[[], AbstractContextManager]
Discriminate = Callable[[torch.Tensor], tuple[list[torch.Tensor], list[torch.Tensor]]]
LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


def logits_and_features(
    net_d: nn.Module, images: torch.Tensor, want_features: bool = True
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Logits of each scale of a discriminator, and its features.

    A discriminator takes images, (N, 3, H, W), and returns one of these:

    - logits, (N, 1) or (N, 1, h, w), or a list of them, one per scale; with ``return_features=True``, if its `forward`
      has that parameter, a pair of them and a list of features, (N, C, h, w) each;
    - logits alone: its features are the outputs of its convolutions and linear layers but the last;
    - for each scale a list of features that ends with the logits, as BasicSR's HiFaceGANDiscriminator.
    """
    bare = getattr(net_d, "module", net_d)
    if "return_features" in inspect.signature(bare.forward).parameters:
        if not want_features:
            return _as_list(net_d(images)), []
        logits, features = net_d(images, return_features=True)
        return _as_list(logits), list(features)
    with _record_layers(bare if want_features else None) as outputs:
        answer = net_d(images)
    if torch.is_tensor(answer):
        return [answer], outputs[:-1]
    scales = [scale if isinstance(scale, list | tuple) else [scale] for scale in answer]
    return [scale[-1] for scale in scales], [features for scale in scales for features in scale[:-1]]


def _as_list(logits: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [logits] if torch.is_tensor(logits) else list(logits)


@contextmanager
def _record_layers(net: nn.Module | None) -> Iterator[list[torch.Tensor]]:
    """The outputs of the layers of `net` in the order of their calls, while it runs inside."""
    outputs: list[torch.Tensor] = []
    layers = [module for module in net.modules() if isinstance(module, LAYERS)] if net is not None else []
    # An activation in place, as in BasicSR's UNetDiscriminatorSN, changes the recorded output: it is a feature as well.
    hooks = [layer.register_forward_hook(lambda _, given, output: outputs.append(output)) for layer in layers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class Part:
    """A part of a batch. A step adds up the gradients of all parts, then moves the weights once."""

    real: torch.Tensor  # images as D sees them
    fake: torch.Tensor | None = None  # G's images, with their graph where G learns
    fraction: float = 1.0  # of the batch: the factor of the losses of this part
    discriminate: Discriminate | None = None  # images -> D's logits and features; None: `logits_and_features`
    # further weighted terms of G's loss with graphs of their own, which do not pass through the images
    auxiliary: Losses | None = None
    penalty: Callable[[Discriminate], Losses] | None = None  # weighted terms of D's loss besides the adversarial one

    def discriminator(self, net_d: nn.Module, want_features: bool = False) -> Discriminate:
        """D as this part calls it."""
        return self.discriminate or (lambda images: logits_and_features(net_d, images, want_features))


class _Sum(dict):
    """Detached numbers by name, added up over the parts with their fractions."""

    def add(self, numbers: Losses, fraction: float) -> None:
        for name, number in numbers.items():
            self[name] = self[name] + fraction * number.detach() if name in self else fraction * number.detach()


def generator_and_discriminator_step(
    net_d: nn.Module,
    optimizer_g: torch.optim.Optimizer,
    optimizer_d: torch.optim.Optimizer,  # may be the same, of both networks
    parts: Iterable[Part],
    *,
    gan: Callable,
    guard: "NaNGuard",
    # (fake, real, D's features of both) -> the other weighted terms of G's loss, such as L_C and L_F
    losses: Callable[[torch.Tensor, torch.Tensor, Features], Losses] | None = None,
    autocast: Precision = nullcontext,
) -> Losses:
    """A step of G on L_A + alpha L_C + beta L_F (Eq. 3; the losses hold the weights) and a step of D on Eq. 1.

    Both steps share one forward pass of D for each image. The graph is cut at the fake images: G's losses go back
    through D to the images, then from the images through G; D's loss goes back through the same graph of D to its
    weights. This saves D's forward passes, and under DDP one exchange of D's gradients. It costs memory: the graphs of
    G and of D for both images exist at once.
    """
    _zero_grad(optimizer_g, optimizer_d)
    learning = [parameter for parameter in net_d.parameters() if parameter.requires_grad]
    terms, of_d, stats = _Sum(), _Sum(), _Sum()
    for part in parts:
        discriminate = part.discriminator(net_d, want_features=True)
        images = part.fake.detach().requires_grad_()
        with autocast():
            fake_logits, fake_features = discriminate(images)
            real_logits, real_features = discriminate(part.real)

        # G: minimize L_A + alpha L_C + beta L_F
        own = {"l_g_gan": _sum_of_scales(gan, fake_logits, True, is_disc=False)}
        if losses is not None:
            own |= losses(images.float(), part.real, (fake_features, real_features))
        (gradient,) = torch.autograd.grad(part.fraction * sum(own.values()), images, retain_graph=True)
        terms.add(own, part.fraction)
        del fake_features, real_features, own  # frees them and the graphs of the losses
        auxiliary = part.auxiliary or {}
        scaled = [part.fraction * term for term in auxiliary.values()]
        torch.autograd.backward([part.fake, *scaled], [gradient, *[None] * len(scaled)])
        terms.add(auxiliary, part.fraction)

        # D: minimize softplus(-D(real)) + softplus(D(fake))
        loss_d = _sum_of_scales(gan, real_logits, True, is_disc=True)
        loss_d = loss_d + _sum_of_scales(gan, fake_logits, False, is_disc=True)
        penalties = part.penalty(discriminate) if part.penalty is not None else {}
        loss_d = sum(penalties.values(), loss_d)
        (part.fraction * loss_d).backward(inputs=learning)
        of_d.add({"l_d": loss_d, **penalties}, part.fraction)
        stats.add(d_logit_stats(_flat(real_logits), _flat(fake_logits)), part.fraction)

    gradients = [parameter.grad for parameter in learning]
    for parameter in learning:  # the step of G must not move D, where one optimizer holds both
        parameter.grad = None
    norm_g = guard.step("g", optimizer_g, terms)
    _zero_grad(optimizer_g, optimizer_d)
    for parameter, gradient in zip(learning, gradients, strict=True):
        parameter.grad = gradient
    norm_d = guard.step("d", optimizer_d, {"l_d": of_d["l_d"]})
    return {**terms, **_fractions(terms), **of_d, **stats, "grad_norm_g": norm_g, "grad_norm_d": norm_d}


def content_step(
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Part],
    *,
    guard: "NaNGuard",
    losses: Callable[[torch.Tensor, torch.Tensor], Losses],  # (fake, real) -> G's weighted losses
) -> Losses:
    """A step of G on losses that need no discriminator."""
    optimizer.zero_grad(set_to_none=True)
    terms = _Sum()
    for part in parts:
        own = losses(part.fake.float(), part.real) | (part.auxiliary or {})
        (part.fraction * sum(own.values())).backward()
        terms.add(own, part.fraction)
    return {**terms, **_fractions(terms), "grad_norm_g": guard.step("g", optimizer, terms)}


def _zero_grad(*optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)


def _sum_of_scales(gan: Callable, logits: Sequence[torch.Tensor], target: bool, *, is_disc: bool) -> torch.Tensor:
    return sum(gan(each.float(), target, is_disc=is_disc) for each in logits)


def _flat(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([each.flatten() for each in logits])


def generator_step(
    net_d: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Part],
    *,
    gan: Callable,
    guard: "NaNGuard",
    autocast: Precision = nullcontext,
) -> Losses:
    """A step of a prior G on Eq. 1. D is frozen."""
    optimizer.zero_grad(set_to_none=True)
    losses = _Sum()
    with no_param_grad(net_d):
        for part in parts:
            with autocast():
                logits, _ = part.discriminator(net_d)(part.fake)
            loss = _sum_of_scales(gan, logits, True, is_disc=False)
            (part.fraction * loss).backward()
            losses.add({"l_g_gan": loss}, part.fraction)
        return {**losses, "grad_norm_g": guard.step("g", optimizer, losses)}


def discriminator_step(
    net_d: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Part],
    *,
    gan: Callable,
    guard: "NaNGuard",
    autocast: Precision = nullcontext,
) -> Losses:
    """A step of D on Eq. 1. Real and fake images go back one after the other, which halves the memory."""
    optimizer.zero_grad(set_to_none=True)
    losses, stats = _Sum(), _Sum()
    for part in parts:
        scores = []
        for images, is_real in ((part.real, True), (part.fake.detach(), False)):
            with autocast():
                logits, _ = part.discriminator(net_d)(images)
            loss = _sum_of_scales(gan, logits, is_real, is_disc=True)
            (part.fraction * loss).backward()
            losses.add({"l_d": loss} if is_real else {"of fake": loss}, part.fraction)
            scores.append(_flat(logits))
        stats.add(d_logit_stats(*scores), part.fraction)
    losses["l_d"] = losses["l_d"] + losses.pop("of fake")
    return {**losses, **stats, "grad_norm_d": guard.step("d", optimizer, losses)}


def r1_step(
    net_d: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Part],
    *,
    gamma: float,
    every: int,
    guard: "NaNGuard",
) -> Losses:
    """A step of D on lazy R1, ``every * gamma / 2 * E |grad D(x)|^2`` (StyleGAN2, appendix B)."""
    optimizer.zero_grad(set_to_none=True)
    losses = _Sum()
    for part in parts:
        images = part.real.detach().requires_grad_(True)
        with torch.compiler.set_stance("force_eager"):  # compiled networks cannot be differentiated twice
            scales, _ = part.discriminator(net_d)(images)
        # of several patches the mean, and of several scales the sum: (N, 1)
        logits = sum(scale if scale.ndim == 2 else scale.flatten(1).mean(1, keepdim=True) for scale in scales)
        penalty = r1_penalty(logits, images)
        # 0 * logits: D's last bias has no gradient in the penalty, and DDP would wait for it
        (part.fraction * (every * gamma / 2 * penalty + 0 * logits.sum())).backward()
        losses.add({"l_d_r1": penalty}, part.fraction)
    guard.step("r1", optimizer, losses)
    return {"l_d_r1": all_reduce_mean(losses["l_d_r1"])}  # unweighted


def path_length_step(
    # per part: G's images with their latents, (N, codes, F), N(0, 1) in the shape of the images, the fraction
    parts: Iterable[tuple[Callable[[], tuple[torch.Tensor, torch.Tensor]], torch.Tensor, float]],
    optimizer: torch.optim.Optimizer,
    mean: torch.Tensor,  # moving average of the lengths, a scalar
    *,
    weight: float,
    every: int,
    guard: "NaNGuard",
    decay: float = 0.01,  # weight of the new lengths in the average
) -> tuple[Losses, torch.Tensor]:
    """A step of G on the lazy path length penalty, ``every * weight * E (length - mean)^2`` (StyleGAN2, Eq. 4).

    Returns the unweighted penalty and the mean length, averaged over the ranks; and the new moving average. Each part
    moves the average by its fraction, and is compared with the average so far.
    """
    optimizer.zero_grad(set_to_none=True)
    losses = _Sum()
    for generate, directions, fraction in parts:
        with torch.compiler.set_stance("force_eager"):
            images, latents = generate()
        lengths = path_lengths(images, latents, directions)  # [N]
        length = all_reduce_mean(lengths.detach().mean())
        mean = torch.where(length.isfinite(), torch.lerp(mean, length, decay * fraction), mean)
        penalty = (lengths - mean).square().mean()
        # 0 * images: the biases of the RGB layers have no gradient in the penalty; see `r1_step`
        (fraction * (every * weight * penalty + 0 * images.sum())).backward()
        losses.add({"l_g_path": penalty, "path_length": length}, fraction)
    guard.step("path", optimizer, {"l_g_path": losses["l_g_path"]})
    return {"l_g_path": all_reduce_mean(losses["l_g_path"]), "path_length": losses["path_length"]}, mean


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

    def __init__(self, patience: int = 10, max_norm: float | None = None):
        self.patience = patience  # so many skipped steps of one name in a row end the training; 0 sets no limit
        self.max_norm = max_norm  # larger gradients are scaled down to this norm; None: never
        self.skipped = 0
        self._in_a_row: dict[str, int] = {}  # by name: good steps of D must not hide a diverged G
        self._first: dict[str, str] = {}

    def step(self, name: str, optimizer: torch.optim.Optimizer, losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Call ``optimizer.step()`` after ``backward``, if `losses` (scalars) and gradients are finite on all ranks.

        Returns the norm of all gradients before they are clipped, a scalar. TrainingError: `patience` is exhausted;
        names the first number that was not finite.
        """
        moved = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in moved])
        numbers = {**losses, f"the gradient of step {name}": norm}
        if self._finite_on_all_ranks(torch.stack([number.detach().float().reshape(()) for number in numbers.values()])):
            if self.max_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(moved, self.max_norm, norm)
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
