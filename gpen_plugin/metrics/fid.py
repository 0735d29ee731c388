"""FID, the Fréchet inception distance (Heusel et al. 2017), and the sets of features that other metrics share.

Protocol: 2048-d pool3 features, images resized to 299 px, see `nets.inception`; unbiased covariances. FID falls as sets
grow, so compare only values of sets of one size. Option file: ``fid: {type: calculate_fid, better: lower}`` compares
with the ground truth of the validation, ``statistics: ffhq_512.npz`` with another set. Memory: 8 kB per image.
"""

import functools
import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import path as osp
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from gpen_plugin.checkpoints.download import read_weights
from gpen_plugin.errors import CheckpointError, DataError, GPENError, OptionError, ShapeError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import ContentCache, SetAccumulator, check_better, check_image, nan_if_weights_missing
from gpen_plugin.nets import inception, vgg16

NETWORKS = {"inception": inception, "vgg16": vgg16}
_KINDS = "a file of datasets_prep/fid_stats.py, pytorch-fid (.npz: mu, sigma) or BasicSR (.pth: mean, cov)"
# a safe loader has to allow the NumPy arrays of BasicSR's files by name
_ALLOWED_TYPES = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in (np.float32, np.float64))]
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_RECONSTRUCT_NAMES = [f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")]  # of NumPy 1 and 2
# 8 kB per image. Ground truth is measured again with each method and validation; FID and KID use the same features.
_ground_truth: ContentCache[np.ndarray] = ContentCache(16384)
_restored: ContentCache[np.ndarray] = ContentCache(16384)


@register("metric")
@nan_if_weights_missing
def calculate_fid(
    img: np.ndarray,  # generated or restored, (H, W, 3) BGR uint8 of any size
    img2: np.ndarray | None = None,  # real; ignored with `statistics`
    # file of a set to compare with, by datasets_prep/fid_stats.py, pytorch-fid or BasicSR; ~ for the ground truth
    statistics: str | None = None,
    weights: str | None = None,  # path of pytorch-fid's Inception weights; ~ searches for them
    device: str = "auto",  # `auto`, `cpu` or `cuda`
    better: Literal["lower"] = "lower",  # direction of better values; BasicSR takes `higher` without this key
) -> "FIDAccumulator":
    """The accumulator of one image, of which the host makes a sum; NaN if the weights are missing (see the log).

    OptionError without ground truth and `statistics`; DataError if `statistics` cannot be read or has other features.
    """
    check_better(better, "lower", "Equal sets have the distance 0.")
    if statistics is not None:
        read_statistics(statistics)  # now, not after the last image
    return FIDAccumulator.of_images(img, img2, statistics=statistics, weights=weights, device=device)


class FeatureAccumulator(SetAccumulator):
    """Features of generated images, and of the real images unless `statistics` names a file of them."""

    network: ClassVar[str] = "inception"  # a key of `NETWORKS`

    def __init__(self, key: bytes, record: tuple[np.ndarray, np.ndarray | None], statistics: str | None):
        super().__init__(key, record)
        self.statistics = statistics

    @classmethod
    def of_images(
        cls,
        img: np.ndarray,
        img2: np.ndarray | None,
        *,
        statistics: str | None,
        weights: str | None,
        device: str,
    ) -> "FeatureAccumulator":
        """Start with one image and, without `statistics`, its ground truth. Arguments and errors as `calculate_fid`."""
        if statistics is None and img2 is None:
            hint = "Make statistics with datasets_prep/fid_stats.py and name the file."
            raise OptionError("statistics", "missing, and there is no ground truth", "one of the two", hint)

        def features_of(image: np.ndarray) -> np.ndarray:
            return NETWORKS[cls.network].extract_features([image], device, weights)[0]

        settings = (cls.network, weights, device)
        check_image("img", img)
        own = _restored.get_or_compute(img, settings, features_of)
        real = None
        if statistics is None:
            check_image("img2", img2)
            real = _ground_truth.get_or_compute(img2, settings, features_of)
        key = b"".join(hashlib.sha256(features).digest() for features in (real, own) if features is not None)
        return cls(key, (own, real), statistics)

    def check_fits(self, other: "FeatureAccumulator") -> None:
        # no option file can lead to different `statistics` in one sum
        assert self.statistics == other.statistics, f"{self.statistics} and {other.statistics} in one sum"

    def features(self) -> np.ndarray:
        return np.stack([own for own, _ in self.records()])  # [N, D] float32

    def real_features(self) -> np.ndarray:
        return np.stack([real for _, real in self.records()])  # [N, D] float32


class FIDAccumulator(FeatureAccumulator):
    """Features of both sets; the value is their FID, NaN of a single image, which has no covariance."""

    def value(self) -> float:
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
    """A normal distribution by its mean and a root of its covariance, root^T root."""

    mean: np.ndarray  # [D] float64
    root: np.ndarray  # [R, D] float64, R at least the rank of the covariance

    @classmethod
    def of_samples(cls, features: np.ndarray) -> "Gaussian":
        """With the mean and unbiased covariance of features, (N, D), N > 1."""
        features = features.astype(np.float64)
        mean = features.mean(axis=0)
        root = (features - mean) / math.sqrt(len(features) - 1)
        return cls(mean, root if len(root) <= len(mean) else np.linalg.qr(root, mode="r"))

    @classmethod
    def of_covariance(cls, mean: np.ndarray, covariance: np.ndarray) -> "Gaussian":
        """With a mean, (D,), and a symmetric covariance, (D, D), which may be singular."""
        values, vectors = np.linalg.eigh(covariance.astype(np.float64))
        rounding = len(values) * np.finfo(np.float64).eps * abs(values).max()
        positive = values > rounding
        return cls(mean.astype(np.float64), (vectors[:, positive] * np.sqrt(values[positive])).T)  # [R, D]


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), the squared Wasserstein-2 distance (Dowson and Landau 1982).

    Of a set to itself it is 0 but for rounding, below 1e-6. ShapeError if the dimensions differ.
    """
    if one.mean.shape != other.mean.shape:
        raise ShapeError("other", f"got {len(other.mean)} dimensions", f"{len(one.mean)}, as the first has")
    shift = np.square(one.mean - other.mean).sum()
    traces = np.square(one.root).sum() + np.square(other.root).sum()
    # With S = R^T R, tr((S1 S2)^(1/2)) is the sum of the singular values of R1 R2^T: no covariance is squared, so
    # singular ones lose nothing, and few images need a small matrix only.
    common = np.linalg.svd(one.root @ other.root.T, compute_uv=False).sum()
    return max(0.0, float(shift + traces - 2 * common))


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Statistics of a set of images, as in a file."""

    name: str
    mean: np.ndarray  # [D] float64
    covariance: np.ndarray  # [D, D] float64, unbiased
    count: int | None = None  # images, if the file says
    features: np.ndarray | None = None  # [N, D] float32 of each image, if the file has them


@functools.lru_cache(maxsize=4)
def _gaussian_of(statistics: FeatureStatistics) -> Gaussian:
    return Gaussian.of_covariance(statistics.mean, statistics.covariance)


def read_statistics(
    path: str | os.PathLike,  # of datasets_prep/fid_stats.py or pytorch-fid (.npz), or of BasicSR (.pth); ~ is the home
    where: str = "statistics",  # key path for errors
    with_features: bool = False,  # whether the features of each image are needed
    dimensions: int | None = None,  # required of the features
) -> FeatureStatistics:
    """Read the statistics of a set; a file is read once, until it changes.

    DataError for a missing or damaged file, OptionError without features, ShapeError for other dimensions.
    """
    path = osp.expanduser(path)
    try:
        changed = os.stat(path).st_mtime_ns
    except OSError as error:
        raise DataError(where, f"{path} cannot be read ({error.strerror})", _KINDS, "Check the path.") from error
    statistics = _read(str(path), changed)
    if with_features and statistics.features is None:
        hint = "Make it again: python datasets_prep/fid_stats.py --features."
        raise OptionError(where, f"{path} holds only mean and covariance", "the features of each image too", hint)
    if dimensions not in (None, len(statistics.mean)):
        got, expected = f"{path} is of {len(statistics.mean)} features", f"{dimensions}, as this metric has"
        raise ShapeError(where, got, expected, "Make it with datasets_prep/fid_stats.py.")
    return statistics


@functools.lru_cache(maxsize=4)
def _read(path: str, changed: int) -> FeatureStatistics:
    try:
        return _parse(_read_pth(path) if path.endswith((".pth", ".pt")) else _read_npz(path), path)
    except GPENError:
        raise
    except Exception as error:  # damaged files raise errors of many kinds
        raise DataError(path, f"cannot be read ({type(error).__name__})", _KINDS) from error


def _read_pth(path: str) -> Mapping:
    with torch.serialization.safe_globals([*_ALLOWED_TYPES, *((_RECONSTRUCT, name) for name in _RECONSTRUCT_NAMES)]):
        try:
            return read_weights(path)
        except CheckpointError as error:
            raise DataError(path, error.got, _KINDS) from error


def _read_npz(path: str) -> Mapping:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _parse(content: Mapping, path: str) -> FeatureStatistics:
    mean, covariance = (_first_of(content, path, *names) for names in (("mu", "mean"), ("sigma", "cov")))
    if mean.ndim != 1 or covariance.shape != (len(mean),) * 2 or not np.isfinite(mean @ covariance).all():
        got = f"has a mean of shape {mean.shape} and a covariance of {covariance.shape}"
        raise DataError(path, got, "(D,) and (D, D), with finite values")
    name, count, features = (content.get(key) for key in ("name", "count", "features"))
    if features is not None and (features.ndim != 2 or features.shape[1] != len(mean)):
        raise DataError(path, f"has features of shape {features.shape}", f"(N, {len(mean)})")
    name, count = Path(path).stem if name is None else str(name), None if count is None else int(count)
    return FeatureStatistics(name, mean, covariance, count, features)


def _first_of(content: Mapping, path: str, *names: str) -> np.ndarray:
    for name in names:
        if name in content:
            return np.asarray(content[name], dtype=np.float64)
    raise DataError(path, f"holds {', '.join(map(str, content)) or 'nothing'}", _KINDS)


class FeatureStats:
    """Mean and covariance of features that are added in batches (Chan et al. 1979)."""

    def __init__(self, dimensions: int):
        self.count = 0
        self.mean = np.zeros(dimensions)
        self._scatter = np.zeros((dimensions, dimensions))

    def add(self, features: np.ndarray) -> None:
        """Add a batch, (N, D)."""
        features = features.astype(np.float64)
        mean, count = features.mean(axis=0), len(features)
        total, shift = self.count + count, mean - self.mean
        self._scatter += (features - mean).T @ (features - mean)
        self._scatter += np.outer(shift, shift) * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = total

    def covariance(self) -> np.ndarray:
        """Unbiased, (D, D) float64, of two rows or more."""
        return self._scatter / (self.count - 1)
