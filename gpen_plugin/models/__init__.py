"""Models (in BasicSR's sense: networks, losses, optimiser and steps). Importing this package registers them."""

from gpen_plugin.models.gpen_model import GPENModel

__all__ = ["GPENModel"]
