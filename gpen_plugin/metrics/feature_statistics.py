"""What is kept of a set of pictures, so that others can be compared with it: moments of its Inception features."""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import path as osp
from pathlib import Path

import numpy as np
import torch

from gpen_plugin.errors import CheckpointError, DataError, GPENError, OptionError, ShapeError
from gpen_plugin.fetch import read_weights

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
        count: of pictures, or None where the file does not say.
        features: of each picture, (N, D) float32, or None where only their moments are kept.
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
        with_features: whether the features of each picture are needed.
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
        raise DataError(where, f"{path} cannot be read ({error.strerror})", _KINDS, "Mend the path.") from error
    statistics = _read(str(path), changed)
    if with_features and statistics.features is None:
        way_out = "Make it again: python datasets_prep/fid_stats.py --features."
        raise OptionError(where, f"{path} holds moments alone", "the features of each picture too", way_out)
    if dimensions not in (None, len(statistics.mean)):
        came, expected = f"{path} is of {len(statistics.mean)} features", f"{dimensions}, the last of Inception v3"
        raise ShapeError(where, came, expected, "Make it with datasets_prep/fid_stats.py.")
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
        came = f"has a mean of shape {mean.shape} and a covariance of {covariance.shape}"
        raise DataError(path, came, "(D,) and (D, D), with finite values")
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
            raise DataError(path, error.came, _KINDS) from error


def _content_of_npz(path: str) -> Mapping:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _first(content: Mapping, path: str, *names: str) -> np.ndarray:
    for name in names:
        if name in content:
            return np.asarray(content[name], dtype=np.float64)
    raise DataError(path, f"holds {', '.join(map(str, content)) or 'nothing'}", _KINDS)


class Moments:
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
