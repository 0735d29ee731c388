"""SWD, the sliced Wasserstein distance of Laplacian pyramid patches (Karras et al. 2018), times 1000 as in the paper.

Protocol: pyramids down to 16 px, 128 patches of 7 x 7 px per image and level, 512 random directions; the value is the
mean over the levels. The sets are compared as sets: the images of a pair need not belong together. Their patches lie at
the same positions, a function of the seed and the real image, so a set has the distance 0 to itself. Option file:
``swd: {type: calculate_swd, better: lower}``.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import SetAccumulator, check_better, check_pair

MIN_LEVEL_SIDE = 16  # pixels; the pyramid ends before a level would be smaller
PATCH_SIDE = 7  # pixels, at every level
DIRECTION_BLOCK = 64  # bounds the memory of the projections
PAPER_SCALE = 1000  # the paper prints the distance times this
MIN_DEVIATION = 1e-3  # of the 256 levels; below, a deviation is rounding, not detail


@register("metric")
def calculate_swd(
    img: np.ndarray,  # generated or restored, (H, W, 3) BGR uint8, at least 16 px
    img2: np.ndarray,  # real, of the same size
    # patches per image and level; 128 take 376 kB of memory per pair at 256 px, 527 kB at 1024 px
    patches: int = 128,
    directions: int = 512,  # number of random projections
    seed: int = 0,  # seed of the patches' positions and of the projections
    # `own` (the paper's) normalizes the channels of each set to mean 0 and deviation 1, which hides a color cast or a
    # loss of contrast of the whole set; `real` takes the statistics of the real set for both
    normalise_by: Literal["own", "real"] = "own",
    better: Literal["lower"] = "lower",  # direction of better values; BasicSR takes `higher` without this key
) -> "SWDAccumulator":
    """The accumulator of one pair, of which the host makes a sum; ShapeError if the two differ in size."""
    settings = SWDSettings(patches, directions, seed, normalise_by)
    check_better(better, "lower", "Equal sets have the distance 0.")
    check_pair(img, img2, MIN_LEVEL_SIDE)
    digests = [hashlib.sha256(np.ascontiguousarray(image)).digest() for image in (img2, img)]
    pyramids = [laplacian_pyramid(image) for image in (img, img2)]
    rng = _rng(seed, digests[0])
    descriptors = []
    for generated, real in zip(*pyramids, strict=True):
        corners = sample_corners(real.shape, patches, rng)
        descriptors.append([cut_patches(generated, corners), cut_patches(real, corners)])
    record = np.stack(descriptors)  # [levels, 2, patches, 3, PATCH_SIDE * PATCH_SIDE]
    sizes = tuple(min(level.shape[:2]) for level in pyramids[1])
    return SWDAccumulator(b"".join(digests), record, settings, img2.shape, sizes)


def laplacian_pyramid(image: np.ndarray) -> list[np.ndarray]:
    """Bands of detail and the rest (Burt and Adelson 1983): (H, W, C) to float32 (H, W, C), (H / 2, W / 2, C), ...

    Sides are rounded up. The last has `MIN_LEVEL_SIDE` px, or up to twice that if halving does not reach it.
    """
    levels, current = [], image.astype(np.float32)
    while min(current.shape[:2]) // 2 >= MIN_LEVEL_SIDE:
        smaller = cv2.pyrDown(current)
        levels.append(current - cv2.pyrUp(smaller, dstsize=current.shape[1::-1]))
        current = smaller
    return [*levels, current]


def sample_corners(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> np.ndarray:
    """Upper left corners, (2, count), uniform over all patches within a level of this shape."""
    return np.stack([rng.integers(side - PATCH_SIDE + 1, size=count) for side in shape[:2]])


def cut_patches(level: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Patches of a level, (H, W, C) float32, at corners, (2, N): (N, C, PATCH_SIDE * PATCH_SIDE) float16."""
    # float16 rounds by less than 0.05 % and halves the memory of a validation
    windows = sliding_window_view(level, (PATCH_SIDE, PATCH_SIDE), axis=(0, 1))[corners[0], corners[1]]  # [N, C, 7, 7]
    return windows.reshape(*windows.shape[:2], PATCH_SIDE * PATCH_SIDE).astype(np.float16)


@dataclass(frozen=True)
class SWDSettings:  # the options of `calculate_swd`, checked
    patches: int
    directions: int
    seed: int
    normalise_by: Literal["own", "real"]

    def __post_init__(self):
        for name in ("patches", "directions"):
            if getattr(self, name) < 1:
                raise OptionError(name, f"got {getattr(self, name)}", "a number above 0")
        if self.normalise_by not in ("own", "real"):
            raise OptionError("normalise_by", f"got {self.normalise_by!r}", "'own' or 'real'", "own is the paper's.")


class SWDAccumulator(SetAccumulator):
    """Patches of generated and real images; the value is their SWD."""

    def __init__(
        self,
        key: bytes,
        record: np.ndarray,  # of one pair, [levels, 2, patches, 3, PATCH_SIDE * PATCH_SIDE] float16: generated, real
        settings: SWDSettings,
        shape: tuple[int, ...],  # of each image
        sizes: tuple[int, ...],  # shorter side of each level, the finest first
    ):
        super().__init__(key, record)
        self.settings, self.shape, self.sizes = settings, shape, sizes

    def check_fits(self, other: "SWDAccumulator") -> None:
        assert self.settings == other.settings, f"{self.settings} and {other.settings} in one sum"
        if self.shape != other.shape:
            sizes = [f"{height} x {width}" for height, width, *_ in (self.shape, other.shape)]
            got = f"got images of {sizes[0]} and of {sizes[1]} px"
            raise ShapeError("calculate_swd", got, "one size in the whole set", "Resize them, or compare two sets.")

    def value(self) -> float:
        return float(np.mean([*self.levels().values()]))

    def levels(self) -> dict[int, float]:
        """The distance times 1000 at each level, by its shorter side in pixels, the finest first."""
        records = self.records()
        return {size: self._distance_at(i, [record[i] for record in records]) for i, size in enumerate(self.sizes)}

    def _distance_at(self, number: int, patches: list[np.ndarray]) -> float:
        generated, real = np.concatenate(patches, axis=1).astype(np.float32)  # [images * patches, 3, PATCH_SIDE ** 2]
        statistics = mean_and_deviation(real)
        real = _normalize(real, *statistics)
        generated = _normalize(
            generated, *(statistics if self.settings.normalise_by == "real" else mean_and_deviation(generated))
        )
        directions = sample_directions(real.shape[1], self.settings.directions, _rng(self.settings.seed, number))
        return PAPER_SCALE * sliced_wasserstein(generated, real, directions)


def sliced_wasserstein(one: np.ndarray, other: np.ndarray, directions: np.ndarray) -> float:
    """Mean over directions of the Wasserstein-1 distance of two projected sets of points (Rabin et al. 2011).

    (N, D) float both, directions (D, K) of length 1; in the units of the points. ShapeError if the shapes differ.
    """
    if one.shape != other.shape:
        raise ShapeError("other", f"got shape {other.shape}", f"{one.shape}, that of the first set")
    count, total = directions.shape[1], 0.0
    for start in range(0, count, DIRECTION_BLOCK):
        block = directions[:, start : start + DIRECTION_BLOCK].T  # [k, D]
        # on a line, the best transport of equally many points maps each to the one of the same rank
        ranked = [np.sort(block @ points.T, axis=1) for points in (one, other)]  # [k, N] each
        total += np.abs(ranked[0] - ranked[1]).mean(axis=1, dtype=np.float64).sum()
    return float(total / count)


def sample_directions(dimensions: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Directions, uniform over the sphere: (dimensions, count) float32, columns of length 1."""
    directions = rng.standard_normal((dimensions, count))
    return (directions / np.linalg.norm(directions, axis=0)).astype(np.float32)


def mean_and_deviation(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of (N, C, P) patches, (1, C, 1) float32 both."""
    mean = patches.mean(axis=(0, 2), keepdims=True, dtype=np.float64)
    square = np.square(patches - mean.astype(np.float32)).mean(axis=(0, 2), keepdims=True, dtype=np.float64)
    deviation = np.sqrt(np.where(square > MIN_DEVIATION**2, square, 1.0))  # 1: does not amplify rounding errors
    return mean.astype(np.float32), deviation.astype(np.float32)


def _normalize(patches: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return ((patches - mean) / deviation).reshape(len(patches), -1)  # [N, C * P]


def _rng(seed: int, key: int | bytes) -> np.random.Generator:
    # a function of the seed and the key, the same on each rank
    digest = hashlib.sha256(repr((seed, key)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
