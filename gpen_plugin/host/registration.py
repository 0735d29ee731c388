"""How a class of ours enters BasicSR's registries."""

import threading
from collections.abc import Callable, Iterable

from gpen_plugin.errors import RegistryClashError

_turn = threading.RLock()
_waiting: list[tuple[str, type]] = []
_open = False


def register(kind: str) -> Callable[[type], type]:
    """Class decorator: enter a class under its own name in one of BasicSR's registries.

    Before BasicSR has been imported the class waits for that: a network can be used without it. Entering the same
    class again (a reload, another import order) changes nothing.

    Args:
        kind: ``arch``, ``model``, ``dataset``, ``loss`` or ``metric``.
    Raises:
        RegistryClashError: the name is taken by another module; both modules are named.
    """

    def enter(cls: type) -> type:
        with _turn:
            if _open:
                _enter(kind, cls)
            else:
                _waiting.append((kind, cls))
        return cls

    return enter


def open_registries() -> None:
    """BasicSR is there: let those enter who waited, and those who come from now on. RegistryClashError as above."""
    global _open
    with _turn:
        _open = True
        while _waiting:
            _enter(*_waiting[0])
            del _waiting[0]  # not before: a clash is told again to whoever asks again


def registered(kind: str) -> dict[str, Callable]:
    """What one of the host's registries holds, by name. `kind` is as in `register`."""
    return dict(iter(_registry(kind)))  # not dict(registry): it has keys() and is no mapping


def _enter(kind: str, cls: type) -> None:
    name, held = cls.__name__, registered(kind).get(cls.__name__)
    if held is None:
        _registry(kind).register(cls)
    elif (held.__module__, held.__qualname__) != (cls.__module__, cls.__qualname__):
        raise RegistryClashError(
            f"BasicSR's {kind} registry",
            f"'{name}' of {cls.__module__} is already registered by {held.__module__}",
            "one module per name",
            f"Uninstall one of the two packages, or do not import {held.__module__} in this run.",
        )


def _registry(kind: str) -> Iterable:
    from basicsr.utils import registry as registries

    return getattr(registries, f"{kind.upper()}_REGISTRY")
