"""How GPEN gets into an unmodified BasicSR, from the start of Python to the first iteration.

1. Python starts. ``gpen_plugin.pth`` in site-packages (``gpen_plugin.start`` from Python 3.15 on; both are installed
   by `packaging/backend.py`) calls `gpen_plugin_hook.install`. It puts one finder on `sys.meta_path`, no more.
   ``GPEN_PLUGIN=0`` in the environment switches this step off. ``import gpen_plugin`` performs it at any time.
2. A program imports ``basicsr``. The finder lets the import run; when ``basicsr/__init__.py`` has finished, it calls
   `register_all`. Meanwhile it answers for a module that BasicSR 1.4.2 imports and torchvision has removed.
3. `register_all` applies the patches of `gpen_plugin.host` to BasicSR's faults, imports every module that registers a
   class (``*_arch.py``, ``*_dataset.py``, ``*_model.py`` as in BasicSR and GFPGAN; losses and metrics), and adds two
   checks to BasicSR's reading of options. An exception here leaves BasicSR usable: its registries report the exception
   when one of our names is looked up.
4. BasicSR reads an option file. `gpen_plugin.preflight` checks it, and `host/run_hooks.py` reserves the folder of the
   run, before anything is written. Option files that name no class of ours are left to BasicSR.

To check all this on a machine: ``python -m gpen_plugin.doctor``.
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules

from gpen_plugin import baselines, data, host, metrics


def register_all() -> None:
    """Patch BasicSR, register everything, and add the checks of option files. Repeating changes nothing.

    Raises:
        RegistryClashError: another module holds one of our names.
    """
    host.apply_patches()
    host.flush_pending()
    import_registered()
    # If gpen_plugin.models is what imports BasicSR, it is half imported here and registers its classes as it continues.
    import_module("gpen_plugin.models")
    # last: BasicSR's own runs must not meet a package that cannot be imported
    host.before_run(_check_run)
    host.before_run(_claim_run)


def import_registered() -> None:
    """Import every module that registers something, except the models, which need BasicSR."""
    # archs and models import their modules in their own __init__. These do not: commands import parts of them without
    # PyTorch, and other networks than GPEN's need not be imported to restore faces.
    for package, suffix in ((data, "_dataset"), (metrics, ""), (baselines, "_arch")):
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            if module.name.endswith(suffix):
                import_module(module.name)
    import_module("gpen_plugin.archs")
    import_module("gpen_plugin.losses")


def _check_run(opt: Mapping) -> None:
    from gpen_plugin.preflight import check_run

    check_run(opt)


def _claim_run(opt: Mapping) -> None:
    """Refuse a second run of one name, where the model is ours or derived from ours."""
    if host.trains_ours(opt):
        host.claim_run(opt)
