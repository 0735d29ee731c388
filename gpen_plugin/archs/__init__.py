"""Networks: GPEN, the prior it embeds, the discriminator, pSp; their layers, key maps and form for inference."""

from importlib import import_module
from pkgutil import iter_modules

# registers the classes of each *_arch.py, as in BasicSR and GFPGAN
for module in iter_modules(__path__):
    if module.name.endswith("_arch"):
        import_module(f"{__name__}.{module.name}")
