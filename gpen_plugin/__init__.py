"""GPEN, blind face restoration with an embedded GAN prior (CVPR 2021), as a plugin of BasicSR.

``import gpen_plugin`` imports neither PyTorch nor BasicSR: each public name (`__init__.pyi` lists them) is imported on
first use. `registration.py` explains how the classes get into BasicSR's registries.
"""

from importlib import import_module
from pathlib import Path

from gpen_plugin.errors import INSTALL_HOST
from gpen_plugin.version import __version__  # noqa: F401
from gpen_plugin_hook import install, public_names

_FOLDER = Path(__file__).parent
_MODULES = public_names(_FOLDER)
__all__ = sorted(_MODULES)


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:  # PEP 562
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    try:
        module = import_module(f"{__name__}.{_MODULES[name] or name}")
    except Exception as error:  # of any kind: a torchvision for another torch raises a RuntimeError
        if isinstance(error, ModuleNotFoundError) and error.name == "basicsr":
            raise ImportError(f"{__name__}.{name} needs BasicSR. Run: {INSTALL_HOST}") from error
        raise ImportError(
            f"{__name__}.{name} cannot be loaded ({type(error).__name__}: {error}). "
            "Run `python -m gpen_plugin.doctor` to see what to do."
        ) from error
    value = globals()[name] = getattr(module, name) if _MODULES[name] else module
    return value


# `python -m gpen_plugin.train` and the like run the commands in cli/.
__path__.append(str(_FOLDER / "cli"))

install()  # for a Python that started without the hook; last, because it may import the whole package
