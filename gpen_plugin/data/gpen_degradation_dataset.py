"""Pairs of a degraded face and its ground truth, for the host's training and validation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from gpen_plugin.data.degradation import DegradationRanges, degrade_lowres, sample_recipe
from gpen_plugin.data.gpen_face_dataset import collect_errors
from gpen_plugin.data.gpen_pair_dataset import GPENPairDataset, PairOptions, check_pairs
from gpen_plugin.data.image_source import resize_square
from gpen_plugin.errors import GPENError, OptionError
from gpen_plugin.host import register

# Lowest and highest gamma of blue, green and red in a monochrome face with a tint. Sepia lowers blue most. Gamma keeps
# black and white, as the tone of a print does.
TINTS = ((1.0, 0.9, 0.65), (1.6, 1.1, 1.0))


@dataclass(frozen=True)
class DegradationOptions(PairOptions):
    """The keys of a `GPENDegradationDataset` in an option file: those of `PairOptions`, and these.

    Args:
        dataroot_lq: folder or LMDB of images that are degraded already, paired by key; none are made then.
        degradation: the keys of `DegradationRanges`.
        mild_prob: share of the pairs that are degraded by `mild_degradation` instead, so that the network learns to
            leave good faces as they are.
        mild_degradation: the keys of `DegradationRanges`, for these pairs.
        gray_prob: in training, share of the faces that lose their colour, as input and as ground truth.
        tint_prob: in training, share of the faces that become monochrome with a tint, such as sepia, likewise as both.
        color_jitter: in training, each channel of a face is multiplied by a factor from 1 - `color_jitter` to 1 +
            `color_jitter`, as input and ground truth.
    """

    dataroot_lq: str | None = None
    degradation: Mapping = field(default_factory=dict)
    mild_prob: float = 0.0
    mild_degradation: Mapping = field(default_factory=dict)
    gray_prob: float = 0.0
    tint_prob: float = 0.0
    color_jitter: float = 0.0

    def value_problems(self, where: str) -> list[GPENError]:
        """See `FaceOptions`."""
        problems: list[GPENError] = []
        if self.dataroot_lq and self.degradation:
            got = f"given together with dataroot_lq {self.dataroot_lq}, whose images are degraded already"
            problems.append(OptionError(f"{where}:degradation", got, "one of the two", "Remove one of them."))
        for name in ("degradation", "mild_degradation"):
            ranges = getattr(self, name)
            problems += collect_errors(lambda: DegradationRanges.from_options(ranges, f"{where}:{name}"))  # noqa: B023
        for name in ("mild_prob", "gray_prob", "tint_prob", "color_jitter"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(OptionError(f"{where}:{name}", f"got {getattr(self, name)}", "a number from 0 to 1"))
        if self.gray_prob + self.tint_prob > 1:
            got = f"got {self.gray_prob} and {self.tint_prob}"
            problems.append(OptionError(f"{where}:gray_prob and tint_prob", got, "a sum of at most 1"))
        if self.mild_prob and not self.mild_degradation:
            got = f"missing, and mild_prob is {self.mild_prob}"
            problems.append(OptionError(f"{where}:mild_degradation", got, "the ranges of the mild pairs"))
        return [*super().value_problems(where), *problems]

    def check_sources(self, where: str) -> None:
        """See `FaceOptions`; each face needs its partner, too."""
        if self.dataroot_lq:
            check_pairs(self, where)
        else:
            super().check_sources(where)


@register("dataset")
class GPENDegradationDataset(GPENPairDataset):
    """Ground truth faces, and the degraded versions that Eq. 4 makes of them.

    An item is that of a `GPENPairDataset`.

    Args:
        opt: the options of one data set as the host passes them; see `DegradationOptions`.
    Raises:
        GPENError: an option is wrong, or the data are not there.
    """

    options_class = DegradationOptions

    def __init__(self, opt: Mapping):
        super().__init__(opt)
        where = f"datasets:{self.options.phase}"
        self.ranges = DegradationRanges.from_options(self.options.degradation, f"{where}:degradation")
        self.mild_ranges = DegradationRanges.from_options(self.options.mild_degradation, f"{where}:mild_degradation")
        self._lq = self.options.source("dataroot_lq", where) if self.options.dataroot_lq else None

    def _face(self, key: str, mirrored: bool, rng: np.random.Generator) -> np.ndarray:
        """See `GPENFaceDataset`; in training with its colours changed as the options say."""
        face, options = super()._face(key, mirrored, rng), self.options
        if options.phase != "train" or self._lq is not None:
            return face
        if options.color_jitter:
            face = scale_channels(face, rng.uniform(1 - options.color_jitter, 1 + options.color_jitter, 3))
        if options.gray_prob or options.tint_prob:
            chance, tint = rng.random(), rng.uniform(*TINTS)
            if chance < options.gray_prob + options.tint_prob:
                face = make_monochrome(face, tint if chance < options.tint_prob else np.ones(3))
        return face

    def _partner(self, key: str, face: np.ndarray, mirrored: bool, rng: np.random.Generator) -> dict:
        """See `GPENPairDataset`."""
        if self._lq is None:
            # No draw is made for an option that is off, so that the pairs of older option files stay the same.
            mild = self.options.mild_prob > 0 and rng.random() < self.options.mild_prob
            recipe = sample_recipe(self.mild_ranges if mild else self.ranges, rng)
            return {"lq": self._tensor(degrade_lowres(face, recipe), self.in_size)}
        lq = self._lq.read(key)[:, :: -1 if mirrored else 1]
        return {"lq": self._tensor(resize_square(lq, min(lq.shape[:2])), self.in_size), "lq_path": self._lq.name(key)}


def scale_channels(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Multiply the channels of an image: (H, W, 3) uint8 and (3,) -> (H, W, 3) uint8, clipped."""
    return cv2.LUT(image, np.rint(np.clip(np.arange(256)[:, None] * factors, 0, 255)).astype(np.uint8)[None])


def make_monochrome(image: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Give an image one hue: luma, and each channel as a power of it.

    Args:
        image: (H, W, 3) BGR uint8.
        gamma: (3,), of blue, green and red; ones make it gray.
    Returns:
        (H, W, 3) BGR uint8.
    """
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    table = 255 * (np.arange(256)[:, None] / 255) ** gamma  # (256, 3)
    return cv2.LUT(gray, np.rint(table).astype(np.uint8)[None])
