"""Photographs in the wild: find faces, align, restore, paste back. ``python -m gpen_plugin.restore``."""

from gpen_plugin.restore.face import DetectedFace, Restoration, RestoredFace
from gpen_plugin.restore.restorer import Restorer

__all__ = ["DetectedFace", "Restoration", "RestoredFace", "Restorer"]
