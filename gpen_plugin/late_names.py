"""Names of a package that are imported when they are first asked for (PEP 562)."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from gpen_plugin.errors import INSTALL_HOST


def late_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package that imports nothing by itself.

    Args:
        package: its ``__name__``.
        modules: names that it gives away, by the module of the package that holds them. The modules are its too.
    Returns:
        Both functions. The first raises an ImportError that leads to the doctor where a module cannot be imported.
    """
    places = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> object:
        if name not in places and name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        try:
            module = import_module(f"{package}.{places.get(name, name)}")
        except Exception as error:  # of any kind: a torchvision for another torch ends in a RuntimeError
            if isinstance(error, ModuleNotFoundError) and error.name == "basicsr":
                raise ImportError(f"{package}.{name} needs BasicSR. Run: {INSTALL_HOST}") from error
            raise ImportError(
                f"{package}.{name} cannot be loaded ({type(error).__name__}: {error}). "
                "Run `python -m gpen_plugin.doctor` to see what to do."
            ) from error
        value = getattr(module, name) if name in places else module
        setattr(sys.modules[package], name, value)  # so that it is looked for once
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places, *modules})

    return find, names
