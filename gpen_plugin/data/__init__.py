"""Faces for the host's loader, alone or with what a network is to make them of, and the places they come from."""

from typing import TYPE_CHECKING

from gpen_plugin.late_names import late_names

if TYPE_CHECKING:
    from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
    from gpen_plugin.data.gpen_face_dataset import GPENFaceDataset
    from gpen_plugin.data.gpen_task_dataset import (
        GPENColorizationDataset,
        GPENInpaintingDataset,
        GPENSegmentationDataset,
    )

__all__ = [
    "GPENColorizationDataset",
    "GPENDegradationDataset",
    "GPENFaceDataset",
    "GPENInpaintingDataset",
    "GPENSegmentationDataset",
]

# late, because whoever looks for images, or degrades one, has no use for PyTorch and its loaders
__getattr__, __dir__ = late_names(
    __name__,
    {
        "gpen_degradation_dataset": ("GPENDegradationDataset",),
        "gpen_face_dataset": ("GPENFaceDataset",),
        "gpen_task_dataset": (
            "GPENColorizationDataset",
            "GPENInpaintingDataset",
            "GPENSegmentationDataset",
        ),
    },
)
