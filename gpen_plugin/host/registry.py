"""BasicSR's registries: how our classes are registered in them, and which classes an option file names."""

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from gpen_plugin.errors import INSTALL_HOST, MissingFileError, RegistryClashError

HOST_SUFFIX = "basicsr"  # BasicSR registers some of its classes as NAME_basicsr, and finds them by NAME

_lock = threading.RLock()
_pending: list[tuple[str, type, bool, str]] = []
_open = False


def register(kind: str, *, unless_taken: bool = False, name: str | None = None) -> Callable[[type], type]:
    """Class decorator: register a class under its own name, or `name`, in one of BasicSR's registries.

    Until BasicSR is imported the registration is pending, so a network can be used without BasicSR. Registering the
    same class again (a reload, another import order) changes nothing.

    Args:
        kind: ``arch``, ``model``, ``dataset``, ``loss`` or ``metric``.
        unless_taken: do not register where another class has the name; for stand-ins for the host's own.
    Raises:
        RegistryClashError: the name is taken by another module; both modules are named.
    """

    def decorate(cls: type) -> type:
        with _lock:
            if _open:
                _add_to_registry(kind, cls, unless_taken, name or cls.__name__)
            else:
                _pending.append((kind, cls, unless_taken, name or cls.__name__))
        return cls

    return decorate


def flush_pending() -> None:
    """BasicSR is imported: register the pending classes, and from now on each at once. RegistryClashError as above."""
    global _open
    with _lock:
        _open = True
        while _pending:
            _add_to_registry(*_pending[0])
            del _pending[0]  # not before: a repeated call has to report the clash again


def registered(kind: str) -> dict[str, Callable]:
    """The entries of one of BasicSR's registries by name; ours where BasicSR is not installed. `kind` as above."""
    if not host_is_installed():
        import_module("gpen_plugin.registration").import_registered()
        return {name: cls for own, cls, _, name in _pending if own == kind}
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


def names_ours(opt: Mapping) -> bool:
    """Whether the model, a network or a data set of a run is a class of this package or derived from one."""
    return any(is_ours(cls) for cls in _named_classes(opt))


def names_unknown(opt: Mapping) -> bool:
    """Whether the model, a network or a data set of a run is not registered."""
    return any(cls is None for cls in _named_classes(opt))


def trains_ours(opt: Mapping) -> bool:
    """Whether the model of a run is a class of this package or derived from one."""
    return is_ours(resolve("model", opt.get("model_type")))


def _named_classes(opt: Mapping) -> Iterator[Callable | None]:
    yield resolve("model", opt.get("model_type"))
    for key, section in opt.items():
        if str(key).startswith("network_"):
            yield resolve("arch", _type_of(section))
    data_sets = opt.get("datasets")
    for section in data_sets.values() if isinstance(data_sets, Mapping) else ():
        yield resolve("dataset", _type_of(section))


def _type_of(section: object) -> object:
    return section.get("type") if isinstance(section, Mapping) else None


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


def _add_to_registry(kind: str, cls: type, unless_taken: bool, name: str) -> None:
    held = registered(kind).get(name)
    if held is None and name == cls.__name__:
        _registry(kind).register(cls)
    elif held is None:
        _registry(kind)._do_register(name, cls)  # its `register` knows the class's own name only
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
