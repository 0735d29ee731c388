"""Faces for the host's loader, alone or with what a network is to make them of, and the places they come from."""

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
