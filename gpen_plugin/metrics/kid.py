"""The kernel Inception distance (Binkowski et al. 2018) of a set of images to another."""

import functools
import math
from typing import Literal

import numpy as np

from gpen_plugin.errors import ShapeError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import check_better, nan_if_weights_missing
from gpen_plugin.metrics.fid import FeatureStatistics, read_statistics
from gpen_plugin.metrics.inception_features import FeatureSets

THE_PAPERS_UNIT = 1000
BLOCK = 1024  # rows; bounds the memory: a block of the kernel takes 8 MB


@register("metric")
@nan_if_weights_missing
def calculate_kid(
    img: np.ndarray,
    img2: np.ndarray | None = None,
    statistics: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    better: Literal["lower"] = "lower",
) -> "KIDAccumulator":
    """Take an image into the set whose KID, times 1000, the validation will give.

    In an option file: ``kid: {type: calculate_kid, better: lower}`` compares with the ground truth of the validation,
    and ``statistics: ffhq_512.npz`` with another set; the file has to be made with ``--features``. Unlike FID, KID does
    not depend on the sizes of the sets but for chance, and may be a little below 0. It is taken over the whole sets,
    not over random parts of them, so it is the same each time. Memory: 8 kB per image.

    Args:
        img: a generated or restored image, (H, W, 3) BGR uint8, of any size.
        img2: a real one; of no account where there are `statistics`.
        statistics: file of ``datasets_prep/fid_stats.py --features``.
        weights: path of pytorch-fid's Inception weights; None looks for them.
        device: where the network runs; ``auto`` is a GPU where there is one.
        better: read by the host to find the best iteration; it takes ``higher`` where the key is left out.
    Returns:
        The sum of one image, see `SetAccumulator`; NaN where the weights are missing or no good (see the log).
    Raises:
        OptionError: there is neither ground truth nor `statistics`, the file holds no features, or `better` is wrong.
        DataError: the file of `statistics` cannot be read.
        ShapeError: no colour image of 8 bits, or `statistics` of other features.
    """
    check_better(better, "lower", "Equal distributions have the distance 0.")
    if statistics is not None:
        read_statistics(statistics, with_features=True)  # now, not after the last image
    return KIDAccumulator.of_images(img, img2, statistics=statistics, weights=weights, device=device)


class KIDAccumulator(FeatureSets):
    """Features of two sets, or of one and a file with those of another; see `FeatureSets`."""

    def value(self) -> float:
        """The KID times 1000, as papers print it; NaN where a set has a single image."""
        own = self.features()
        if self.statistics is None:
            return THE_PAPERS_UNIT * kernel_distance(own, self.real_features())
        statistics = read_statistics(self.statistics, with_features=True, dimensions=own.shape[1])
        return THE_PAPERS_UNIT * kernel_distance(own, statistics.features, _mean_within_file(statistics))


def kernel_distance(one: np.ndarray, other: np.ndarray, mean_within_other: float | None = None) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, Eq. 3).

    Its kernel is (x . y / D + 1)^3.

    Args:
        one: (N, D) float.
        other: (M, D) float.
        mean_within_other: of the kernel over the pairs of `other`, if it is known.
    Returns:
        The estimate, in float64; NaN if one of the sets has fewer than two rows.
    Raises:
        ShapeError: they differ in dimension.
    """
    if one.shape[1] != other.shape[1]:
        raise ShapeError("other", f"got {other.shape[1]} dimensions", f"{one.shape[1]}, as the first has")
    if min(len(one), len(other)) < 2:
        return math.nan
    if mean_within_other is None:
        mean_within_other = _mean_within(other)
    between = _kernel_sum(one, other) / (len(one) * len(other))
    return float(_mean_within(one) + mean_within_other - 2 * between)


def _mean_within(points: np.ndarray) -> float:
    """Mean of the kernel over all pairs of two different rows."""
    squares = np.square(points.astype(np.float64)).sum(axis=1)
    with_itself = ((squares / points.shape[1] + 1) ** 3).sum()
    return (_kernel_sum(points, points) - with_itself) / (len(points) * (len(points) - 1))


def _kernel_sum(one: np.ndarray, other: np.ndarray) -> float:
    total = 0.0
    for rows in _blocks(one):
        for columns in _blocks(other):
            total += float(((rows @ columns.T / one.shape[1] + 1) ** 3).sum())
    return total


def _blocks(points: np.ndarray):
    for start in range(0, len(points), BLOCK):
        yield points[start : start + BLOCK].astype(np.float64)


@functools.lru_cache(maxsize=4)
def _mean_within_file(statistics: FeatureStatistics) -> float:
    return _mean_within(statistics.features)
