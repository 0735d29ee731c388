"""Training: networks, losses, optimizers and steps of both stages (a *model* in BasicSR's sense).

Importing this package registers the classes of each ``*_model.py``, as in BasicSR and GFPGAN.
"""

from importlib import import_module
from pkgutil import iter_modules

for module in iter_modules(__path__):
    if module.name.endswith("_model"):
        import_module(f"{__name__}.{module.name}")
