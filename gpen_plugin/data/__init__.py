"""Faces for the host's loader: alone or with the degraded versions of Eq. 4, and the places that pictures come from."""

from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.data.gpen_face_dataset import GPENFaceDataset

__all__ = ["GPENDegradationDataset", "GPENFaceDataset"]
