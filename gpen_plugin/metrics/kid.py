"""KID, the kernel inception distance (Binkowski et al. 2018), times 1000 as papers print it.

Protocol: the features of FID; the unbiased estimate over the whole sets, not over random subsets, so it is the same in
each run. Unlike FID it does not depend on the size of the sets, and may be a little below 0. Option file:
``kid: {type: calculate_kid, better: lower}``. Memory and `statistics` as for FID.
"""

import functools
import math
from typing import Literal

import numpy as np

from gpen_plugin.errors import ShapeError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import check_better, nan_if_weights_missing
from gpen_plugin.metrics.fid import FeatureAccumulator, FeatureStatistics, read_statistics

PAPER_SCALE = 1000  # papers print the distance times this
BLOCK_ROWS = 1024  # bounds the memory: a block of the kernel takes 8 MB


@register("metric")
@nan_if_weights_missing
def calculate_kid(
    img: np.ndarray,  # generated or restored, (H, W, 3) BGR uint8 of any size
    img2: np.ndarray | None = None,  # real; ignored with `statistics`
    # file of a set to compare with, by datasets_prep/fid_stats.py --features; ~ for the ground truth
    statistics: str | None = None,
    weights: str | None = None,  # path of pytorch-fid's Inception weights; ~ searches for them
    device: str = "auto",  # `auto`, `cpu` or `cuda`
    better: Literal["lower"] = "lower",  # direction of better values; BasicSR takes `higher` without this key
) -> "KIDAccumulator":
    """The accumulator of one image, as `calculate_fid`; OptionError too if the file of `statistics` has no features."""
    check_better(better, "lower", "Equal distributions have the distance 0.")
    if statistics is not None:
        read_statistics(statistics, with_features=True)  # now, not after the last image
    return KIDAccumulator.of_images(img, img2, statistics=statistics, weights=weights, device=device)


class KIDAccumulator(FeatureAccumulator):
    """Features of both sets; the value is their KID times 1000, NaN if a set has a single image."""

    def value(self) -> float:
        own = self.features()
        if self.statistics is None:
            return PAPER_SCALE * kernel_distance(own, self.real_features())
        statistics = read_statistics(self.statistics, with_features=True, dimensions=own.shape[1])
        return PAPER_SCALE * kernel_distance(own, statistics.features, _kernel_mean_of_file(statistics))


def kernel_distance(
    one: np.ndarray,  # [N, D] float
    other: np.ndarray,  # [M, D] float
    other_mean: float | None = None,  # of the kernel over the pairs of `other`, if known
) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, Eq. 3), in float64.

    Its kernel is (x . y / D + 1)^3. NaN if a set has fewer than two rows; ShapeError if the dimensions differ.
    """
    if one.shape[1] != other.shape[1]:
        raise ShapeError("other", f"got {other.shape[1]} dimensions", f"{one.shape[1]}, as the first has")
    if min(len(one), len(other)) < 2:
        return math.nan
    if other_mean is None:
        other_mean = _kernel_mean(other)
    between = _kernel_sum(one, other) / (len(one) * len(other))
    return float(_kernel_mean(one) + other_mean - 2 * between)


def _kernel_mean(points: np.ndarray) -> float:
    # mean of the kernel over all pairs of two different rows
    squares = np.square(points.astype(np.float64)).sum(axis=1)
    diagonal = ((squares / points.shape[1] + 1) ** 3).sum()
    return (_kernel_sum(points, points) - diagonal) / (len(points) * (len(points) - 1))


def _kernel_sum(one: np.ndarray, other: np.ndarray) -> float:
    total = 0.0
    for rows in _blocks(one):
        for columns in _blocks(other):
            total += float(((rows @ columns.T / one.shape[1] + 1) ** 3).sum())
    return total


def _blocks(points: np.ndarray):
    for start in range(0, len(points), BLOCK_ROWS):
        yield points[start : start + BLOCK_ROWS].astype(np.float64)


@functools.lru_cache(maxsize=4)
def _kernel_mean_of_file(statistics: FeatureStatistics) -> float:
    return _kernel_mean(statistics.features)
