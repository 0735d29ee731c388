"""Metrics that BasicSR lacks, one file each, for `val: metrics:`.

A metric takes images of (H, W, 3) BGR uint8, and raises ShapeError for others and OptionError for a wrong option. If a
file or package that it needs is missing, its value is NaN, and the log names what is missing.
"""
