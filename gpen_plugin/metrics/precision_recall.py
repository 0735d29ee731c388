"""Improved precision and recall (Kynkäänniemi et al. 2019): how much of one set lies within the manifold of the other.

Protocol: 4096-d features of VGG-16's second fully connected layer, see `nets.vgg16`; the manifold of a set is the union
of balls around its features, each as large as the distance to its third nearest neighbor. Both rise with the size of
the sets, so compare only values of sets of one size. Option file: ``precision: {type: calculate_precision}`` compares
with the ground truth, ``statistics: ffhq_512_vgg16.npz`` with another set.
"""

import functools
import math
from typing import ClassVar, Literal

import numpy as np
import torch

from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import check_better, nan_if_weights_missing
from gpen_plugin.metrics.fid import FeatureAccumulator, FeatureStatistics, read_statistics

BLOCK_NUMBERS = 2**24  # distances in memory at once, 128 MB


@register("metric")
@nan_if_weights_missing
def calculate_precision(
    img: np.ndarray,  # generated or restored, (H, W, 3) BGR uint8 of any size
    img2: np.ndarray | None = None,  # real; ignored with `statistics`
    # file of a set to compare with, by datasets_prep/fid_stats.py --network vgg16 --features; ~ for the ground truth
    statistics: str | None = None,
    neighbors: int = 3,  # a ball reaches to this neighbor
    weights: str | None = None,  # path of torchvision's VGG-16 weights; ~ searches for them
    device: str = "auto",  # `auto`, `cpu` or `cuda`
    better: Literal["higher"] = "higher",  # direction of better values
) -> "PrecisionAccumulator":
    """The accumulator of one image: the fraction of generated images within the manifold of the real ones.

    NaN if the weights are missing (see the log), or of sets with too few images. Errors as `calculate_kid`.
    """
    return _accumulate(PrecisionAccumulator, img, img2, statistics, neighbors, weights, device, better)


@register("metric")
@nan_if_weights_missing
def calculate_recall(
    img: np.ndarray,
    img2: np.ndarray | None = None,
    statistics: str | None = None,
    neighbors: int = 3,
    weights: str | None = None,
    device: str = "auto",
    better: Literal["higher"] = "higher",
) -> "RecallAccumulator":
    """As `calculate_precision`: the fraction of real images within the manifold of the generated ones."""
    return _accumulate(RecallAccumulator, img, img2, statistics, neighbors, weights, device, better)


def _accumulate(cls, img, img2, statistics, neighbors: int, weights, device, better) -> "ManifoldAccumulator":
    check_better(better, "higher", "Equal sets have the value 1.")
    if neighbors < 1:
        raise OptionError("neighbors", f"got {neighbors}", "a number above 0")
    if statistics is not None:
        read_statistics(statistics, with_features=True)  # now, not after the last image
    made = cls.of_images(img, img2, statistics=statistics, weights=weights, device=device)
    made.neighbors = neighbors
    return made


class ManifoldAccumulator(FeatureAccumulator):
    """Features of both sets."""

    network: ClassVar[str] = "vgg16"
    neighbors = 3

    def _real(self, dimensions: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The features of the real set, and the radii of its balls if the set is a file."""
        if self.statistics is None:
            return self.real_features(), None
        file = read_statistics(self.statistics, with_features=True, dimensions=dimensions)
        return file.features, _radii_of_file(file, self.neighbors)


class PrecisionAccumulator(ManifoldAccumulator):
    """The value is the precision."""

    def value(self) -> float:
        own = self.features()
        real, radii = self._real(own.shape[1])
        return fraction_within(own, real, self.neighbors, radii)


class RecallAccumulator(ManifoldAccumulator):
    """The value is the recall."""

    def value(self) -> float:
        own = self.features()
        real, _ = self._real(own.shape[1])
        return fraction_within(real, own, self.neighbors)


def fraction_within(
    points: np.ndarray,  # [N, D] float
    of: np.ndarray,  # [M, D] float
    neighbors: int,
    radii: np.ndarray | None = None,  # [M] of the balls around `of`, if known
) -> float:
    """The fraction of `points` that lie in a ball around one of `of`; NaN unless M > `neighbors`."""
    if len(of) <= neighbors:
        return math.nan
    reach = torch.from_numpy(ball_radii(of, neighbors) if radii is None else radii)
    inside = [(distances <= reach).any(dim=1) for distances in _distances(points, of)]
    return float(torch.cat(inside).double().mean())


def ball_radii(points: np.ndarray, neighbors: int) -> np.ndarray:
    """Distance of each of `points`, (N, D), to its `neighbors`-th nearest other one: (N,) float64."""
    found = [distances.kthvalue(neighbors + 1, dim=1).values for distances in _distances(points, points)]
    return torch.cat(found).numpy()


def _distances(points: np.ndarray, others: np.ndarray):
    """Distances of blocks of `points` to all of `others`, [n, M] float64, on a GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    right = torch.from_numpy(others).to(device, torch.float64)
    for block in torch.from_numpy(points).split(max(1, BLOCK_NUMBERS // len(others))):
        yield torch.cdist(block.to(device, torch.float64), right, compute_mode="use_mm_for_euclid_dist").cpu()


@functools.lru_cache(maxsize=4)
def _radii_of_file(statistics: FeatureStatistics, neighbors: int) -> np.ndarray:
    return ball_radii(statistics.features, neighbors)
