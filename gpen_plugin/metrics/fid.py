"""Fréchet inception distance (Heusel et al. 2017) and the feature statistics that it compares."""

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import path as osp
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from gpen_plugin.checkpoints.download import read_weights
from gpen_plugin.errors import CheckpointError, DataError, GPENError, OptionError, ShapeError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import check_better, nan_if_weights_missing
from gpen_plugin.metrics.inception_features import FeatureSets

_KINDS = "a file of datasets_prep/fid_stats.py, pytorch-fid (.npz: mu, sigma) or BasicSR (.pth: mean, cov)"
# BasicSR's files hold NumPy's arrays, of which a safe loader has to be told
_PARTS_OF_ARRAYS = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in (np.float32, np.float64))]
_REBUILD = np.empty(0).__reduce__()[0]
_NAMES_OF_REBUILD = [f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")]  # of NumPy 1 and 2


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Statistics of a set.

    Attributes:
        name: what to call the set.
        mean: of the features, (D,) float64.
        covariance: unbiased, (D, D) float64.
        count: of images, or None where the file does not say.
        features: of each image, (N, D) float32, or None where only their moments are kept.
    """

    name: str
    mean: np.ndarray
    covariance: np.ndarray
    count: int | None = None
    features: np.ndarray | None = None


def read_statistics(
    path: str | os.PathLike,
    where: str = "statistics",
    with_features: bool = False,
    dimensions: int | None = None,
) -> FeatureStatistics:
    """Read the statistics of a set; a file is read once, until it changes.

    Args:
        path: of a file of ``datasets_prep/fid_stats.py``, of pytorch-fid (``.npz``) or of BasicSR (``.pth``); ``~`` is
            the home folder.
        where: key path that names it, for errors.
        with_features: whether the features of each image are needed.
        dimensions: that the features have to have; None takes any.
    Raises:
        DataError: missing, damaged or of another kind.
        OptionError: `with_features`, and the file has none.
        ShapeError: it is of features of other dimensions.
    """
    path = osp.expanduser(path)
    try:
        changed = os.stat(path).st_mtime_ns
    except OSError as error:
        raise DataError(where, f"{path} cannot be read ({error.strerror})", _KINDS, "Check the path.") from error
    statistics = _read(str(path), changed)
    if with_features and statistics.features is None:
        hint = "Make it again: python datasets_prep/fid_stats.py --features."
        raise OptionError(where, f"{path} holds moments alone", "the features of each image too", hint)
    if dimensions not in (None, len(statistics.mean)):
        got, expected = f"{path} is of {len(statistics.mean)} features", f"{dimensions}, the last of Inception v3"
        raise ShapeError(where, got, expected, "Make it with datasets_prep/fid_stats.py.")
    return statistics


@functools.lru_cache(maxsize=4)
def _read(path: str, changed: int) -> FeatureStatistics:
    try:
        return _statistics(_content_of_pth(path) if path.endswith((".pth", ".pt")) else _content_of_npz(path), path)
    except GPENError:
        raise
    except Exception as error:  # damage and other people's contents show as errors of many kinds
        raise DataError(path, f"cannot be read ({type(error).__name__})", _KINDS) from error


def _statistics(content: Mapping, path: str) -> FeatureStatistics:
    mean, covariance = (_first(content, path, *names) for names in (("mu", "mean"), ("sigma", "cov")))
    if mean.ndim != 1 or covariance.shape != (len(mean),) * 2 or not np.isfinite(mean @ covariance).all():
        got = f"has a mean of shape {mean.shape} and a covariance of {covariance.shape}"
        raise DataError(path, got, "(D,) and (D, D), with finite values")
    name, count, features = (content.get(key) for key in ("name", "count", "features"))
    if features is not None and (features.ndim != 2 or features.shape[1] != len(mean)):
        raise DataError(path, f"has features of shape {features.shape}", f"(N, {len(mean)})")
    name, count = Path(path).stem if name is None else str(name), None if count is None else int(count)
    return FeatureStatistics(name, mean, covariance, count, features)


def _content_of_pth(path: str) -> Mapping:
    with torch.serialization.safe_globals([*_PARTS_OF_ARRAYS, *((_REBUILD, name) for name in _NAMES_OF_REBUILD)]):
        try:
            return read_weights(path)
        except CheckpointError as error:
            raise DataError(path, error.got, _KINDS) from error


def _content_of_npz(path: str) -> Mapping:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _first(content: Mapping, path: str, *names: str) -> np.ndarray:
    for name in names:
        if name in content:
            return np.asarray(content[name], dtype=np.float64)
    raise DataError(path, f"holds {', '.join(map(str, content)) or 'nothing'}", _KINDS)


class FeatureStats:
    """Mean and covariance of features that come in parts (Chan et al. 1979)."""

    def __init__(self, dimensions: int):
        self.count = 0
        self.mean = np.zeros(dimensions)
        self._scatter = np.zeros((dimensions, dimensions))

    def add(self, features: np.ndarray) -> None:
        """Take in a part, (N, D)."""
        features = features.astype(np.float64)
        mean, count = features.mean(axis=0), len(features)
        total, shift = self.count + count, mean - self.mean
        self._scatter += (features - mean).T @ (features - mean)
        self._scatter += np.outer(shift, shift) * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = total

    def covariance(self) -> np.ndarray:
        """The unbiased one, (D, D) float64; of two rows or more."""
        return self._scatter / (self.count - 1)


@register("metric")
@nan_if_weights_missing
def calculate_fid(
    img: np.ndarray,
    img2: np.ndarray | None = None,
    statistics: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    better: Literal["lower"] = "lower",
) -> "FIDAccumulator":
    """Take an image into the set whose FID the validation will give.

    In an option file: ``fid: {type: calculate_fid, better: lower}`` compares with the ground truth of the validation,
    and ``statistics: ffhq_512.npz`` with those of another set. FID shrinks as sets grow, so only values of sets of one
    size can be compared. Memory: 8 kB per image.

    Args:
        img: a generated or restored image, (H, W, 3) BGR uint8, of any size.
        img2: a real one; of no account where there are `statistics`.
        statistics: file of ``datasets_prep/fid_stats.py``, of pytorch-fid or of BasicSR.
        weights: path of pytorch-fid's Inception weights; None looks for them.
        device: where the network runs; ``auto`` is a GPU where there is one.
        better: read by the host to find the best iteration; it takes ``higher`` where the key is left out.
    Returns:
        The sum of one image, see `SetAccumulator`; NaN where the weights are missing or no good (see the log).
    Raises:
        OptionError: there is neither ground truth nor `statistics`, or `better` is wrong.
        DataError: the file of `statistics` cannot be read.
        ShapeError: no colour image of 8 bits, or `statistics` of other features.
    """
    check_better(better, "lower", "Equal sets have the distance 0.")
    if statistics is not None:
        read_statistics(statistics)  # now, not after the last image
    return FIDAccumulator.of_images(img, img2, statistics=statistics, weights=weights, device=device)


class FIDAccumulator(FeatureSets):
    """Features of two sets, or of one and a file with the statistics of another; see `FeatureSets`."""

    def value(self) -> float:
        """The FID; NaN of a single image, which has no covariance."""
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
    images need but a small matrix. Of a set to itself it is 0 but for rounding, below 1e-6.

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
