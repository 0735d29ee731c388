"""How a class of ours enters BasicSR's registries."""

from collections.abc import Callable, Iterable

from gpen_plugin.errors import RegistryClashError


def register(kind: str) -> Callable[[type], type]:
    """Class decorator: enter a class under its own name in one of BasicSR's registries.

    Entering the same class again (a reload, another import order) changes nothing.

    Args:
        kind: ``arch``, ``model``, ``dataset``, ``loss`` or ``metric``.
    Raises:
        RegistryClashError: the name is taken by another module; both modules are named.
    """

    def enter(cls: type) -> type:
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
        return cls

    return enter


def registered(kind: str) -> dict[str, Callable]:
    """What one of the host's registries holds, by name. `kind` is as in `register`."""
    return dict(iter(_registry(kind)))  # not dict(registry): it has keys() and is no mapping


def _registry(kind: str) -> Iterable:
    from basicsr.utils import registry as registries

    return getattr(registries, f"{kind.upper()}_REGISTRY")
