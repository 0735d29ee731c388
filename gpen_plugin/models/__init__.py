"""Models (in BasicSR's sense: networks, losses, optimisers and steps). Importing this package registers them."""

from gpen_plugin.models.gan_prior_model import GPENPriorModel
from gpen_plugin.models.gpen_model import GPENModel

__all__ = ["GPENModel", "GPENPriorModel"]
