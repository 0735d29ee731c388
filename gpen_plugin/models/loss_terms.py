"""The generator's losses as one list: the sections ``..._opt`` of ``train:``, its ``losses``, GFPGAN's identity loss.

`list_losses` reads the list from an option file, for the check before a run and for the models alike. A model builds a
`LossTerm` of each entry but the adversarial one, which the steps compute because D shares it. A term gets its inputs
and gives weighted scalars by their names in the log: ``l_g_NAME``.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from basicsr.losses.basic_loss import PerceptualLoss

from gpen_plugin.config import schema
from gpen_plugin.config.train_options import LossOptions
from gpen_plugin.errors import GPENError, OptionError, join_errors
from gpen_plugin.host import registered, resolve

Losses = dict[str, torch.Tensor]
Features = tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]  # of D, of fake and real images, one per layer
Range = Sequence[float]  # the lowest and highest value of an image

# sections of ``train:`` by their key: the name in the log, and what the loss gets
SECTIONS = {
    "gan_opt": ("gan", "logits"),
    "pixel_opt": ("pix", "pixel"),
    "perceptual_opt": ("percep", "pixel"),
    "feature_matching_opt": ("feat", "feature"),
    "heatmap_opt": ("heatmap", "pixel"),
    "identity_opt": ("identity", "pixel"),
}
CONTENT = ("train:pixel_opt", "train:perceptual_opt")  # those of a training without a discriminator
GFPGAN_KEYS = ("identity_weight", "L1_opt")  # with ``network_identity``


@dataclass(frozen=True)
class LossEntry:
    """An entry of the list."""

    where: str  # its key path
    options: Mapping  # type and arguments of the class
    name: str  # in the log
    on: str  # what the loss gets: logits, pixel, feature or output
    weight: float = 1.0
    value_range: Range | None = None  # of the images that it gets; None: the generator's


def list_losses(opt: Mapping) -> list[LossEntry]:
    """All losses of an option file, as BasicSR parsed it. GPENError: one that lists every wrong entry."""
    entries, problems = [], []
    for read in _readers(opt):
        try:
            entries.append(read())
        except GPENError as error:
            problems.append(error)
    names = [entry.name for entry in entries]
    for entry in entries:
        if names.count(entry.name) > 1 and entry.where.startswith("train:losses:"):
            got = f"got {entry.name!r}, which another loss has too"
            problems.append(OptionError(f"{entry.where}:name", got, "a name per loss", "Give each loss a name."))
    if problems:
        raise join_errors(problems)
    return entries


def _readers(opt: Mapping) -> Iterator[Callable[[], LossEntry]]:
    train = opt["train"]
    for key, (name, on) in SECTIONS.items():
        if train.get(key):
            yield partial(_of_section, train[key], f"train:{key}", name, on)
    if opt.get("network_identity") or any(train.get(key) is not None for key in GFPGAN_KEYS):
        yield partial(_of_gfpgan, opt)
    for number, section in enumerate(train.get("losses") or ()):
        yield partial(_of_list, section, f"train:losses:{number}")


def _of_section(section: object, where: str, name: str, on: str) -> LossEntry:
    cls = _loss_class(section, where)
    return LossEntry(where, dict(section), name, on, value_range=getattr(cls, "value_range", None))


def _of_list(section: object, where: str) -> LossEntry:
    """An entry of ``losses``. A key that the class takes goes to the class, which applies its own ``weight``."""
    cls = _loss_class(section, where)
    taken = inspect.signature(cls).parameters
    own = {field.name: section[field.name] for field in fields(LossOptions) if field.name in section}
    settings = schema.build(LossOptions, own, where)
    options = {key: value for key, value in section.items() if key not in own or key in ("type", *taken)}
    count = _number_of_inputs(cls)
    on = settings.on or getattr(cls, "on", None) or ("output" if count == 1 else "pixel")
    if count in (1, 2) and (on == "output") != (count == 1):
        fitting, number = ("output", "one input") if count == 1 else ("pixel or feature", "two inputs")
        expected = f"{fitting}, because {section['type']} takes {number}"
        raise OptionError(f"{where}:on", f"got {on}", expected, "Change it.")
    weight = 1.0 if "weight" in taken else settings.weight
    name = settings.name or str(section["type"]).lower().removesuffix("loss")
    return LossEntry(where, options, name, on, weight, settings.value_range or getattr(cls, "value_range", None))


def _of_gfpgan(opt: Mapping) -> LossEntry:
    """GFPGAN's keys: ``network_identity``, ``path:pretrain_network_identity``, ``identity_weight`` and ``L1_opt``."""
    train, network = opt["train"], opt.get("network_identity")
    if not network:
        key = next(key for key in GFPGAN_KEYS if train.get(key) is not None)
        hint = f"Give network_identity, or remove {key}. identity_opt is the shorter form."
        raise OptionError(f"train:{key}", "given without network_identity", "both, as in GFPGAN's files", hint)
    if train.get("identity_weight") is None:
        raise OptionError("train:identity_weight", "missing", "the weight of network_identity's loss", "Add the key.")
    if train.get("identity_opt"):
        raise OptionError("train:identity_opt", "given beside network_identity", "one of the two", "Remove one.")
    options = {"type": "IdentityLoss", "loss_weight": train["identity_weight"], "network": network}
    options |= {"weights": opt["path"].get("pretrain_network_identity"), "criterion": train.get("L1_opt")}
    cls = _loss_class(options, "train:identity_weight")
    return LossEntry("train:identity_weight", options, "identity", "pixel", value_range=cls.value_range)


def _loss_class(section: object, where: str) -> Callable:
    if not isinstance(section, Mapping) or "type" not in section:
        raise OptionError(f"{where}:type", "missing", "the name of a class", "Add the key.")
    cls = resolve("loss", section["type"])
    if cls is None:
        raise schema.unknown_name(section["type"], list(registered("loss")), f"{where}:type")
    return cls


def _number_of_inputs(cls: Callable) -> int | None:
    """How many inputs the `forward` of a loss requires; None if it does not say."""
    forward = getattr(cls, "forward", None)
    if forward is None:
        return None
    parameters = [*inspect.signature(forward).parameters.values()][1:]
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters)


@dataclass(frozen=True)
class LossTerm:
    """A built loss. Called, it gives its weighted scalars by their names in the log."""

    entry: LossEntry
    loss: Callable

    def __call__(
        self,
        fake: torch.Tensor,  # G's images, float32, (N, 3, H, W), in `value_range`
        real: torch.Tensor,  # the ground truth, likewise
        features: Features | None,  # None: there is no discriminator in this step
        value_range: Range,  # the generator's
    ) -> Losses:
        on = self.entry.on
        if on == "feature":
            return self._named(self._of_features(*features))
        images = [in_range(image, value_range, self.entry.value_range) for image in (fake, real)]
        return self._named(self.loss(images[0]) if on == "output" else self.loss(*images))

    def _of_features(self, fake: Sequence[torch.Tensor], real: Sequence[torch.Tensor]) -> object:
        """A loss that says ``on = "feature"`` gets the lists; of another, the sum over the layers."""
        if not fake:
            hint = "Use one with return_features, or remove the loss."
            raise OptionError(self.entry.where, "gets no features", "a discriminator that gives some", hint)
        real = [each.detach() for each in real]
        if getattr(self.loss, "on", None) == "feature":
            return self.loss(fake, real)
        return sum(self.loss(one.float(), other.float()) for one, other in zip(fake, real, strict=True))

    def _named(self, returned: object) -> Losses:
        """The terms that a loss returned: a scalar, or several of which each may be None."""
        terms = returned if isinstance(returned, (tuple, list)) else [returned]
        names = term_names(self.entry.name, len(terms), isinstance(self.loss, PerceptualLoss))
        named = {}
        for name, term in zip(names, terms, strict=True):
            if term is not None:
                if not torch.is_tensor(term) or term.numel() != 1:
                    got = f"a tensor of shape {tuple(term.shape)}" if torch.is_tensor(term) else type(term).__name__
                    expected = "a scalar tensor, or several of which each may be None"
                    where = f"{self.entry.where}: {type(self.loss).__name__}"
                    raise OptionError(where, f"returned {got}", expected, "Use reduction: mean.")
                named[f"l_g_{name}"] = self.entry.weight * term.reshape(())
        return named


def term_names(name: str, count: int, perceptual: bool) -> list[str]:
    """Names of the `count` terms of a loss: ``pix`` and ``pix_2``; of a perceptual loss ``percep`` and ``style``."""
    if perceptual:
        return [name, "style" if name == "percep" else f"{name}_style"]
    return [name, *(f"{name}_{number}" for number in range(2, count + 1))]


def in_range(image: torch.Tensor, given: Range | None, wanted: Range | None) -> torch.Tensor:
    """An image of one value range in another; as it is if one of them is not known."""
    if given is None or wanted is None or tuple(wanted) == tuple(given):
        return image
    (low, high), (new_low, new_high) = given, wanted
    return (image - low) / (high - low) * (new_high - new_low) + new_low
