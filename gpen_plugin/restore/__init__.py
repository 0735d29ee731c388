"""Photographs in the wild: find faces, align, restore, paste back. ``python -m gpen_plugin.restore``."""

from typing import TYPE_CHECKING

from gpen_plugin.late_names import late_names

if TYPE_CHECKING:
    from gpen_plugin.restore.face import DetectedFace, Restoration, RestoredFace
    from gpen_plugin.restore.restorer import Restorer

__all__ = ["DetectedFace", "Restoration", "RestoredFace", "Restorer"]

__getattr__, __dir__ = late_names(
    __name__,
    {
        "face": (
            "DetectedFace",
            "Restoration",
            "RestoredFace",
        ),
        "restorer": ("Restorer",),
    },
)
