"""GPEN for other runtimes: ONNX files and exported programs that are held against PyTorch before they are kept."""

from typing import TYPE_CHECKING

from gpen_plugin.late_names import late_names

if TYPE_CHECKING:
    from gpen_plugin.export.exporting import Exported, export
    from gpen_plugin.export.plan import Plan

__all__ = ["Exported", "Plan", "export"]

__getattr__, __dir__ = late_names(
    __name__,
    {
        "exporting": (
            "Exported",
            "export",
        ),
        "plan": ("Plan",),
    },
)
