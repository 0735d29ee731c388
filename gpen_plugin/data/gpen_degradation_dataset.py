"""Pairs of a face and its degraded version, for GPEN's training and validation."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch

from gpen_plugin.config.schema import build
from gpen_plugin.data.degradation_types import build_degradation, check_degradation
from gpen_plugin.data.gpen_face_dataset import GPENPairDataset, PairOptions, check_pairs, collect_errors
from gpen_plugin.data.image_source import resize_square
from gpen_plugin.data.references import ReferenceOptions, References
from gpen_plugin.data.roots import Dataroot
from gpen_plugin.errors import DataError, GPENError, OptionError
from gpen_plugin.host import register

# Lowest and highest gamma of blue, green and red of a tinted monochrome face. Sepia lowers blue most. A gamma keeps
# black and white, as the tone of a print does.
TINTS = ((1.0, 0.9, 0.65), (1.6, 1.1, 1.0))


@dataclass(frozen=True)
class DegradationOptions(PairOptions):
    """The keys of a `GPENDegradationDataset` in an option file: those of `PairOptions`, and these."""

    # degraded images, paired by key, in place of `degradation`; as many roots as dataroot_gt has
    dataroot_lq: Dataroot | None = None
    # `type`: `gpen` (Eq. 4, the default), `realesrgan`, `gfpgan` or `module.Class`; and its keys, for Eq. 4 those of
    # `DegradationRanges`
    degradation: Mapping = field(default_factory=dict)
    # fraction of pairs with `mild_degradation`, from which the network learns to leave good faces unchanged
    mild_prob: float = 0.0
    mild_degradation: Mapping = field(default_factory=dict)  # the degradation of the mild pairs, as `degradation`
    gray_prob: float = 0.0  # fraction of faces made gray, input and ground truth (training only)
    # fraction of faces made monochrome with a tint such as sepia, input and ground truth (training only)
    tint_prob: float = 0.0
    # largest change of a color channel, input and ground truth (training only): a factor from 1 - color_jitter to
    # 1 + color_jitter
    color_jitter: float = 0.0
    # reference faces, see `ReferenceOptions`; an item then has `ref`, and images without a reference are left out
    references: Mapping | None = None

    def value_problems(self, where: str) -> list[GPENError]:
        problems: list[GPENError] = []
        if self.dataroot_lq and self.degradation:
            got = f"given together with dataroot_lq {self.dataroot_lq}, whose images are degraded already"
            problems.append(OptionError(f"{where}:degradation", got, "one of the two", "Remove one of them."))
        for name in ("degradation", "mild_degradation"):
            given = getattr(self, name)
            problems += collect_errors(lambda: check_degradation(given, f"{where}:{name}", self.out_size))  # noqa: B023
        for name in ("mild_prob", "gray_prob", "tint_prob", "color_jitter"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(OptionError(f"{where}:{name}", f"got {getattr(self, name)}", "a number from 0 to 1"))
        if self.gray_prob + self.tint_prob > 1:
            got = f"got {self.gray_prob} and {self.tint_prob}"
            problems.append(OptionError(f"{where}:gray_prob and tint_prob", got, "a sum of at most 1"))
        if self.mild_prob and not self.mild_degradation:
            got = f"missing, and mild_prob is {self.mild_prob}"
            problems.append(OptionError(f"{where}:mild_degradation", got, "the degradation of the mild pairs"))
        if self.references is not None:
            problems += collect_errors(lambda: self.reference_options(where))
        return [*super().value_problems(where), *problems]

    def reference_options(self, where: str) -> ReferenceOptions:
        """The section ``references``, checked; OptionError by key path."""
        options = build(ReferenceOptions, self.references, f"{where}:references")
        if not isinstance(self.dataroot_gt, str):
            got, hint = "given together with a list of roots", "Put the images into one root."
            raise OptionError(f"{where}:references", got, "one path as dataroot_gt", hint)
        options.check(self.dataroot_gt, f"{where}:references")
        return options

    def open_references(self, where: str) -> References:
        """Open them; errors as in `References` and `reference_options`."""
        options, where = self.reference_options(where), f"{where}:references"
        source = self.open_root(options.dataroot or self.dataroot_gt, f"{where}:dataroot")
        return References(options, source, options.of_truth(self.dataroot_gt), where)

    def check_sources(self, where: str) -> None:
        if self.references is not None:
            self.open_references(where).select(self.source("dataroot_gt", where).keys)
        if self.dataroot_lq:
            check_pairs(self, where)
        else:
            super().check_sources(where)


@register("dataset")
class GPENDegradationDataset(GPENPairDataset):
    """Faces and their degraded versions, by Eq. 4 or another degradation. Items and errors as in `GPENPairDataset`.

    With ``references`` an item also has ``ref`` (3, out_size, out_size), another face of the person: any of them in
    training, always the same in validation. It is mirrored as the face is, and not degraded, gray or tinted.
    """

    options_class = DegradationOptions

    def __init__(self, opt: Mapping):
        super().__init__(opt)
        where = f"datasets:{self.options.phase}"
        self._degrade = build_degradation(self.options.degradation, f"{where}:degradation")
        self._degrade_mildly = build_degradation(self.options.mild_degradation, f"{where}:mild_degradation")
        self._lq = self.options.source("dataroot_lq", where) if self.options.dataroot_lq else None
        self._references = None
        if self.options.references is not None:
            self._references = self.options.open_references(where)
            usable = self._references.select(self._gt.keys)
            self._select(usable[: self.options.num_images], where)
            got = f"{len(usable)} of {len(self._gt.keys)} images have a reference; the others are left out"
            logging.getLogger("basicsr").info(f"{where}:references: {got}")

    def _face(self, key: str, mirrored: bool, rng: np.random.Generator) -> np.ndarray:
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

    def _lq_entries(self, key: str, face: np.ndarray, mirrored: bool, rng: np.random.Generator) -> dict:
        entries = self._degraded_entries(key, face, mirrored, rng)
        return entries if self._references is None else entries | {"ref": self._reference(key, mirrored, rng)}

    def _reference(self, key: str, mirrored: bool, rng: np.random.Generator) -> torch.Tensor:
        candidates = self._references.candidates(key)
        if self.options.phase == "train":
            candidates = [candidates[index] for index in rng.permutation(len(candidates))]
        reference = self._references.find(candidates, self._gt.read(key), self.options.out_size)
        if reference is None:
            raise DataError(self._gt.name(key), "has no reference but copies of itself", "another image of the person")
        return self._tensor(cv2.flip(reference, 1) if mirrored else reference)

    def _degraded_entries(self, key: str, face: np.ndarray, mirrored: bool, rng: np.random.Generator) -> dict:
        if self._lq is None:
            # An option that is off uses no random number, so that the pairs of older option files stay the same.
            mild = self.options.mild_prob > 0 and rng.random() < self.options.mild_prob
            degrade = self._degrade_mildly if mild else self._degrade
            return {"lq": self._tensor(degrade(face, rng), self.in_size)}
        lq = self._lq.read(key)[:, :: -1 if mirrored else 1]
        return {"lq": self._tensor(resize_square(lq, min(lq.shape[:2])), self.in_size), "lq_path": self._lq.name(key)}


def scale_channels(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Multiply the channels of an image: (H, W, 3) uint8 and (3,) -> (H, W, 3) uint8, clipped."""
    return cv2.LUT(image, np.rint(np.clip(np.arange(256)[:, None] * factors, 0, 255)).astype(np.uint8)[None])


def make_monochrome(image: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Each channel as a power of the luma, (H, W, 3) BGR uint8; `gamma` (3,) is of blue, green, red; ones give gray."""
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    table = 255 * (np.arange(256)[:, None] / 255) ** gamma  # [256, 3]
    return cv2.LUT(gray, np.rint(table).astype(np.uint8)[None])
