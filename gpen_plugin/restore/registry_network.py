"""Networks by name: those of BasicSR's registry, or any class by its dotted path."""

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

DOTTED_PATH_HINT = "Name a network that is not registered by its dotted path."


def build_network(
    section: Mapping,  # ``type`` and the arguments
    where: str,  # its key path
    path_hint: str = DOTTED_PATH_HINT,  # sentence for the error, how to name a network that is not registered
) -> nn.Module:
    """Build the network of an option section.

    Raises: OptionError: there is no such network, or it does not take these arguments.
    """
    given = {key: value for key, value in section.items() if key != "type"}
    target = _network_class(section.get("type"), f"{where}:type", path_hint)
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
    """Build a network whose initial weights depend on `seed` only; the global random state does not change."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build()


def load(
    net: nn.Module,  # the network
    path: str,  # the file
    key: str | None,  # entry of it; None takes params_ema, else params, else a flat file
    where: str,  # key path of the file
    strict: bool = True,  # whether all tensors must match; otherwise those that match are loaded
) -> int:
    """Load a file into any network, tensors only.

    Returns: Number of the network's tensors that the file did not fill.
    Raises: CheckpointError: the file cannot be read, or tensors differ.
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
    """Import a module that an option names; OptionError if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        got, hint = f"{module} cannot be imported ({error})", f"Run: pip install {package}"
        raise OptionError(where, got, "an installed package", hint) from error


def name_location(where: str, read: Callable):
    """Call `read`; its CheckpointError gets `where` in front."""
    try:
        return read()
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error.where}", error.got, error.expected, error.hint) from error


def describe_network(section: Mapping, net: nn.Module) -> str:
    arguments = ", ".join(f"{key} {value}" for key, value in section.items() if key != "type")
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    return f"{type(net).__name__}{f' ({arguments})' if arguments else ''}, {millions:.1f} M parameters"


def _network_class(name: object, where: str, path_hint: str) -> Callable[..., nn.Module]:
    if not isinstance(name, str):
        raise OptionError(where, f"got {name}" if name else "missing", "the name of a network", "Add the key.")
    module, _, attribute = name.rpartition(".")
    if not module:
        found = resolve("arch", name)
        if found is None:
            error = schema.unknown_name(name, list(registered("arch")), where)
            if not host_is_installed():
                path_hint = f"For BasicSR's networks, run: {INSTALL_HOST}. {path_hint}"
            raise OptionError(where, error.got, error.expected, f"{error.hint} {path_hint}")
        return found
    found = getattr(import_module_of(module, where), attribute, None)
    if not inspect.isclass(found) or not issubclass(found, nn.Module):
        raise OptionError(where, f"{module} has no network {attribute}", "the dotted path of a class of networks")
    return found
