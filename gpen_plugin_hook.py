"""Brings `gpen_plugin` in as soon as BasicSR has been imported, so that no file of BasicSR need be touched.

A ``.pth`` line (a ``.start`` file from Python 3.15 on) calls `install` at each start of the interpreter. It costs one
small finder and imports nothing: whoever never imports BasicSR never sees PyTorch. The module stands on the top level
because importing ``gpen_plugin.anything`` would run the whole package.
"""

import os
import sys

SWITCH = "GPEN_PLUGIN"  # GPEN_PLUGIN=0 leaves BasicSR as it is, unless a program imports gpen_plugin itself
HOST, PLUGIN = "basicsr", "gpen_plugin"

# What the plugin enters into each of the host's registries.
NAMES = {
    "arch": ("GPEN", "GPENPrior", "GPENDiscriminator", "PSP"),
    "model": ("GPENModel", "GPENPriorModel"),
    "dataset": (
        "GPENColorizationDataset",
        "GPENDegradationDataset",
        "GPENFaceDataset",
        "GPENInpaintingDataset",
        "GPENSegmentationDataset",
    ),
    "loss": ("DiscriminatorFeatureMatchingLoss",),
    "metric": (
        "calculate_fid",
        "calculate_identity",
        "calculate_kid",
        "calculate_lmd",
        "calculate_lpips",
        "calculate_swd",
    ),
}

# BasicSR 1.4.2 imports this module while it is imported itself; torchvision 0.17 took it away.
LOST_MODULE = "torchvision.transforms.functional_tensor"
ITS_HEIR = "torchvision.transforms.functional"


def install() -> None:
    """Watch for the import of BasicSR, or catch up with it. Calling it again changes nothing."""
    if os.environ.get(SWITCH) == "0" and PLUGIN not in sys.modules:
        return
    # by name, because after a reload of this module the class is another one
    if not any(type(finder).__module__ == __name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, HostFinder())
    if HOST in sys.modules:  # imported before anybody watched
        _bring_in_plugin()


class HostFinder:
    """Finds what the finders after it find, and adds the plugin to the end of BasicSR's import."""

    def find_spec(self, fullname, path=None, target=None):
        """The spec of `fullname` where this finder has something to add, else None."""
        if fullname == HOST:
            spec = self._found_by_others(fullname, path, target)
            if spec is not None and spec.loader is not None:
                _follow_up(spec.loader)
            return spec
        if fullname == LOST_MODULE and HOST in sys.modules:
            return self._found_by_others(fullname, path, target) or _spec_of_lost_module()
        return None

    def _found_by_others(self, fullname, path, target):
        # Only those after this one: the import system has asked those before it, and two hooks of
        # this kind can never ask each other in circles.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)  # Python 3.10 and 3.11 still allow finders without it
            spec = find and find(fullname, path, target)
            if spec is not None:
                return spec
        return None


def _follow_up(loader) -> None:
    """Let `loader` import the plugin after it has executed the host, and be itself again from then on."""
    execute = loader.exec_module

    def exec_module(module):
        vars(loader).pop("exec_module", None)
        execute(module)
        if module.__name__ == HOST:
            _bring_in_plugin()

    # A loader that takes no attributes (none of Python's own) leaves the host as it is: import the plugin by hand then.
    if hasattr(loader, "__dict__"):
        loader.exec_module = exec_module


def _bring_in_plugin() -> None:
    try:
        from gpen_plugin.registration import register_all

        register_all()
    except Exception as error:  # whatever it is, the host can do its own work without the plugin
        _explain_when_asked(error)


def _explain_when_asked(failure: Exception) -> None:
    """Make the host's registries tell `failure` instead of a KeyError when a name of the plugin is looked up."""
    registries = sys.modules.get(f"{HOST}.utils.registry")
    for kind, names in NAMES.items():
        registry = getattr(registries, f"{kind.upper()}_REGISTRY", None)
        if registry is not None and "get" not in vars(registry):
            registry.get = _explaining(registry, kind, names, failure)


def _explaining(registry, kind, names, failure):
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


def _spec_of_lost_module():
    from importlib.machinery import ModuleSpec

    return ModuleSpec(LOST_MODULE, HeirLoader(), origin=__file__)


class HeirLoader:
    """Loads the lost module as a lazy stand-in that asks the heir for each name."""

    def create_module(self, spec):
        """None: the import system makes an ordinary module."""

    def exec_module(self, module):
        """Give `module` the names of the heir, which is imported when the first of them is asked for."""
        from importlib import import_module

        module.__getattr__ = lambda name: getattr(import_module(ITS_HEIR), name)
