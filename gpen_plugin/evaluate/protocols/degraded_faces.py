"""The protocols that degrade faces themselves: ``bfr`` (Table 1 and 2 of the paper) and ``fsr`` (Table 3)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from gpen_plugin.data.degradation import (
    DegradationRanges,
    DegradationRecipe,
    degrade_lowres,
    rng_from_key,
    sample_recipe,
)
from gpen_plugin.data.image_source import resize_square
from gpen_plugin.errors import GPENError, OptionError
from gpen_plugin.evaluate.case import Case
from gpen_plugin.evaluate.protocols.bicubic_reduction import reduce_bicubic
from gpen_plugin.evaluate.protocols.image_list import ListOptions, first_keys, open_root


@dataclass(frozen=True, kw_only=True)
class FacesOptions(ListOptions):
    """The keys that both protocols have: those of `ListOptions`, and these.

    Args:
        dataroot_gt: folder, zip file or LMDB of faces; each is cropped to its central square and resized.
        out_size: side of the ground truth, in pixels.
    """

    dataroot_gt: str
    out_size: int


@dataclass(frozen=True, kw_only=True)
class BlindOptions(FacesOptions):
    """The keys of ``bfr``: those of `FacesOptions`, and these.

    Args:
        seed: of the degradations.
        degradation: the keys of `DegradationRanges`; the paper's ranges where left out.
    """

    seed: int = 0
    degradation: Mapping = field(default_factory=dict)

    def value_problems(self, where: str) -> list[GPENError]:
        """See `ListOptions`."""
        problems = super().value_problems(where)
        try:
            DegradationRanges.from_options(self.degradation, f"{where}:degradation")
        except GPENError as error:
            problems.append(error)
        return problems


@dataclass(frozen=True, kw_only=True)
class ScalesOptions(FacesOptions):
    """The keys of ``fsr``: those of `FacesOptions`, and these.

    Args:
        scales: how many times smaller the inputs are, one condition each.
    """

    scales: Sequence[int] = (8, 16, 32, 64, 128, 256)

    def value_problems(self, where: str) -> list[GPENError]:
        """See `ListOptions`."""
        problems = super().value_problems(where)
        if min(self.scales, default=0) < 2 or len(set(self.scales)) < len(self.scales):
            got = f"got {list(self.scales)}"
            problems.append(OptionError(f"{where}:scales", got, "one or more different whole numbers above 1"))
        elif not problems and min(self.scales) > self.out_size:
            got = f"got {list(self.scales)}, of which none leaves a pixel of {self.out_size}"
            problems.append(OptionError(f"{where}:scales", got, f"a number up to {self.out_size}"))
        return problems


class _DegradedFaces(ABC):
    """What both protocols do with the faces; see `gpen_plugin.evaluate.protocols.Protocol`.

    Args:
        options: checked.
        where: their key path.
    """

    has_truth = True

    def __init__(self, options: FacesOptions, where: str):
        self._source = open_root(options.dataroot_gt, f"{where}:dataroot_gt")
        self.size = options.out_size
        self.keys, self.notes = first_keys(self._source.keys, options.num_images)

    def originals(self, key: str) -> tuple[np.ndarray, None]:
        """See `Protocol`."""
        return np.ascontiguousarray(resize_square(self._source.read(key), self.size)), None

    def case(self, key: str, condition: str) -> Case:
        """See `Protocol`."""
        truth, _ = self.originals(key)
        return Case(key, condition, self._degraded(truth, key, condition), truth, self.size)

    @abstractmethod
    def _degraded(self, truth: np.ndarray, key: str, condition: str) -> np.ndarray:
        """The input made of a face, (h, w, 3) BGR uint8."""


class BlindRestoration(_DegradedFaces):
    """``bfr``: Eq. 4 with a recipe per image, drawn from the seed and the image's key.

    A method that enlarges the inputs bilinearly is given what a `GPENDegradationDataset` gives in validation with the
    same options.
    """

    kind = "bfr"
    options_class = BlindOptions

    def __init__(self, options: BlindOptions, where: str):
        super().__init__(options, where)
        self._seed = options.seed
        self._ranges = DegradationRanges.from_options(options.degradation, f"{where}:degradation")
        self.conditions = [""]

    def options(self) -> dict:
        """See `Protocol`."""
        ranges = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self._ranges).items()
        }
        return {"out_size": self.size, "seed": self._seed, "degradation": ranges}

    def degradation(self, key: str, condition: str) -> str:
        """See `Protocol`."""
        return str(self.recipe(key))

    def recipe(self, key: str) -> DegradationRecipe:
        """How an image is degraded."""
        return sample_recipe(self._ranges, rng_from_key(self._seed, key))

    def _degraded(self, truth: np.ndarray, key: str, condition: str) -> np.ndarray:
        return degrade_lowres(truth, self.recipe(key))


class SuperResolution(_DegradedFaces):
    """``fsr``: bicubic downsampling, one condition per scale. A scale that leaves less than a pixel is left out."""

    kind = "fsr"
    options_class = ScalesOptions

    def __init__(self, options: ScalesOptions, where: str):
        super().__init__(options, where)
        self._scales = {f"{scale}x": scale for scale in sorted(options.scales) if scale <= self.size}
        self.conditions = list(self._scales)
        self.notes += [self._note(scale) for scale in sorted(options.scales) if self.size % scale]

    def options(self) -> dict:
        """See `Protocol`."""
        return {"out_size": self.size, "scales": list(self._scales.values())}

    def degradation(self, key: str, condition: str) -> str:
        """See `Protocol`."""
        return f"bicubic, 1/{self._scales[condition]}"

    def _note(self, scale: int) -> str:
        if scale > self.size:
            return f"{scale}x is left out: {self.size} px / {scale} is less than one pixel"
        return f"{scale}x: the inputs have {self._side(scale)} px, {self.size} / {scale} rounded"

    def _side(self, scale: int) -> int:
        return round(self.size / scale)

    def _degraded(self, truth: np.ndarray, key: str, condition: str) -> np.ndarray:
        return reduce_bicubic(truth, self._side(self._scales[condition]))
