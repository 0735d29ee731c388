"""Data sets of faces: ground truth alone for the prior, and the base of all sets of pairs for GPEN."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from gpen_plugin.config.schema import build, validate
from gpen_plugin.data.image_source import FolderSource, ImageSource, LmdbSource, TarSource, ZipSource, resize_square
from gpen_plugin.data.labels import LabelWeights
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.data.roots import (
    Dataroot,
    Root,
    SeveralSources,
    WeightedEpoch,
    first_keys,
    groups_of_roots,
    read_roots,
)
from gpen_plugin.errors import DataError, GPENError, OptionError, join_errors
from gpen_plugin.host import register, resolve
from gpen_plugin.host.data_cursor import SampleIndex

MAX_UPSCALE = 2  # of ground truth without a warning
ROOTS = ("dataroot_gt", "dataroot_lq")
_SOURCES = {"disk": FolderSource, "lmdb": LmdbSource, "zip": ZipSource, "tar": TarSource}


@dataclass(frozen=True)
class IoBackend:
    """The section ``io_backend``."""

    # `disk`: a folder of images, `lmdb`: an LMDB in BasicSR's format, `zip`: a zip file, `tar`: tars in WebDataset's
    # layout
    type: Literal["disk", "lmdb", "zip", "tar"] = "disk"
    cache_dir: str | None = None  # `tar`: folder for copies of remote tars; ~ for ~/.cache/gpen_plugin/tar


@dataclass(frozen=True)
class FaceOptions:
    """The keys of a `GPENFaceDataset` in an option file."""

    # faces: a folder, LMDB, zip file or tars; or a list of such roots, in a training with weights, see `Root`
    dataroot_gt: Dataroot
    out_size: int  # side of a face in pixels; other images are cropped to the central square and resized
    name: str = ""  # name of the set in BasicSR's log; required in every option file
    type: str = ""  # class of the set; required in every option file
    phase: Literal["train", "val", "test"] = "train"  # section of `datasets`; BasicSR sets it
    io_backend: Mapping = field(default_factory=dict)  # storage of all dataroots, see `IoBackend`
    use_hflip: bool = False  # mirror half of the images (training only)
    value_range: tuple[float, float] = (-1.0, 1.0)  # range of the pixel values; [0, 1] for BasicSR's own models
    # give images as uint8, which models of this package convert: a quarter of the bytes that a worker hands over. An
    # enlarged or colorless lq is rounded to 8 bits
    uint8: bool = False
    # how the faces are aligned: `ffhq`, `gpen`, `arcface`, `dlib` or ten numbers. The weight files state it, and
    # gpen-restore aligns by it. ~: as the file says that the generator starts from, else `ffhq`
    template: str | None = None
    seed: int = 0  # seed of the set's random numbers
    # use only this many images of each root, the first in the order of their keys; ~ for all
    num_images: int | None = None
    # how often an epoch has the images of each label (training only), see `LabelWeights`; ~: each image once
    label_weights: Mapping | None = None
    on_error: Literal["raise", "skip"] = "raise"  # `skip` logs, counts and replaces unreadable images; `raise` stops
    scale: float = 1  # not used; BasicSR copies the top-level `scale` here
    num_worker_per_gpu: int = 0  # data loader: worker processes per GPU
    batch_size_per_gpu: int = 1  # data loader: items per step and GPU
    dataset_enlarge_ratio: float = 1  # data loader: passes through the set per epoch
    # data loader: load batches ahead, `cpu` in a thread, `cuda` to the GPU; ~ does not
    prefetch_mode: Literal["cpu", "cuda"] | None = None
    num_prefetch_queue: int = 1  # data loader: batches in the queue of `prefetch_mode: cpu`
    pin_memory: bool = False  # data loader: load into page-locked memory, which a GPU copies faster
    persistent_workers: bool = False  # data loader: reuse the worker processes, if any, in the next epoch

    def value_problems(self, where: str) -> list[GPENError]:
        """Errors in the values, by key path; opens nothing."""
        problems: list[GPENError] = []
        for name in ("out_size", "num_images", "batch_size_per_gpu", "dataset_enlarge_ratio"):
            value = getattr(self, name)
            if value is not None and not (value > 0 if name == "dataset_enlarge_ratio" else value >= 1):
                problems.append(OptionError(f"{where}:{name}", f"got {value}", "a number above 0"))
        if self.value_range[0] >= self.value_range[1]:
            got, hint = f"got {list(self.value_range)}", "Write [-1, 1] or [0, 1]."
            problems.append(OptionError(f"{where}:value_range", got, "the smaller number first", hint))
        if self.label_weights is not None:
            problems += collect_errors(lambda: self._label_weights(where))
        of_backend = validate(IoBackend, self.io_backend, f"{where}:io_backend")
        if not of_backend:
            problems += [error for key in ROOTS for error in collect_errors(lambda: self.roots(key, where))]  # noqa: B023
        return problems + of_backend

    def roots(self, key: str, where: str) -> list[Root]:
        """The roots of a dataroot; OptionError if an entry is wrong or has a weight that is not used."""
        where = f"{where}:{key}"
        if getattr(self, key, None) is None:
            return []
        roots = read_roots(getattr(self, key), where, of_tars=self._backend.type == "tar")
        if roots[0].weight is not None and (self.phase != "train" or key != "dataroot_gt"):
            got = f"got {roots[0].weight:g}" + (f" in {self.phase}" if self.phase != "train" else "")
            hint = "Remove it." if self.phase != "train" else "Remove it; that of dataroot_gt counts."
            raise OptionError(f"{where}:0:weight", got, "weights in dataroot_gt of a training only", hint)
        return roots

    @property
    def _backend(self) -> IoBackend:
        return IoBackend(**self.io_backend)

    def check_sources(self, where: str) -> None:
        """Open the dataroots of valid options; DataError if one is missing."""
        self.source("dataroot_gt", where)

    def source(self, key: str, where: str) -> ImageSource:
        return self.open_root(getattr(self, key), f"{where}:{key}")

    def open_root(self, root: Dataroot, where: str) -> ImageSource:
        """Open folders, LMDBs, zip files or tars as `io_backend` says."""
        backend = self._backend
        options = {"cache": backend.cache_dir} if backend.type == "tar" else {}
        paths = [root.path for root in read_roots(root, where, of_tars=backend.type == "tar")]
        open_one = partial(_SOURCES[backend.type], **options)
        if len(paths) == 1:
            return open_one(paths[0], where)
        return SeveralSources([open_one(path, f"{where}:{number}") for number, path in enumerate(paths)])

    def _label_weights(self, where: str) -> LabelWeights:
        """The section ``label_weights``, checked; OptionError by key path."""
        where = f"{where}:label_weights"
        if self.phase != "train":
            raise OptionError(where, f"given in {self.phase}", "weights in a training only", "Remove it.")
        if not isinstance(self.dataroot_gt, str) and any(
            isinstance(root, Mapping) and "weight" in root for root in self.dataroot_gt
        ):
            expected = "weights of roots or of labels"
            raise OptionError(where, "given together with weights of dataroot_gt", expected, "Remove one of them.")
        return build(LabelWeights, self.label_weights, where)

    def weighted_epoch(self, keys: Sequence[str], where: str) -> WeightedEpoch | None:
        """The epoch of these images by the weights of roots or labels; None without weights.

        Errors as in `WeightedEpoch` and `LabelWeights`.
        """
        if self.label_weights is not None:
            given = self._label_weights(where)
            return WeightedEpoch(given.groups(keys, f"{where}:label_weights"), given.column)
        weights = [root.weight for root in self.roots("dataroot_gt", where)]
        if len(weights) == 1 or weights[0] is None:
            return None
        return WeightedEpoch(groups_of_roots(keys, weights, f"{where}:dataroot_gt"), "root")


@register("dataset")
class GPENFaceDataset(Dataset):
    """Faces from a folder, an LMDB, a zip file or tars.

    An item is a mapping: ``gt`` (3, out_size, out_size), RGB, float32 in `value_range`, or uint8 if asked for;
    ``gt_path``, the file, or the key in an LMDB with ``.png`` or in a tar with its suffix; with ``on_error: skip`` also
    ``skipped``, the number of unreadable images before this one.

    The random numbers of an item are a function of the seed and of its position in the training (see `SampleIndex`), or
    in validation of its key. With indices of another sampler they depend on torch's generator of the process.
    GPENError if an option is wrong or the data are missing.
    """

    wants_sample_index = True  # asks `gpen_plugin.host` to make the host's sampler yield `SampleIndex`
    options_class = FaceOptions

    def __init__(self, opt: Mapping):
        super().__init__()
        where = f"datasets:{opt.get('phase', 'train')}"
        self.check_options(opt, where)
        self.opt = opt
        self.options = self.options_class(**opt)
        self._gt = self.options.source("dataroot_gt", where)
        self._select(first_keys(self._gt, self.options.num_images), where)
        self._warned: set[str] = set()
        self._warned_of_small = False

    def _select(self, keys: Sequence[str], where: str) -> None:
        """Set the images of the data set, each once, and how often an epoch has them."""
        self.keys = keys
        self._epoch = self.options.weighted_epoch(keys, where)
        if self._epoch is not None:
            logging.getLogger("basicsr").info(f"{where}:dataroot_gt: {self._epoch}")

    @classmethod
    def check_options(cls, opt: Mapping, where: str) -> None:
        """Raise a GPENError that lists every problem by key path, e.g. ``datasets:train:seed``; reads no image."""
        problems: list[GPENError] = [*validate(cls.options_class, opt, where)]
        if not problems:
            options = cls.options_class(**opt)
            problems = options.value_problems(where) or collect_errors(lambda: options.check_sources(where))
            if not problems and (options.label_weights is not None or len(options.roots("dataroot_gt", where)) > 1):
                keys = first_keys(options.source("dataroot_gt", where), options.num_images)
                problems = collect_errors(lambda: options.weighted_epoch(keys, where))
        if problems:
            raise join_errors(problems)

    def __len__(self) -> int:
        return len(self.keys) if self._epoch is None else len(self._epoch)

    def __getitem__(self, index: int) -> dict:
        first = range(len(self))[index]  # an IndexError past the end, which ends a loop over the data set
        rng = self._rng(index)
        for step in range(len(self)):
            image = (first + step) % len(self)
            if self._epoch is not None:
                image = self._epoch.image(image, getattr(index, "epoch", 0))
            key = self.keys[image]
            try:
                item = self._item(key, rng if rng is not None else rng_from_key(self.options.seed, key))
                # workers cannot count for the run: the number is part of the batch, and the model adds it up
                return item | ({"skipped": step} if self.options.on_error == "skip" else {})
            except DataError as error:
                if self.options.on_error == "raise":
                    raise
                self._warn_once(key, error)
        raise DataError(str(self.options.dataroot_gt), f"none of {len(self.keys)} images can be read", "at least one")

    def _rng(self, index: int) -> np.random.Generator | None:
        """The generator of a training item; None in validation, where it depends on the key."""
        if self.options.phase != "train":
            return None
        if isinstance(index, SampleIndex):
            return rng_from_key(self.options.seed, index.epoch, index.position)
        return rng_from_key(self.options.seed, int(torch.randint(2**62, ())))

    def _item(self, key: str, rng: np.random.Generator) -> dict:
        return self._gt_entries(key, self._face(key, self._is_mirrored(rng), rng))

    def _is_mirrored(self, rng: np.random.Generator) -> bool:
        """Sampled first, with `use_hflip` off too, so that the later random numbers are the same."""
        return self.options.phase == "train" and rng.random() < 0.5 and self.options.use_hflip

    def _face(self, key: str, mirrored: bool, rng: np.random.Generator) -> np.ndarray:
        """The face, (out_size, out_size, 3) BGR uint8; subclasses may augment it with `rng`."""
        image = self._gt.read(key)
        side = min(image.shape[:2])
        if side * MAX_UPSCALE < self.options.out_size and not self._warned_of_small:
            self._warned_of_small = True  # once for the whole set: there may be thousands
            logging.getLogger("basicsr").warning(
                f"{self._gt.name(key)} has {side} px and is enlarged to {self.options.out_size} px as ground truth. "
                "There may be more such images. Remove small images from dataroot_gt, or lower out_size."
            )
        face = resize_square(image, self.options.out_size)
        return cv2.flip(face, 1) if mirrored else face

    def _gt_entries(self, key: str, face: np.ndarray) -> dict:
        return {"gt": self._tensor(face), "gt_path": self._gt.name(key)}

    def _tensor(self, image: np.ndarray, size: int | None = None) -> torch.Tensor:
        """(H, W, 3) BGR, uint8 or float in [0, 1], to (3, H, W) RGB float32 in `value_range`, or uint8.

        With `size`, resized bilinearly to (3, size, size).
        """
        if self.options.uint8:
            return torch.from_numpy(_byte_planes(image, size))
        planes = self._planes(image)
        if size is not None and planes.shape[1:] != (size, size):
            planes = _resize_planes(planes, size)
        return torch.from_numpy(planes)

    def _planes(self, image: np.ndarray) -> np.ndarray:
        """RGB in `value_range`, (3, H, W) float32; each value is written once, because memory traffic dominates."""
        low, high = (np.float32(end) for end in self.options.value_range)
        levels = np.arange(256, dtype=np.float32) / 255 * (high - low) + low
        planes = np.empty((3, *image.shape[:2]), np.float32)
        for plane, channel in zip(planes[::-1], cv2.split(image), strict=True):
            if image.dtype == np.uint8:
                cv2.LUT(channel, levels, dst=plane)
            else:
                np.multiply(channel, high - low, out=plane)
                plane += low
        return planes

    def _warn_once(self, key: str, error: DataError) -> None:
        if key not in self._warned:
            self._warned.add(key)
            logging.getLogger("basicsr").warning(f"Skipped and replaced: {error}")


def _byte_planes(image: np.ndarray, size: int | None) -> np.ndarray:
    """(H, W, 3) BGR, uint8 or float in [0, 1], to (3, H, W) RGB uint8, or (3, size, size)."""
    if image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if size is not None and image.shape[:2] != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.stack(cv2.split(image)[::-1])


def _resize_planes(planes: np.ndarray, size: int) -> np.ndarray:
    # [3, H, W] to [3, size, size]: `resize_bilinear`, one channel at a time
    resized = np.empty((len(planes), size, size), np.float32)
    for plane, target in zip(planes, resized, strict=True):
        cv2.resize(plane, (size, size), dst=target, interpolation=cv2.INTER_LINEAR)
    return resized


@dataclass(frozen=True)
class PairOptions(FaceOptions):
    """The keys of every set of pairs: those of `FaceOptions`, and this."""

    in_size: int | None = None  # side of the network's input in pixels; ~ for `out_size`

    def value_problems(self, where: str) -> list[GPENError]:
        problems: list[GPENError] = []
        if self.in_size is not None and self.in_size < 1:
            problems.append(OptionError(f"{where}:in_size", f"got {self.in_size}", "a number above 0"))
        if self.in_size and self.in_size > self.out_size:
            got, hint = f"got {self.in_size}, above out_size {self.out_size}", "Lower in_size or raise out_size."
            problems.append(OptionError(f"{where}:in_size", got, "at most out_size", hint))
        return [*super().value_problems(where), *problems]


class GPENPairDataset(GPENFaceDataset, ABC):
    """Base of the sets of pairs; a subclass makes the network's input from a face in `_lq_entries`.

    An item is that of a `GPENFaceDataset` and ``lq`` (3, in_size, in_size), RGB in `value_range`; ``lq_path`` is its
    file or key, by default that of the face.
    """

    options_class = PairOptions
    task: ClassVar[str] = "restore"  # see `gpen_plugin.restore.tasks`; the weight files state it

    @property
    def in_size(self) -> int:
        """Side of the network's input, pixels."""
        return self.options.in_size or self.options.out_size

    def _item(self, key: str, rng: np.random.Generator) -> dict:
        mirrored = self._is_mirrored(rng)
        face = self._face(key, mirrored, rng)
        lq = self._lq_entries(key, face, mirrored, rng)
        return {"lq_path": self._gt.name(key), **lq, **self._gt_entries(key, face)}

    @abstractmethod
    def _lq_entries(self, key: str, face: np.ndarray, mirrored: bool, rng: np.random.Generator) -> dict:
        """``lq`` and any further entries for a face, (out_size, out_size, 3) BGR uint8, already mirrored if so."""


def check_pairs(options: PairOptions, where: str) -> None:
    """Raise a DataError unless each face of ``dataroot_gt`` has an image of its key in ``dataroot_lq``."""
    numbers = [len(options.roots(key, where)) for key in ROOTS]
    if numbers[0] != numbers[1]:
        got = f"got {numbers[1]} roots, and dataroot_gt has {numbers[0]}"
        raise OptionError(f"{where}:dataroot_lq", got, "a root for each of dataroot_gt, in the same order")
    truth = options.source("dataroot_gt", where)
    available = set(options.source("dataroot_lq", where).keys)
    missing = [key for key in first_keys(truth, options.num_images) if key not in available]
    if missing:
        got = f"{options.dataroot_lq} has no '{missing[0]}'" + (f" and {len(missing) - 1} more" * (len(missing) > 1))
        raise DataError(f"{where}:dataroot_lq", got, "an image of the same name for each image of dataroot_gt")


def collect_errors(check: Callable[[], object]) -> list[GPENError]:
    """The GPENError that `check` raises, in a list; empty if it raises none."""
    try:
        check()
    except GPENError as error:
        return [error]
    return []


HOST_DATASETS = ("PairedImageDataset", "SingleImageDataset", "FFHQDataset")  # one folder a root; [0, 1], mean, std


def data_range(data: Mapping) -> tuple[float, float] | None:
    """The lowest and highest value of a data set's images, by its section of an option file.

    From the key ``value_range``, the attribute of the class, or ``mean`` and ``std``; None if none of them says it.
    """
    cls = resolve("dataset", data.get("type"))
    of_ours = isinstance(cls, type) and issubclass(cls, GPENFaceDataset)
    default = cls.options_class.value_range if of_ours else None
    stated = data.get("value_range") or getattr(cls, "value_range", default)
    if isinstance(stated, list | tuple):  # a property needs the object, which is not built
        return tuple(stated)
    if data.get("std") or getattr(cls, "__name__", None) in HOST_DATASETS:
        mean, std = (data.get("mean") or [0])[0], (data.get("std") or [1])[0]
        return tuple(round((value - mean) / std, 6) for value in (0, 1))
    return None
