"""The Frechet Inception distance (Heusel et al. 2017) of a set of pictures to another."""

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gpen_plugin.errors import ShapeError
from gpen_plugin.host import register
from gpen_plugin.metrics.availability import going_on_without_files
from gpen_plugin.metrics.feature_statistics import FeatureStatistics, read_statistics
from gpen_plugin.metrics.inception_features import FeatureSets
from gpen_plugin.metrics.picture_checks import check_better


@register("metric")
@going_on_without_files
def calculate_fid(
    img: np.ndarray,
    img2: np.ndarray | None = None,
    statistics: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    better: Literal["lower"] = "lower",
) -> "FrechetSets":
    """Take a picture into the set whose FID the validation will give.

    In an option file: ``fid: {type: calculate_fid, better: lower}`` compares with the ground truth of the validation,
    and ``statistics: ffhq_512.npz`` with those of another set. FID shrinks as sets grow, so only values of sets of one
    size can be compared. Memory: 8 kB per picture.

    Args:
        img: a generated or restored picture, (H, W, 3) BGR uint8, of any size.
        img2: a real one; of no account where there are `statistics`.
        statistics: file of ``datasets_prep/fid_stats.py``, of pytorch-fid or of BasicSR.
        weights: path of pytorch-fid's Inception weights; None looks for them.
        device: where the network runs; ``auto`` is a GPU where there is one.
        better: read by the host to find the best iteration; it takes ``higher`` where the key is left out.
    Returns:
        The sum of one picture, see `SetAccumulator`; NaN where the weights are missing or no good (see the log).
    Raises:
        OptionError: there is neither ground truth nor `statistics`, or `better` is wrong.
        DataError: the file of `statistics` cannot be read.
        ShapeError: no colour picture of 8 bits, or `statistics` of other features.
    """
    check_better(better, "lower", "Equal sets have the distance 0.")
    if statistics is not None:
        read_statistics(statistics)  # now, not after the last picture
    return FrechetSets.of_pictures(img, img2, statistics=statistics, weights=weights, device=device)


class FrechetSets(FeatureSets):
    """Features of two sets, or of one and a file with the statistics of another; see `FeatureSets`."""

    def value(self) -> float:
        """The FID; NaN of a single picture, which has no covariance."""
        if len(self) < 2:
            return math.nan
        own = self.features()
        if self.statistics is None:
            other = Gaussian.of_samples(self.real_features())
        else:
            other = _gaussian_of(read_statistics(self.statistics, dimensions=own.shape[1]))
        return frechet_distance(Gaussian.of_samples(own), other)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution, whose covariance is kept as a root.

    Attributes:
        mean: (D,) float64.
        root: (R, D) float64; the covariance is root^T root, so R is at least its rank.
    """

    mean: np.ndarray
    root: np.ndarray

    @classmethod
    def of_samples(cls, features: np.ndarray) -> "Gaussian":
        """With mean and unbiased covariance of features, (N, D), of which there are two or more."""
        features = features.astype(np.float64)
        mean = features.mean(axis=0)
        root = (features - mean) / math.sqrt(len(features) - 1)
        return cls(mean, root if len(root) <= len(mean) else np.linalg.qr(root, mode="r"))

    @classmethod
    def of_covariance(cls, mean: np.ndarray, covariance: np.ndarray) -> "Gaussian":
        """With a mean, (D,), and a symmetric covariance, (D, D), which may be singular."""
        values, vectors = np.linalg.eigh(covariance.astype(np.float64))
        rounding = len(values) * np.finfo(np.float64).eps * abs(values).max()
        kept = values > rounding
        return cls(mean.astype(np.float64), (vectors[:, kept] * np.sqrt(values[kept])).T)  # (R, D)


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """The squared Wasserstein-2 distance of two normal distributions (Dowson and Landau 1982).

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). With S = R^T R, the trace of the last term is the sum of the singular
    values of R1 R2^T: no square of a covariance is formed, so nothing is lost where it is singular, and a few
    pictures need but a small matrix. Of a set to itself it is 0 but for rounding, below 1e-6.

    Raises:
        ShapeError: they differ in dimension.
    """
    if one.mean.shape != other.mean.shape:
        raise ShapeError("other", f"got {len(other.mean)} dimensions", f"{len(one.mean)}, as the first has")
    shift = np.square(one.mean - other.mean).sum()
    spread = np.square(one.root).sum() + np.square(other.root).sum()
    common = np.linalg.svd(one.root @ other.root.T, compute_uv=False).sum()
    return max(0.0, float(shift + spread - 2 * common))


@functools.lru_cache(maxsize=4)
def _gaussian_of(statistics: FeatureStatistics) -> Gaussian:
    return Gaussian.of_covariance(statistics.mean, statistics.covariance)
