"""The protocols: which faces are restored and how they are degraded. Methods are compared under one protocol."""

import csv
import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from gpen_plugin.baselines.method import Sample
from gpen_plugin.config.schema import build, check
from gpen_plugin.data.degradation_types import build_degradation, check_degradation
from gpen_plugin.data.image_source import ImageSource, open_source, resize_square
from gpen_plugin.data.references import ReferenceOptions, References
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import DataError, GPENError, OptionError, join_errors

MAX_LISTED_KEYS = 20  # keys in a message
ALL_SETS = "All"  # the column of all images, beside those of the test sets
_GUARD_DIGITS = 6  # 127.5 is rounded up whatever the order of its sum


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """The keys of every protocol."""

    out_size: int | None  # side of the ground truth and of the results, in pixels
    num_images: int | None = None  # use only this many images, the first in order of their keys; ~ for all
    # reference faces for the methods that need them, see `ReferenceOptions`; ~ for none
    references: Mapping | None = None

    def value_problems(self, where: str) -> list[GPENError]:
        """Errors of the values, by key path; no file is opened."""
        given = {"out_size": self.out_size, "num_images": self.num_images}
        problems: list[GPENError] = [
            OptionError(f"{where}:{name}", f"got {value}", "a number above 0")
            for name, value in given.items()
            if value is not None and value < 1
        ]
        if self.references is not None:
            try:
                self.reference_options(where)
            except GPENError as error:
                problems.append(error)
        return problems

    def reference_options(self, where: str) -> ReferenceOptions:
        """The section ``references``, checked; OptionError by key path."""
        options = build(ReferenceOptions, self.references, f"{where}:references")
        options.check(self.truth_root, f"{where}:references")
        return options

    @property
    def truth_root(self) -> str | None:
        """The root of the ground truth, if there is one."""
        return getattr(self, "dataroot_gt", None)


def open_root(path: str, where: str) -> ImageSource:
    """Open a folder, zip file, LMDB or tars, whose keys become file names of the evaluation.

    DataError: it cannot be opened, is empty, or has a key that is not text or leaves the folder.
    """
    source = open_source(path, where)
    for key in source.keys:
        if key.startswith("/") or ".." in PurePosixPath(key).parts:
            raise DataError(where, f"{path} has an image called '{key}'", "names below one folder", "Rename it.")
        shown = key.encode("utf-8", "backslashreplace").decode()
        if shown != key:
            raise DataError(where, f"{path} has an image called '{shown}'", "names that are text", "Rename it.")
    return source


def select_keys(keys: Sequence[str], number: int | None) -> tuple[list[str], list[str]]:
    """The images to use, and a note for the reader if there are fewer than requested."""
    notes = [f"{number} images are asked for, {len(keys)} are there"] if number and number > len(keys) else []
    return list(keys[:number]), notes


def join_keys(keys: Iterable[str], most: int = MAX_LISTED_KEYS) -> str:
    """Keys as text, cut if there are many: ``a, b and 7 more``."""
    keys = list(keys)
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + rest


class Protocol(typing.Protocol):
    """A set of degraded faces."""

    kind: str  # ``bfr``, ``fsr``, ``pairs``, ``wild``, ``sets`` or ``ntire``
    size: int  # side of the results and of the ground truth, in pixels
    keys: list[str]  # of the images, sorted: the path below the root without suffix
    conditions: list[str]  # degradations of every image, e.g. ``8x``; one empty text if there is only one
    notes: list[str]  # for the reader of the results, a sentence each
    has_truth: bool  # whether any image has a ground truth
    test_sets: dict[str, list[str]]  # name -> keys, of a protocol of several sets; else empty
    has_references: bool  # whether faces may have a reference

    def has_truth_of(self, key: str) -> bool:
        """Whether an image has a ground truth."""

    def options(self) -> dict:
        """The options that affect the images: plain values for JSON, with defaults, without paths."""

    def degradation(self, key: str, condition: str) -> str:
        """The degradation of an image in words."""

    def originals(self, key: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Ground truth and degraded image as they are in the source; None for what the protocol makes."""
        # Inputs of an earlier run are reused if they were made from the same originals.

    def reference(self, key: str) -> np.ndarray | None:
        """The reference face, (size, size, 3) BGR uint8; None if there is none."""

    def landmarks(self, key: str) -> np.ndarray | None:
        """Eyes, nose and corners of the mouth, (5, 2) float64 in pixels of the result; None if they are not given."""

    def sample(self, key: str, condition: str) -> Sample:
        """One degraded face, the same at every call; DataError if an image cannot be read."""


def reduce_bicubic(
    image: np.ndarray,
    size: int,  # 1 to S
) -> np.ndarray:
    """Reduce (S, S, 3) uint8 to (size, size, 3) uint8 with an antialiased cubic kernel (Keys 1981, a = -0.5)."""
    # Like MATLAB's ``imresize``: the outer edges of both images coincide. The host's own version fails at two pixels
    # and less, and its single precision depends on torch's threads; a fingerprint must be possible at every size and
    # the same on every machine.
    weights = _weights(len(image), size)
    rows = np.tensordot(weights, image.astype(np.float64), axes=(1, 0))  # (size, S, 3)
    both = np.tensordot(weights, rows, axes=(1, 1)).transpose(1, 0, 2)  # (size, size, 3)
    return np.clip(np.floor(np.round(both, _GUARD_DIGITS) + 0.5), 0, 255).astype(np.uint8)  # rounded half up


@lru_cache(maxsize=32)
def _weights(length: int, size: int) -> np.ndarray:
    """Weights of a line's pixels in each pixel of the shorter line, (size, length) float64; rows sum to 1."""
    scale = length / size
    centers = (np.arange(size) + 0.5) * scale - 0.5
    reach = int(np.ceil(2 * scale)) + 1
    taps = np.floor(centers).astype(int)[:, None] + np.arange(-reach, reach + 1)  # (size, 2 reach + 1)
    values = _cubic((taps - centers[:, None]) / scale)
    values /= values.sum(axis=1, keepdims=True)
    mirrored = taps % (2 * length)  # the line is continued by mirroring
    mirrored = np.where(mirrored < length, mirrored, 2 * length - 1 - mirrored)
    weights = np.zeros((size, length))
    np.add.at(weights, (np.arange(size)[:, None], mirrored), values)
    weights.setflags(write=False)
    return weights


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5, the only one of its family that reproduces quadratics."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@dataclass(frozen=True, kw_only=True)
class FacesOptions(ListOptions):
    """The keys of ``bfr`` and ``fsr``."""

    dataroot_gt: str  # folder, zip file, LMDB or tars of faces; each is cropped to its central square and resized
    out_size: int  # side of the ground truth, in pixels


@dataclass(frozen=True, kw_only=True)
class BlindOptions(FacesOptions):
    """The keys of ``bfr``."""

    seed: int = 0  # of the degradations
    # `type`: `gpen` (Eq. 4, the default), `realesrgan`, `gfpgan` or `module.Class`; and its keys, for Eq. 4 those of
    # `DegradationRanges`, by default the paper's ranges
    degradation: Mapping = field(default_factory=dict)

    def value_problems(self, where: str) -> list[GPENError]:
        problems = super().value_problems(where)
        try:
            check_degradation(self.degradation, f"{where}:degradation", self.out_size)
        except GPENError as error:
            problems.append(error)
        return problems


@dataclass(frozen=True, kw_only=True)
class ScalesOptions(FacesOptions):
    """The keys of ``fsr``."""

    scales: Sequence[int] = (8, 16, 32, 64, 128, 256)  # reduction factors of the inputs, one condition each

    def value_problems(self, where: str) -> list[GPENError]:
        problems = super().value_problems(where)
        if min(self.scales, default=0) < 2 or len(set(self.scales)) < len(self.scales):
            got = f"got {list(self.scales)}"
            problems.append(OptionError(f"{where}:scales", got, "one or more different whole numbers above 1"))
        elif not problems and min(self.scales) > self.out_size:
            got = f"got {list(self.scales)}, of which none leaves a pixel of {self.out_size}"
            problems.append(OptionError(f"{where}:scales", got, f"a number up to {self.out_size}"))
        return problems


class _Faces(ABC):
    """The common part of all protocols: the choice of the images, and their references."""

    size: int
    has_truth: bool
    test_sets: typing.ClassVar[dict[str, list[str]]] = {}
    _references: References | None = None
    _last: tuple[str | None, np.ndarray | None] = (None, None)  # key and reference

    def _select(self, source: ImageSource, options: ListOptions, where: str) -> None:
        """Set `keys` and `notes`; `source` has the ground truth, or the degraded images without one."""
        keys, notes = source.keys, []
        if options.references is not None:
            given = options.reference_options(where)
            of_truth = given.of_truth(options.truth_root)
            held = source if of_truth else open_root(given.dataroot, f"{where}:references:dataroot")
            self._references = References(given, held, of_truth, f"{where}:references")
            with_reference = self._references.select(keys)
            if given.required and len(with_reference) < len(keys):
                notes = [f"{len(keys) - len(with_reference)} of {len(keys)} images have no reference and are left out"]
                keys = with_reference
        self.keys, self.notes = select_keys(keys, options.num_images)
        self.notes += notes

    @property
    def has_references(self) -> bool:
        return self._references is not None

    def has_truth_of(self, key: str) -> bool:
        return self.has_truth

    def landmarks(self, key: str) -> None:
        return None

    def options(self) -> dict:
        """The options that all protocols have; an absent key leaves earlier fingerprints as they are."""
        return {"out_size": self.size} | ({"references": self._references.by} if self._references else {})

    @abstractmethod
    def originals(self, key: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        """See `Protocol`."""

    def reference(self, key: str) -> np.ndarray | None:
        if self._references is None:
            return None
        if self._last[0] != key:  # each condition of an image has the same
            truth, degraded = self.originals(key)
            candidates = self._references.candidates(key)
            self._last = key, self._references.find(candidates, degraded if truth is None else truth, self.size)
        return self._last[1]


class _DegradedFaces(_Faces):
    """The common part of ``bfr`` and ``fsr``."""

    has_truth = True

    def __init__(self, options: FacesOptions, where: str):
        self._source = open_root(options.dataroot_gt, f"{where}:dataroot_gt")
        self.size = options.out_size
        self._select(self._source, options, where)

    def originals(self, key: str) -> tuple[np.ndarray, None]:
        return np.ascontiguousarray(resize_square(self._source.read(key), self.size)), None

    def sample(self, key: str, condition: str) -> Sample:
        truth, _ = self.originals(key)
        return Sample(key, condition, self._degraded(truth, key, condition), truth, self.size, self.reference(key))

    @abstractmethod
    def _degraded(self, truth: np.ndarray, key: str, condition: str) -> np.ndarray:
        """The input made from a face, (h, w, 3) BGR uint8."""


class BlindRestoration(_DegradedFaces):
    """``bfr`` (Tables 1 and 2 of the paper): Eq. 4, or another degradation, by the seed and the image's key."""

    # Bilinearly enlarged, the inputs equal those of a `GPENDegradationDataset` in validation with the same options.

    kind = "bfr"
    options_class = BlindOptions

    def __init__(self, options: BlindOptions, where: str):
        super().__init__(options, where)
        self._seed = options.seed
        self._degrade = build_degradation(options.degradation, f"{where}:degradation")
        self.conditions = [""]

    def options(self) -> dict:
        return {**super().options(), "seed": self._seed, "degradation": self._degrade.options()}

    def degradation(self, key: str, condition: str) -> str:
        return self._degrade.describe(rng_from_key(self._seed, key))

    def _degraded(self, truth: np.ndarray, key: str, condition: str) -> np.ndarray:
        return self._degrade(truth, rng_from_key(self._seed, key))


class SuperResolution(_DegradedFaces):
    """``fsr`` (Table 3): bicubic downsampling, one condition per scale. A scale below one pixel is left out."""

    kind = "fsr"
    options_class = ScalesOptions

    def __init__(self, options: ScalesOptions, where: str):
        super().__init__(options, where)
        self._scales = {f"{scale}x": scale for scale in sorted(options.scales) if scale <= self.size}
        self.conditions = list(self._scales)
        self.notes += [self._note(scale) for scale in sorted(options.scales) if self.size % scale]

    def options(self) -> dict:
        return {**super().options(), "scales": list(self._scales.values())}

    def degradation(self, key: str, condition: str) -> str:
        return f"bicubic, 1/{self._scales[condition]}"

    def _note(self, scale: int) -> str:
        if scale > self.size:
            return f"{scale}x is left out: {self.size} px / {scale} is less than one pixel"
        return f"{scale}x: the inputs have {self._side(scale)} px, {self.size} / {scale} rounded"

    def _side(self, scale: int) -> int:
        return round(self.size / scale)

    def _degraded(self, truth: np.ndarray, key: str, condition: str) -> np.ndarray:
        return reduce_bicubic(truth, self._side(self._scales[condition]))


@dataclass(frozen=True, kw_only=True)
class WildOptions(ListOptions):
    """The keys of ``wild``."""

    dataroot_lq: str  # folder, zip file, LMDB or tars of degraded faces of any size
    out_size: int  # side of the results, in pixels


@dataclass(frozen=True, kw_only=True)
class PairsOptions(ListOptions):
    """The keys of ``pairs``."""

    dataroot_lq: str  # folder, zip file, LMDB or tars of degraded faces of any size
    dataroot_gt: str  # the same faces, undegraded, under the same names
    out_size: int | None = None  # side that the ground truth is resized to; ~ keeps it, and then all must have one size


class _GivenFaces(_Faces):
    """The common part of ``pairs`` and ``wild``, whose faces are degraded already."""

    _lq: ImageSource

    def degradation(self, key: str, condition: str) -> str:
        return "as it came"

    def sample(self, key: str, condition: str) -> Sample:
        truth, degraded = self.originals(key)
        return Sample(key, condition, degraded, truth, self.size, self.reference(key))

    def _degraded(self, key: str) -> np.ndarray:
        """The central square of a degraded face at its own size; usually the whole image."""
        image = self._lq.read(key)
        return np.ascontiguousarray(resize_square(image, min(image.shape[:2])))


class Wild(_GivenFaces):
    """``wild``: degraded faces without ground truth."""

    kind = "wild"
    options_class = WildOptions
    has_truth = False

    def __init__(self, options: WildOptions, where: str):
        self._lq = open_root(options.dataroot_lq, f"{where}:dataroot_lq")
        self.conditions = [""]
        self.size = options.out_size
        self._select(self._lq, options, where)

    def originals(self, key: str) -> tuple[None, np.ndarray]:
        return None, self._degraded(key)


class Pairs(_GivenFaces):
    """``pairs``: degraded faces and their ground truth, paired by name; DataError lists images without a partner."""

    kind = "pairs"
    options_class = PairsOptions
    has_truth = True

    def __init__(self, options: PairsOptions, where: str):
        self._lq = open_root(options.dataroot_lq, f"{where}:dataroot_lq")
        self._gt = open_root(options.dataroot_gt, f"{where}:dataroot_gt")
        _check_partners(self._lq, self._gt, where)
        self.conditions = [""]
        self._select(self._gt, options, where)
        self._where = where
        self._resized = options.out_size is not None
        self.size = options.out_size or self._side_of_truth(where)

    def originals(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        truth = self._gt.read(key)
        if not self._resized and truth.shape[:2] != (self.size, self.size):
            got = f"has {truth.shape[1]} x {truth.shape[0]} px"
            expected = f"{self.size} x {self.size} as the first image"
            raise DataError(self._gt.name(key), got, expected, f"Set {self._where}:out_size to resize all of them.")
        return np.ascontiguousarray(resize_square(truth, self.size)), self._degraded(key)

    def _side_of_truth(self, where: str) -> int:
        """The side of the first readable image."""
        for key in self.keys:
            try:
                height, width = self._gt.read(key).shape[:2]
            except DataError:
                continue
            if height == width:
                return height
            got, hint = (
                f"{self._gt.name(key)} has {width} x {height} px",
                f"Set {where}:out_size to crop and resize.",
            )
            raise DataError(f"{where}:dataroot_gt", got, "square images where out_size is left out", hint)
        raise DataError(f"{where}:dataroot_gt", f"none of {len(self.keys)} images can be read", "at least one")


def _check_partners(lq: ImageSource, gt: ImageSource, where: str) -> None:
    """Raise a `DataError` that lists the images on one side only."""
    sides = {"dataroot_lq": set(lq.keys), "dataroot_gt": set(gt.keys)}
    problems = []
    for (name, keys), (other, others) in zip(sides.items(), reversed(sides.items()), strict=True):
        missing = sorted(others - keys)
        if missing:
            got = f"lacks {len(missing)} of the {len(others)} images of {other}: {join_keys(missing)}"
            expected = "a partner of the same name for every image"
            problems.append(DataError(f"{where}:{name}", got, expected, f"Add them, or remove them from {other}."))
    if problems:
        raise join_errors(problems)


@dataclass(frozen=True, kw_only=True)
class SetsOptions:
    """The keys of ``sets``."""

    # name in the tables -> a protocol of type ``bfr``, ``pairs`` or ``wild``, with its own keys but `out_size`
    sets: Mapping
    out_size: int  # side of the ground truth and of the results, in pixels

    def value_problems(self, where: str) -> list[GPENError]:
        """Errors of the names and kinds, by key path; the sections are checked when their sets are opened."""
        kinds = ", ".join(Sets.KINDS)
        problems: list[GPENError] = (
            [] if self.sets else [OptionError(f"{where}:sets", "got none", "names and sections")]
        )
        for name, section in self.sets.items():
            at = f"{where}:sets:{name}"
            if not re.fullmatch(r"[\w. -]+", str(name)) or name == ALL_SETS or str(name).startswith("."):
                problems.append(OptionError(at, "is no name of a set", f"letters, digits, - and _; not {ALL_SETS}"))
            elif not isinstance(section, Mapping) or section.get("type") not in Sets.KINDS:
                problems.append(OptionError(at, f"got {section!r}", f"a section with a type: {kinds}"))
            elif "out_size" in section:
                problems.append(OptionError(f"{at}:out_size", "given in a set", "one size for all", "Move it up."))
        return problems


class Sets:
    """``sets``: several test sets in one table, with or without ground truth. Keys begin with the name of their set."""

    kind = "sets"
    options_class = SetsOptions
    KINDS = ("bfr", "pairs", "wild")

    def __init__(self, options: SetsOptions, where: str):
        self.size, self.conditions = options.out_size, [""]
        self._protocols: dict[str, Protocol] = {
            str(name): build_protocol({**section, "out_size": self.size}, f"{where}:sets:{name}")
            for name, section in options.sets.items()
        }
        self.test_sets = {
            name: [f"{name}/{key}" for key in protocol.keys] for name, protocol in self._protocols.items()
        }
        self.keys = [key for keys in self.test_sets.values() for key in keys]
        self.notes = [f"{name}: {note}" for name, protocol in self._protocols.items() for note in protocol.notes]

    @property
    def has_truth(self) -> bool:
        return any(protocol.has_truth for protocol in self._protocols.values())

    @property
    def has_references(self) -> bool:
        return any(protocol.has_references for protocol in self._protocols.values())

    def has_truth_of(self, key: str) -> bool:
        return self._find(key)[0].has_truth

    def landmarks(self, key: str) -> np.ndarray | None:
        return None

    def options(self) -> dict:
        sets = {name: {"type": each.kind, **each.options()} for name, each in self._protocols.items()}
        return {"out_size": self.size, "sets": sets}

    def degradation(self, key: str, condition: str) -> str:
        protocol, own_key = self._find(key)
        return protocol.degradation(own_key, condition)

    def originals(self, key: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        protocol, own_key = self._find(key)
        return protocol.originals(own_key)

    def reference(self, key: str) -> np.ndarray | None:
        protocol, own_key = self._find(key)
        return protocol.reference(own_key)

    def sample(self, key: str, condition: str) -> Sample:
        protocol, own_key = self._find(key)  # the degradation is that of the set alone
        return replace(protocol.sample(own_key, condition), key=key)

    def _find(self, key: str) -> tuple[Protocol, str]:
        name, _, own_key = key.partition("/")
        return self._protocols[name], own_key


NTIRE_SIZE = 512
# test set -> least cosine of AdaFace's embeddings of input and output
NTIRE_THRESHOLDS = {
    "CelebA": 0.5,
    "LFW-Test": 0.6,
    "CelebChild-Test": 0.6,
    "Wider-Test": 0.3,
    "WebPhoto-Test": 0.3,
}
NTIRE_POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


@dataclass(frozen=True, kw_only=True)
class NtireOptions:
    """The keys of ``ntire``."""

    dataroot_lq: str  # folder of the challenge's inputs of 512 px, with a folder per test set
    # the challenge's CSV file of landmarks, such as test_face.csv, for ``align: landmarks``; ~ for none
    landmarks: str | None = None

    def value_problems(self, where: str) -> list[GPENError]:
        """See `ListOptions`."""
        lacking = [name for name in NTIRE_THRESHOLDS if not (Path(self.dataroot_lq).expanduser() / name).is_dir()]
        if not lacking:
            return []
        got = f"{self.dataroot_lq} lacks the folders {', '.join(lacking)}"
        return [DataError(f"{where}:dataroot_lq", got, "the folder val or test of the challenge")]


class Ntire(Sets):
    """``ntire``: the five test sets of the NTIRE challenge on real-world face restoration, 2025 and 2026."""

    kind = "ntire"
    options_class = NtireOptions

    def __init__(self, options: NtireOptions, where: str):
        root = Path(options.dataroot_lq).expanduser()
        sets = {name: {"type": "wild", "dataroot_lq": str(root / name)} for name in NTIRE_THRESHOLDS}
        super().__init__(SetsOptions(sets=sets, out_size=NTIRE_SIZE), where)
        self._landmarks = None if options.landmarks is None else _read_landmarks(options.landmarks, where)
        lacking = [key for key in self.keys if self._landmarks is not None and self.landmarks(key) is None]
        if lacking:
            got = f"{options.landmarks} has no landmarks of {join_keys(lacking)}"
            raise DataError(f"{where}:landmarks", got, "a line for every image")

    def options(self) -> dict:
        points = None
        if self._landmarks is not None:
            points = {key: self.landmarks(key).tolist() for key in self.keys}
        return {**super().options(), "landmarks": points}

    def landmarks(self, key: str) -> np.ndarray | None:
        return None if self._landmarks is None else self._landmarks.get(PurePosixPath(key).name)

    def sample(self, key: str, condition: str) -> Sample:
        return replace(super().sample(key, condition), landmarks=self.landmarks(key))


def _read_landmarks(path: str, where: str) -> dict[str, np.ndarray]:
    """Landmarks, (5, 2) float64, by the name of the image without suffix."""
    columns = ["filename", *(f"{point}_{axis}" for point in NTIRE_POINTS for axis in "xy")]
    try:
        with Path(path).expanduser().open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
        return {line["filename"]: np.array([float(line[each]) for each in columns[1:]]).reshape(5, 2) for line in lines}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        expected = f"a CSV file with the columns {', '.join(columns)}"
        raise DataError(f"{where}:landmarks", f"{path} cannot be read ({error!r})", expected) from error


_PROTOCOLS = {protocol.kind: protocol for protocol in (BlindRestoration, SuperResolution, Pairs, Wild, Sets, Ntire)}


def build_protocol(
    options: Mapping,  # ``type``, and the keys of the class that it selects
    where: str = "protocol",
) -> Protocol:
    """Build the protocol of an option file's section.

    OptionError lists every problem of the options by key path. DataError: images or their partners are missing.
    """
    if not isinstance(options, Mapping):
        raise OptionError(where, f"got {options!r}", "a section with keys")
    kind = options.get("type")
    if not isinstance(kind, str) or kind not in _PROTOCOLS:
        got = "missing" if "type" not in options else f"got {kind!r}"
        raise OptionError(f"{where}:type", got, "one of " + ", ".join(_PROTOCOLS))
    protocol = _PROTOCOLS[kind]
    given = {key: value for key, value in options.items() if key != "type"}
    check(protocol.options_class, given, where)
    checked = protocol.options_class(**given)
    problems = checked.value_problems(where)
    if problems:
        raise join_errors(problems)
    return protocol(checked, where)


def all_samples(protocol: Protocol) -> Iterator[tuple[str, str]]:
    """The (key, condition) of every sample, image by image."""
    return ((key, condition) for key in protocol.keys for condition in protocol.conditions)
