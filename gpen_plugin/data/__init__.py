"""Faces for the host's loader, alone or with what a network is to make them of, and the places they come from."""

from typing import TYPE_CHECKING

from gpen_plugin.late_names import late_names

if TYPE_CHECKING:
    from gpen_plugin.data.gpen_colorization_dataset import GPENColorizationDataset
    from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
    from gpen_plugin.data.gpen_face_dataset import GPENFaceDataset
    from gpen_plugin.data.gpen_inpainting_dataset import GPENInpaintingDataset
    from gpen_plugin.data.gpen_segmentation_dataset import GPENSegmentationDataset

__all__ = [
    "GPENColorizationDataset",
    "GPENDegradationDataset",
    "GPENFaceDataset",
    "GPENInpaintingDataset",
    "GPENSegmentationDataset",
]

# late, because whoever looks for pictures, or degrades one, has no use for PyTorch and its loaders
__getattr__, __dir__ = late_names(
    __name__,
    {
        "gpen_colorization_dataset": ("GPENColorizationDataset",),
        "gpen_degradation_dataset": ("GPENDegradationDataset",),
        "gpen_face_dataset": ("GPENFaceDataset",),
        "gpen_inpainting_dataset": ("GPENInpaintingDataset",),
        "gpen_segmentation_dataset": ("GPENSegmentationDataset",),
    },
)
