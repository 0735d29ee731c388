"""Entries of type ``gpen`` and ``arch``: which network, and with which weights."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gpen_plugin import checkpoint, schema
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.evaluate.methods.networks import Handling, NetworkMethod, plain
from gpen_plugin.fetch import sha256_of
from gpen_plugin.host import registered
from gpen_plugin.host.foreign_archs import lend_plain_ops
from gpen_plugin.restore.aligned import read_gpen

RANDOM = "random"  # in place of a weight file
LOUD = "RANDOM WEIGHTS: it has learnt nothing"


@dataclass(frozen=True)
class GPENOptions:
    """The keys of a method of type ``gpen``.

    Args:
        weights: a file of ours, of BasicSR or of GPEN's authors, whose tensors tell the sizes; ``random`` for trying
            things out.
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
        weights: the file; ``random`` for trying things out.
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
            way_out = "Write e.g. network: {out_size: 512}."
            raise OptionError(f"{where}:network", "missing", "GPEN's arguments, as the weights are random", way_out)
        section = {"type": "GPEN", **options.network}
        net = drawn(lambda: build_network(section, f"{where}:network"))
        spec, origin, identity["network"] = checkpoint.describe(net.state_dict()), LOUD, plain(section)
    elif options.network is not None:
        came = "given together with a weight file, whose tensors tell it"
        raise OptionError(f"{where}:network", came, "one of the two", "Remove network.")
    else:
        net, spec = _told_where(f"{where}:weights", lambda: read_gpen(options.weights, options.param_key))
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
        _imported(module, f"{where}:imports")
    net = drawn(lambda: build_network(options.network, f"{where}:network"), options.seed)
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
    return NetworkMethod(net, options, device, f"{_shown_network(options.network, net)}; {origin}; {options}", identity)


def build_network(section: Mapping, where: str) -> nn.Module:
    """Build the network of an option section.

    Args:
        section: ``type`` and the arguments.
        where: its key path.
    Raises:
        OptionError: there is no such network, or not with these arguments.
    """
    given = {key: value for key, value in section.items() if key != "type"}
    target = _network_class(section.get("type"), f"{where}:type")
    parameters = inspect.signature(target).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        schema.check(target, given, where)
    lend_plain_ops()
    try:
        return target(**given)
    except Exception as error:  # of any kind: an assertion, a missing key, a file that is not there
        came = f"{section['type']} cannot be built ({type(error).__name__}: {error})"
        raise OptionError(where, came, "arguments that it takes") from error


def drawn(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Build a network whose initial weights are a function of `seed`; nobody else's random numbers move."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build()


def load(net: nn.Module, path: str, key: str | None, where: str, strict: bool = True) -> int:
    """Load a file into any network, weights and nothing else.

    Args:
        net: the network.
        path: the file.
        key: entry of it; None takes params_ema, else params, else what a flat file holds.
        where: key path that names the file.
        strict: whether all tensors have to fit; otherwise those that do are loaded.
    Returns:
        How many of the network's tensors the file did not fill.
    Raises:
        CheckpointError: the file cannot be read; or tensors differ, which it lists.
    """
    if type(net).__module__.startswith("gpen_plugin."):
        return len(checkpoint.load_into(net, path, key, where=where, strict=strict))
    given, own = _told_where(where, lambda: checkpoint.read(path, key)), net.state_dict()
    problems = checkpoint.differences(given, own)
    fitting = {name: tensor for name, tensor in given.items() if name in own and tensor.shape == own[name].shape}
    if problems and (strict or not fitting):
        came = f"holds other tensors than {type(net).__name__} ({checkpoint.shown(problems)})"
        way_out = "Set network to what the file was trained with, or name the right file or param_key."
        raise CheckpointError(f"{where}: {path}", came, "all tensors of this network and no others", way_out)
    net.load_state_dict(fitting, strict=False)
    return len(own.keys() - fitting.keys())


def shown_file(path: str | Path, digest: str) -> str:
    """A weight file for a description: its name and the start of its digest."""
    return f"{Path(path).name} (sha256 {digest[:12]})"


def _network_class(name: object, where: str) -> Callable[..., nn.Module]:
    if not isinstance(name, str):
        raise OptionError(where, f"got {name}" if name else "missing", "the name of a network", "Add the key.")
    module, _, attribute = name.rpartition(".")
    if not module:
        archs = registered("arch")
        if name not in archs:
            error = schema.unknown_name(name, list(archs), where)
            way_out = f"{error.way_out} A package that registers its networks is named in imports."
            raise OptionError(where, error.came, error.expected, way_out)
        return archs[name]
    found = getattr(_imported(module, where), attribute, None)
    if not inspect.isclass(found) or not issubclass(found, nn.Module):
        raise OptionError(where, f"{module} has no network {attribute}", "the dotted path of a class of networks")
    return found


def _imported(module: str, where: str):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        came, way_out = f"{module} cannot be imported ({error})", f"Run: pip install {package}"
        raise OptionError(where, came, "an installed package", way_out) from error


def _check_arguments(net: nn.Module, given: Mapping, where: str) -> None:
    """Whether `forward` takes a picture and these."""
    _, *others = inspect.signature(net.forward).parameters.values()
    known = [parameter.name for parameter in others]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in others):
        for key in given:
            if not known:
                came = f"{type(net).__name__} takes the picture alone"
                raise OptionError(f"{where}:{key}", came, "no arguments", "Remove arguments.")
            if key not in known:
                raise schema.unknown_key(key, known, where)


def _told_where(where: str, read: Callable):
    """What `read` returns; its error names the key that names the file."""
    try:
        return read()
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error.where}", error.came, error.expected, error.way_out) from error


def _shown_network(section: Mapping, net: nn.Module) -> str:
    arguments = ", ".join(f"{key} {value}" for key, value in section.items() if key != "type")
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    return f"{type(net).__name__}{f' ({arguments})' if arguments else ''}, {millions:.1f} M parameters"
