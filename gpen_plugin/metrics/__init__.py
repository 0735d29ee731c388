"""Metrics that BasicSR lacks, one file each, for `val: metrics:`."""
