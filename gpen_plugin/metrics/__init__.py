"""Metrics that BasicSR does not have, one file each, for `val: metrics:`."""

from typing import TYPE_CHECKING

from gpen_plugin.late_names import late_names

if TYPE_CHECKING:
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

# late, because a run has use for few of them, and each brings its network or SciPy
__getattr__, __dir__ = late_names(
    __name__,
    {
        "frechet_distance": ("calculate_fid",),
        "identity": ("calculate_identity",),
        "kernel_distance": ("calculate_kid",),
        "landmark_distance": ("calculate_lmd",),
        "perceptual": ("calculate_lpips",),
        "sliced_wasserstein": ("calculate_swd",),
    },
)
