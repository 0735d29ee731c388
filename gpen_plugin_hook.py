"""The start-up hook: imports `gpen_plugin` right after BasicSR. `gpen_plugin/registration.py` explains the whole.

It runs at each start of the interpreter, so it imports nothing. It is a top-level module, because importing
``gpen_plugin.anything`` would run the whole package.
"""

import os
import sys

SWITCH = "GPEN_PLUGIN"  # GPEN_PLUGIN=0 leaves BasicSR as it is, unless a program imports gpen_plugin itself
HOST, PLUGIN = "basicsr", "gpen_plugin"

# BasicSR 1.4.2 imports this module during its own import; torchvision 0.17 removed it.
LOST_MODULE = "torchvision.transforms.functional_tensor"
REPLACEMENT = "torchvision.transforms.functional"


def install() -> None:
    """Watch for the import of BasicSR; if it was imported before, register now. Repeating changes nothing."""
    if os.environ.get(SWITCH) == "0" and PLUGIN not in sys.modules:
        return
    # by name, because after a reload of this module the class is another one
    if not any(type(finder).__module__ == __name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, HostFinder())
    if HOST in sys.modules:
        _register_plugin()


class HostFinder:
    """Finds what the finders after it find, and adds the registration to the end of BasicSR's import."""

    def find_spec(self, fullname, path=None, target=None):
        """The spec of BasicSR or of the lost module, else None."""
        if fullname == HOST:
            spec = self._find_after_this(fullname, path, target)
            if spec is not None and spec.loader is not None:
                _register_plugin_after(spec.loader)
            return spec
        if fullname == LOST_MODULE and HOST in sys.modules:
            return self._find_after_this(fullname, path, target) or _spec_of_lost_module()
        return None

    def _find_after_this(self, fullname, path, target):
        # Only the finders after this one: the import system has asked those before it, and two hooks of
        # this kind can never ask each other in circles.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)  # Python 3.10 and 3.11 still allow finders without it
            spec = find and find(fullname, path, target)
            if spec is not None:
                return spec
        return None


def _register_plugin_after(loader) -> None:
    """Let `loader` call `_register_plugin` once, after it has executed BasicSR."""
    execute = loader.exec_module

    def exec_module(module):
        vars(loader).pop("exec_module", None)
        execute(module)
        if module.__name__ == HOST:
            _register_plugin()

    # A loader that takes no attributes (none of Python's own) leaves BasicSR as it is: import the plugin by hand then.
    if hasattr(loader, "__dict__"):
        loader.exec_module = exec_module


def _register_plugin() -> None:
    try:
        from gpen_plugin.registration import register_all

        register_all()
    except Exception as error:  # of any kind: BasicSR can do its own work without the plugin
        _defer_import_error(error)


def _defer_import_error(failure: Exception) -> None:
    """Make BasicSR's registries raise an ImportError with `failure` when a name of the plugin is looked up."""
    registries = sys.modules.get(f"{HOST}.utils.registry")
    try:
        names_by_kind = registered_names()
    except Exception:  # half an uninstall: there is no list
        return
    for kind, names in names_by_kind.items():
        registry = getattr(registries, f"{kind.upper()}_REGISTRY", None)
        if registry is not None and "get" not in vars(registry):
            registry.get = _get_or_explain(registry, kind, names, failure)


def _get_or_explain(registry, kind, names, failure):
    get = registry.get

    def get_or_explain(name, *arguments, **keywords):
        # a class of that name may be there all the same: another package's, or ours if it was imported later on
        if name in names and not (name in registry and get(name).__module__.startswith(f"{PLUGIN}.")):
            raise ImportError(
                f"BasicSR's {kind} registry: '{name}' is missing because {PLUGIN} could not be loaded "
                f"({type(failure).__name__}: {failure}). Run `python -m {PLUGIN}.doctor` to see what to do."
            ) from failure
        return get(name, *arguments, **keywords)

    return get_or_explain


def public_names(folder: str) -> dict[str, str]:
    """The names in ``__init__.pyi``, each with the module of `gpen_plugin` that defines it; "" for a module itself.

    Args:
        folder: of `gpen_plugin`, which is not imported.
    """
    import re

    with open(os.path.join(folder, "__init__.pyi"), encoding="utf-8") as stub:
        return {name: module for module, name in re.findall(r"^from \.(\S*) import (\w+)", stub.read(), re.MULTILINE)}


def registered_names() -> dict[str, list[str]]:
    """Those of the public names that the plugin registers, by kind of registry."""
    from importlib.util import find_spec

    names = {"arch": [], "model": [], "dataset": [], "loss": [], "metric": []}
    for name, module in public_names(os.path.dirname(find_spec(PLUGIN).origin)).items():
        package, _, file = module.partition(".")
        kind = {"losses": "loss", "metrics": "metric"}.get(package) or file.rpartition("_")[2]
        if kind in names:
            names[kind].append(name)
    return names


def _spec_of_lost_module():
    from importlib.machinery import ModuleSpec

    return ModuleSpec(LOST_MODULE, ShimLoader(), origin=__file__)


class ShimLoader:
    """Loads the lost module as a lazy stand-in that looks each name up in its replacement."""

    def create_module(self, spec):
        """None: the import system makes an ordinary module."""

    def exec_module(self, module):
        """Forward names to the replacement, which is imported when the first of them is looked up."""
        from importlib import import_module

        module.__getattr__ = lambda name: getattr(import_module(REPLACEMENT), name)
