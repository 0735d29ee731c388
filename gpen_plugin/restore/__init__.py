"""Restoring pictures with trained weights: ``python -m gpen_plugin.restore``."""

from gpen_plugin.restore.aligned import AlignedRestorer

__all__ = ["AlignedRestorer"]
