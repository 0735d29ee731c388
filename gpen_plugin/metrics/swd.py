"""Sliced Wasserstein distance of Laplacian pyramid patches (Karras et al. 2018)."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import SetAccumulator, check_better, check_pair

COARSEST = 16  # pixels; the pyramid ends before it would go below
SIDE = 7  # pixels of a patch, at every level


def laplacian_pyramid(image: np.ndarray) -> list[np.ndarray]:
    """Split an image into bands of detail, each half as wide as the one before (Burt and Adelson 1983).

    Each level but the last is what blurring and halving takes away from the image at that size; the last is the
    image itself at `COARSEST` px, or up to twice that if halving does not lead there.

    Args:
        image: (H, W, C), uint8 or float32, at least `COARSEST` px high and wide.
    Returns:
        (H, W, C), (H / 2, W / 2, C), ... float32, sides rounded up, in the units of `image`.
    """
    levels, current = [], image.astype(np.float32)
    while min(current.shape[:2]) // 2 >= COARSEST:
        smaller = cv2.pyrDown(current)
        levels.append(current - cv2.pyrUp(smaller, dstsize=current.shape[1::-1]))
        current = smaller
    return [*levels, current]


def draw_corners(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> np.ndarray:
    """Upper left corners of patches, drawn evenly from all that lie within a level of this shape: (2, count)."""
    return np.stack([rng.integers(side - SIDE + 1, size=count) for side in shape[:2]])


def patches_at(level: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Cut patches out of one level.

    Args:
        level: (H, W, C) float32.
        corners: (2, N), see `draw_corners`.
    Returns:
        (N, C, SIDE * SIDE) float16, which rounds by less than 0.05 % and halves what a validation has to hold.
    """
    windows = sliding_window_view(level, (SIDE, SIDE), axis=(0, 1))[corners[0], corners[1]]  # (N, C, SIDE, SIDE)
    return windows.reshape(*windows.shape[:2], SIDE * SIDE).astype(np.float16)  # (N, C, SIDE * SIDE)


DIRECTIONS_AT_ONCE = 64  # bounds the memory of the projections
THE_PAPERS_UNIT = 1000
FLAT = 1e-3  # of the 256 grey levels: a deviation below is rounding, not detail


@register("metric")
def calculate_swd(
    img: np.ndarray,
    img2: np.ndarray,
    patches: int = 128,
    directions: int = 512,
    seed: int = 0,
    normalise_by: Literal["own", "real"] = "own",
    better: Literal["lower"] = "lower",
) -> "SlicedWassersteinSets":
    """Take one pair of images into the two sets whose sliced Wasserstein distance the host's validation will give.

    In an option file: ``swd: {type: calculate_swd, better: lower}``. The sets are compared as sets: the images of a
    pair need not belong together. Their patches lie at the same places, which are a function of the seed and of the
    real image: so distances of one run can be compared, and a set has the distance 0 to itself. Memory: 128 patches
    of 5 levels are 376 kB per pair of 256 px, 527 kB of 1024 px, whatever is done with the sum.

    Args:
        img: a generated or restored image, (H, W, 3) BGR uint8.
        img2: a real one of the same size, at least 16 px.
        patches: how many are taken of each image at each level of its pyramid.
        directions: how many projections of the patches are compared.
        seed: of the places of the patches and of the directions.
        normalise_by: ``own``, the paper's: each set's channels are brought to mean 0 and deviation 1, so that a cast
            or loss of contrast of the whole set goes unseen; ``real``: both sets by the statistics of the real one.
        better: read by the host to find the best iteration; it takes ``higher`` where the key is left out.
    Returns:
        The sum of one pair; see `SetAccumulator`.
    Raises:
        ShapeError: an image is too small, of another size or no colour image of 8 bits.
        OptionError: names the option, what was given and what was expected.
    """
    settings = SlicedWassersteinSettings(patches, directions, seed, normalise_by)
    check_better(better, "lower", "Equal sets have the distance 0.")
    check_pair(img, img2, COARSEST)
    digests = [hashlib.sha256(np.ascontiguousarray(image)).digest() for image in (img2, img)]
    pyramids = [laplacian_pyramid(image) for image in (img, img2)]
    rng = _rng(seed, digests[0])
    descriptors = []
    for generated, real in zip(*pyramids, strict=True):
        corners = draw_corners(real.shape, patches, rng)
        descriptors.append([patches_at(generated, corners), patches_at(real, corners)])
    record = np.stack(descriptors)  # (levels, 2, patches, 3, SIDE * SIDE)
    sizes = tuple(min(level.shape[:2]) for level in pyramids[1])
    return SlicedWassersteinSets(b"".join(digests), record, settings, img2.shape, sizes)


@dataclass(frozen=True)
class SlicedWassersteinSettings:
    """The options of `calculate_swd`, checked."""

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


class SlicedWassersteinSets(SetAccumulator):
    """Patches of a set of generated images and of a set of real ones.

    Args:
        key: see `SetAccumulator`.
        record: patches of one pair, (levels, 2, patches, 3, SIDE * SIDE) float16: the generated image's, the real's.
        settings: the options.
        shape: of each image.
        sizes: shorter side of each level, the finest first.
    """

    def __init__(
        self,
        key: bytes,
        record: np.ndarray,
        settings: SlicedWassersteinSettings,
        shape: tuple[int, ...],
        sizes: tuple[int, ...],
    ):
        super().__init__(key, record)
        self.settings, self.shape, self.sizes = settings, shape, sizes

    def check_fits(self, other: "SlicedWassersteinSets") -> None:
        """ShapeError if the images of `other` are of another size."""
        assert self.settings == other.settings, f"{self.settings} and {other.settings} in one sum"
        if self.shape != other.shape:
            got = f"got images of {_size(self.shape)} and of {_size(other.shape)} px"
            raise ShapeError("calculate_swd", got, "one size in the whole set", "Resize them, or compare two sets.")

    def value(self) -> float:
        """The mean over the levels, times 1000 as in the paper's tables."""
        return float(np.mean([*self.levels().values()]))

    def levels(self) -> dict[int, float]:
        """The distance times 1000 at each level, by its shorter side in pixels, the finest first."""
        records = self.records()
        return {size: self._distance_at(i, [record[i] for record in records]) for i, size in enumerate(self.sizes)}

    def _distance_at(self, number: int, patches: list[np.ndarray]) -> float:
        generated, real = np.concatenate(patches, axis=1).astype(np.float32)  # (images * patches, 3, SIDE * SIDE)
        statistics = mean_and_deviation(real)
        real = _normalised(real, *statistics)
        generated = _normalised(
            generated, *(statistics if self.settings.normalise_by == "real" else mean_and_deviation(generated))
        )
        directions = unit_directions(real.shape[1], self.settings.directions, _rng(self.settings.seed, number))
        return THE_PAPERS_UNIT * sliced_wasserstein(generated, real, directions)


def sliced_wasserstein(one: np.ndarray, other: np.ndarray, directions: np.ndarray) -> float:
    """Mean over directions of the Wasserstein-1 distance of two sets of points, projected on each (Rabin et al. 2011).

    On a line, the best transport between equally many points leads each to the one of the same rank.

    Args:
        one: (N, D) float.
        other: (N, D) float.
        directions: (D, K), each column of length 1.
    Returns:
        The distance, in the units of the points.
    Raises:
        ShapeError: the sets differ in shape.
    """
    if one.shape != other.shape:
        raise ShapeError("other", f"got shape {other.shape}", f"{one.shape}, that of the first set")
    count, total = directions.shape[1], 0.0
    for start in range(0, count, DIRECTIONS_AT_ONCE):
        part = directions[:, start : start + DIRECTIONS_AT_ONCE].T  # (k, D)
        ranked = [np.sort(part @ points.T, axis=1) for points in (one, other)]  # (k, N) each
        total += np.abs(ranked[0] - ranked[1]).mean(axis=1, dtype=np.float64).sum()
    return float(total / count)


def unit_directions(dimensions: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Directions, even over the sphere: (dimensions, count) float32, each column of length 1."""
    directions = rng.standard_normal((dimensions, count))
    return (directions / np.linalg.norm(directions, axis=0)).astype(np.float32)


def mean_and_deviation(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of (N, C, P) patches: (1, C, 1) float32 both.

    The deviation of a flat channel is given as 1, so that its rounding errors are not blown up to detail.
    """
    mean = patches.mean(axis=(0, 2), keepdims=True, dtype=np.float64)
    square = np.square(patches - mean.astype(np.float32)).mean(axis=(0, 2), keepdims=True, dtype=np.float64)
    deviation = np.sqrt(np.where(square > FLAT**2, square, 1.0))
    return mean.astype(np.float32), deviation.astype(np.float32)


def _normalised(patches: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return ((patches - mean) / deviation).reshape(len(patches), -1)  # (N, C * P)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]}"


def _rng(seed: int, place: int | bytes) -> np.random.Generator:
    """A generator that is a function of the seed and of what is drawn for, the same on each rank."""
    digest = hashlib.sha256(repr((seed, place)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
