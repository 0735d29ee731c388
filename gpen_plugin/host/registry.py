"""How a class of ours enters BasicSR's registries."""

import inspect
import logging
import threading
from collections.abc import Callable, Iterable
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from gpen_plugin.errors import INSTALL_HOST, MissingFileError, RegistryClashError
from gpen_plugin.host.patch import HostPatch

HOST_SUFFIX = "basicsr"  # the host enters some of its classes as NAME_basicsr, and finds them by NAME

_turn = threading.RLock()
_waiting: list[tuple[str, type, bool]] = []
_open = False


def register(kind: str, *, unless_taken: bool = False) -> Callable[[type], type]:
    """Class decorator: enter a class under its own name in one of BasicSR's registries.

    Before BasicSR has been imported the class waits for that: a network can be used without it. Entering the same
    class again (a reload, another import order) changes nothing.

    Args:
        kind: ``arch``, ``model``, ``dataset``, ``loss`` or ``metric``.
        unless_taken: do not register where another class has the name; for stand-ins for the host's own.
    Raises:
        RegistryClashError: the name is taken by another module; both modules are named.
    """

    def enter(cls: type) -> type:
        with _turn:
            if _open:
                _enter(kind, cls, unless_taken)
            else:
                _waiting.append((kind, cls, unless_taken))
        return cls

    return enter


def flush_pending() -> None:
    """BasicSR is there: let those enter who waited, and those who come from now on. RegistryClashError as above."""
    global _open
    with _turn:
        _open = True
        while _waiting:
            _enter(*_waiting[0])
            del _waiting[0]  # not before: a clash is told again to whoever asks again


def registered(kind: str) -> dict[str, Callable]:
    """What one of the host's registries holds, by name; where the host is not installed, what is ours.

    Args:
        kind: as in `register`.
    """
    if not host_is_installed():
        import_module("gpen_plugin.registration").import_registered()
        return {cls.__name__: cls for own, cls, _ in _waiting if own == kind}
    return dict(iter(_registry(kind)))  # not dict(registry): it has keys() and is no mapping


def resolve(kind: str, name: object) -> Callable | None:
    """What the host finds in a registry under `name`, with its own suffix too; None if nothing. `kind` as above."""
    if not isinstance(name, str):
        return None
    held = registered(kind)
    return held.get(name) or held.get(f"{name}_{HOST_SUFFIX}")


def is_ours(entry: object) -> bool:
    """Whether a registered class or function is of this package, or derived from one of its classes."""
    return any(map(is_our_own, inspect.getmro(entry) if inspect.isclass(entry) else (entry,)))


def is_our_own(entry: object) -> bool:
    """Whether a registered class or function is defined in this package."""
    return getattr(entry, "__module__", "").partition(".")[0] == __name__.partition(".")[0]


def _replace_ours(original: Callable) -> Callable:
    @wraps(original)
    def _do_register(self: object, name: str, entry: object, *suffix: str | None, **named: str | None) -> None:
        held = getattr(self, "_obj_map", {}).get(name)
        if held is not None and is_our_own(held) and not is_our_own(entry) and not any((*suffix, *named.values())):
            del self._obj_map[name]
            where = f"{entry.__module__} takes the place of {held.__module__}"
            logging.getLogger("basicsr").warning(f"{name}: {where} in BasicSR's {self._name} registry.")
        original(self, name, entry, *suffix, **named)

    return _do_register


REGISTRY_MENDS = (
    HostPatch(
        "a name of this package cannot be given to another class",
        "the registry asserts that a name is free, so a project with a calculate_lpips of its own would not start",
        "1.4.2, master",
        "basicsr.utils.registry",
        "Registry._do_register",
        _replace_ours,
    ),
)


def host_is_installed() -> bool:
    """Whether there is a BasicSR to import, working or not."""
    return find_spec("basicsr") is not None


def host_module(name: str, purpose: str) -> ModuleType:
    """Import a module of the host's.

    Args:
        name: e.g. ``basicsr.archs.vgg_arch``.
        purpose: what needs it, for the error.
    Raises:
        MissingFileError: BasicSR is not installed.
    """
    if not host_is_installed():
        raise MissingFileError(purpose, "needs BasicSR, which is not installed", hint=f"Run: {INSTALL_HOST}")
    return import_module(name)


def _enter(kind: str, cls: type, unless_taken: bool) -> None:
    name, held = cls.__name__, registered(kind).get(cls.__name__)
    if held is None:
        _registry(kind).register(cls)
    elif not unless_taken and (held.__module__, held.__qualname__) != (cls.__module__, cls.__qualname__):
        raise RegistryClashError(
            f"BasicSR's {kind} registry",
            f"'{name}' of {cls.__module__} is already registered by {held.__module__}",
            "one module per name",
            f"Uninstall one of the two packages, or do not import {held.__module__} in this run.",
        )


def _registry(kind: str) -> Iterable:
    from basicsr.utils import registry as registries

    return getattr(registries, f"{kind.upper()}_REGISTRY")
