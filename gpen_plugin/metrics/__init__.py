"""Metrics that BasicSR does not have, one file each, for `val: metrics:`. Importing this package registers them."""

from gpen_plugin.metrics.frechet_distance import calculate_fid
from gpen_plugin.metrics.identity import calculate_identity
from gpen_plugin.metrics.kernel_distance import calculate_kid
from gpen_plugin.metrics.landmark_distance import calculate_lmd
from gpen_plugin.metrics.perceptual import calculate_lpips
from gpen_plugin.metrics.sliced_wasserstein import calculate_swd

__all__ = [
    "calculate_fid",
    "calculate_identity",
    "calculate_kid",
    "calculate_lmd",
    "calculate_lpips",
    "calculate_swd",
]
