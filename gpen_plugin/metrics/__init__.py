"""Metrics that BasicSR does not have, one file each, for `val: metrics:`."""

from typing import TYPE_CHECKING

from gpen_plugin.late_names import late_names

if TYPE_CHECKING:
    from gpen_plugin.metrics.fid import calculate_fid
    from gpen_plugin.metrics.identity import calculate_identity
    from gpen_plugin.metrics.kid import calculate_kid
    from gpen_plugin.metrics.lmd import calculate_lmd
    from gpen_plugin.metrics.lpips import calculate_lpips
    from gpen_plugin.metrics.swd import calculate_swd

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
        "fid": ("calculate_fid",),
        "identity": ("calculate_identity",),
        "kid": ("calculate_kid",),
        "lmd": ("calculate_lmd",),
        "lpips": ("calculate_lpips",),
        "swd": ("calculate_swd",),
    },
)
