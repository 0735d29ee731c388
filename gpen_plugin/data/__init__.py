"""Degraded and ground truth pairs: the recipe of Eq. 4, the places that pictures come from, and the host's dataset."""

from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset

__all__ = ["GPENDegradationDataset"]
