"""Any network by its name: one of BasicSR's registry, or the dotted path of a class that is in none."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType

import torch
from torch import nn

from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.config import schema
from gpen_plugin.errors import INSTALL_HOST, CheckpointError, OptionError
from gpen_plugin.host import host_is_installed, registered, resolve
from gpen_plugin.host.patches import patch_missing_ops

OF_NO_REGISTRY = "One that no registry holds goes by its dotted path."


def build_network(section: Mapping, where: str, elsewhere: str = OF_NO_REGISTRY) -> nn.Module:
    """Build the network of an option section.

    Args:
        section: ``type`` and the arguments.
        where: its key path.
        elsewhere: how a network is named that is not in the registry, a whole sentence for the error.
    Raises:
        OptionError: there is no such network, or not with these arguments.
    """
    given = {key: value for key, value in section.items() if key != "type"}
    target = _network_class(section.get("type"), f"{where}:type", elsewhere)
    parameters = inspect.signature(target).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        schema.check(target, given, where)
    patch_missing_ops()
    try:
        return target(**given)
    except Exception as error:  # of any kind: an assertion, a missing key, a file that is not there
        got = f"{section['type']} cannot be built ({type(error).__name__}: {error})"
        raise OptionError(where, got, "arguments that it takes") from error


def seeded_init(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
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
    given, own = name_location(where, lambda: checkpoint.read(path, key)), net.state_dict()
    problems = checkpoint.differences(given, own)
    fitting = {name: tensor for name, tensor in given.items() if name in own and tensor.shape == own[name].shape}
    if problems and (strict or not fitting):
        got = f"holds other tensors than {type(net).__name__} ({checkpoint.shown(problems)})"
        hint = "Set network to what the file was trained with, or name the right file or param_key."
        raise CheckpointError(f"{where}: {path}", got, "all tensors of this network and no others", hint)
    net.load_state_dict(fitting, strict=False)
    return len(own.keys() - fitting.keys())


def import_module_of(module: str, where: str) -> ModuleType:
    """Import a module that an option names; `OptionError` if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        got, hint = f"{module} cannot be imported ({error})", f"Run: pip install {package}"
        raise OptionError(where, got, "an installed package", hint) from error


def name_location(where: str, read: Callable):
    """What `read` returns; its error names the key that names the file."""
    try:
        return read()
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error.where}", error.got, error.expected, error.hint) from error


def describe_network(section: Mapping, net: nn.Module) -> str:
    """A network for a description: its class, its arguments and its size."""
    arguments = ", ".join(f"{key} {value}" for key, value in section.items() if key != "type")
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    return f"{type(net).__name__}{f' ({arguments})' if arguments else ''}, {millions:.1f} M parameters"


def _network_class(name: object, where: str, elsewhere: str) -> Callable[..., nn.Module]:
    if not isinstance(name, str):
        raise OptionError(where, f"got {name}" if name else "missing", "the name of a network", "Add the key.")
    module, _, attribute = name.rpartition(".")
    if not module:
        found = resolve("arch", name)
        if found is None:
            error = schema.unknown_name(name, list(registered("arch")), where)
            if not host_is_installed():
                elsewhere = f"For BasicSR's networks, run: {INSTALL_HOST}. {elsewhere}"
            raise OptionError(where, error.got, error.expected, f"{error.hint} {elsewhere}")
        return found
    found = getattr(import_module_of(module, where), attribute, None)
    if not inspect.isclass(found) or not issubclass(found, nn.Module):
        raise OptionError(where, f"{module} has no network {attribute}", "the dotted path of a class of networks")
    return found
