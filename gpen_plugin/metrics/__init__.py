"""Metrics that BasicSR does not have, one file each, for `val: metrics:`. Importing this package registers them."""

from gpen_plugin.metrics.sliced_wasserstein import calculate_swd

__all__ = ["calculate_swd"]
