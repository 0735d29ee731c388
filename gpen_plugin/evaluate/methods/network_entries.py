"""Entries of type ``gpen`` and ``arch``: which network, and with which weights."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.checkpoints.download import sha256_of
from gpen_plugin.config import schema
from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate.methods.networks import Handling, NetworkMethod, plain
from gpen_plugin.restore.network import read_gpen
from gpen_plugin.restore.registry_network import (
    build_network,
    describe_network,
    import_module_of,
    load,
    name_location,
    seeded_init,
)

RANDOM = "random"  # in place of a weight file
LOUD = "RANDOM WEIGHTS: it has learnt nothing"


@dataclass(frozen=True)
class GPENOptions:
    """The keys of a method of type ``gpen``.

    Args:
        weights: a file of ours, of BasicSR or of GPEN's authors, whose tensors tell the sizes; ``random`` for trying
            things out. ``{run}`` in it stands for each of the entry's ``runs``: see `gpen_plugin.evaluate.repeats`.
        param_key: entry of the file; ~ takes the averaged weights where there are any.
        network: with random weights alone: arguments of `GPEN`.
    """

    weights: str
    param_key: str | None = None
    network: Mapping | None = None


@dataclass(frozen=True, kw_only=True)
class ArchOptions(Handling):
    """The keys of a method of type ``arch``: those of `Handling`, and these.

    Args:
        network: ``type`` and the arguments of a network, as BasicSR's ``network_g``. The type is a name in its
            registry, or the dotted path of a class that is in none.
        weights: the file; ``random`` for trying things out. ``{run}`` as for `GPENOptions`.
        param_key: entry of the file; ~ takes params_ema, else params, else what a flat file holds.
        strict_load: whether all tensors have to fit.
        imports: modules to import first because they register their networks, e.g. [gfpgan].
    """

    network: Mapping
    weights: str
    param_key: str | None = None
    strict_load: bool = True
    imports: Sequence[str] = ()


def build_gpen(options: GPENOptions, where: str, device: torch.device) -> NetworkMethod:
    """A GPEN, whose sizes are read off its weights.

    Args:
        options: of the entry.
        where: its key path.
        device: where it computes.
    Raises:
        GPENError: the file cannot be read or holds something else; or `network` is missing, wrong or superfluous.
    """
    identity = {"type": "gpen", "param_key": options.param_key, "weights": RANDOM}
    if options.weights == RANDOM:
        if options.network is None:
            hint = "Write e.g. network: {out_size: 512}."
            raise OptionError(f"{where}:network", "missing", "GPEN's arguments, as the weights are random", hint)
        section = {"type": "GPEN", **options.network}
        net = seeded_init(lambda: build_network(section, f"{where}:network"))
        spec, origin, identity["network"] = checkpoint.infer_spec(net.state_dict()), LOUD, plain(section)
    elif options.network is not None:
        got = "given together with a weight file, whose tensors tell it"
        raise OptionError(f"{where}:network", got, "one of the two", "Remove network.")
    else:
        net, spec = name_location(f"{where}:weights", lambda: read_gpen(options.weights, options.param_key))
        identity["weights"] = sha256_of(options.weights)
        origin = shown_file(options.weights, identity["weights"])
    handling = Handling(value_range=net.value_range, input_size=net.in_size)
    return NetworkMethod(net, handling, device, f"{spec}; {origin}; {handling}", identity)


def build_arch(options: ArchOptions, where: str, device: torch.device) -> NetworkMethod:
    """Any network of BasicSR's registry or of an installed package.

    Args and errors are those of `build_gpen`.
    """
    options.check(where)
    for module in options.imports:
        import_module_of(module, f"{where}:imports")
    elsewhere = "A package that registers its networks is named in imports."
    net = seeded_init(lambda: build_network(options.network, f"{where}:network", elsewhere), options.seed)
    _check_arguments(net, options.arguments, f"{where}:arguments")
    identity = {"type": "arch", "network": plain(options.network), "param_key": options.param_key}
    if options.weights == RANDOM:
        origin, identity["weights"] = LOUD, RANDOM
    else:
        left = load(net, options.weights, options.param_key, f"{where}:weights", options.strict_load)
        identity["weights"] = sha256_of(options.weights)
        origin = shown_file(options.weights, identity["weights"])
        origin += f", which lacks {left} of the network's tensors" if left else ""
        identity["strict_load"] = options.strict_load
    return NetworkMethod(
        net, options, device, f"{describe_network(options.network, net)}; {origin}; {options}", identity
    )


def shown_file(path: str | Path, digest: str) -> str:
    """A weight file for a description: its name and the start of its digest."""
    return f"{Path(path).name} (sha256 {digest[:12]})"


def _check_arguments(net: nn.Module, given: Mapping, where: str) -> None:
    """Whether `forward` takes an image and these."""
    _, *others = inspect.signature(net.forward).parameters.values()
    known = [parameter.name for parameter in others]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in others):
        for key in given:
            if not known:
                got = f"{type(net).__name__} takes the image alone"
                raise OptionError(f"{where}:{key}", got, "no arguments", "Remove arguments.")
            if key not in known:
                raise schema.unknown_key(key, known, where)
