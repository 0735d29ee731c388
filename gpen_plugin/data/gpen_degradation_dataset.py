"""Pairs of a degraded face and its ground truth, for the host's training and validation."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from gpen_plugin.data.degradation import DegradationRanges, degrade, recipe_rng, resize_bilinear, sample_recipe
from gpen_plugin.data.image_source import FolderSource, ImageSource, LmdbSource, fit_square
from gpen_plugin.data.sample_index import SampleIndex
from gpen_plugin.errors import DataError, GPENError, OptionError, join_errors
from gpen_plugin.host import register
from gpen_plugin.schema import problems_of

_SOURCES = {"disk": FolderSource, "lmdb": LmdbSource}


@dataclass(frozen=True)
class IoBackend:
    """The section ``io_backend``: ``disk`` for a folder of pictures, ``lmdb`` for an LMDB in the host's format."""

    type: Literal["disk", "lmdb"] = "disk"


@dataclass(frozen=True)
class DatasetOptions:
    """The keys of a `GPENDegradationDataset` in an option file.

    Args:
        name: what the host calls the set in its log.
        type: ``GPENDegradationDataset``.
        phase: set by the host: ``train``, ``val`` or ``test``.
        dataroot_gt: folder or LMDB with the ground truth.
        out_size: side of the ground truth; pictures of another size are cropped to the central square and resized.
        in_size: side of the degraded picture; `out_size` if left out.
        dataroot_lq: folder or LMDB of pictures that are degraded already, paired by key; none are made then.
        io_backend: see `IoBackend`; for both roots.
        degradation: the keys of `DegradationRanges`.
        use_hflip: mirror half of the pictures, in training only.
        value_range: of both pictures; (0, 1) for the host's own models.
        seed: of the degradations.
        num_images: use only this many pictures, the first in order of their keys.
        on_error: ``raise``, or ``skip`` to log, count and replace a picture that cannot be read.
        scale: put here by the host, which copies a key of that name; a restoration of faces has none.
        num_worker_per_gpu: read, as all that follow, by the host's loader: processes that degrade.
        batch_size_per_gpu: items per step.
        dataset_enlarge_ratio: how often an epoch goes through the set.
        prefetch_mode: None, ``cpu`` or ``cuda``.
        num_prefetch_queue: batches that ``cpu`` prefetching holds ready.
        pin_memory: see torch's DataLoader.
        persistent_workers: keep the processes from one epoch to the next.
    """

    name: str
    type: str
    dataroot_gt: str
    out_size: int
    in_size: int | None = None
    phase: Literal["train", "val", "test"] = "train"
    dataroot_lq: str | None = None
    io_backend: Mapping = field(default_factory=dict)
    degradation: Mapping = field(default_factory=dict)
    use_hflip: bool = False
    value_range: tuple[float, float] = (-1.0, 1.0)
    seed: int = 0
    num_images: int | None = None
    on_error: Literal["raise", "skip"] = "raise"
    scale: float = 1
    num_worker_per_gpu: int = 0
    batch_size_per_gpu: int = 1
    dataset_enlarge_ratio: float = 1
    prefetch_mode: Literal["cpu", "cuda"] | None = None
    num_prefetch_queue: int = 1
    pin_memory: bool = False
    persistent_workers: bool = False


@register("dataset")
class GPENDegradationDataset(Dataset):
    """Ground truth faces, and the degraded versions that Eq. 4 makes of them.

    An item is a mapping: ``lq`` (3, in_size, in_size) and ``gt`` (3, out_size, out_size), float32 RGB in
    `value_range`; ``gt_path`` and ``lq_path``, the file, or for an LMDB the key with ``.png``; with ``on_error: skip``
    also ``skipped``, how many unreadable pictures were passed over to find this one.

    Whatever is drawn for an item is a function of the seed and of its place in the training (see `SampleIndex`), or in
    validation of its key. With indices of another sampler it is drawn from torch's generator of the process.

    Args:
        opt: the options of one data set as the host passes them; see `DatasetOptions`.
    Raises:
        GPENError: an option is wrong, or the data are not there.
    """

    wants_sample_index = True  # asks `gpen_plugin.host` to have the host's sampler yield `SampleIndex`

    def __init__(self, opt: Mapping):
        super().__init__()
        where = f"datasets:{opt.get('phase', 'train')}"
        self.check_options(opt, where)
        self.opt = opt
        self.options = DatasetOptions(**opt)
        self.in_size = self.options.in_size or self.options.out_size
        self.ranges = DegradationRanges.from_options(self.options.degradation, f"{where}:degradation")
        self._gt = _source(self.options, "dataroot_gt", where)
        self._lq = _source(self.options, "dataroot_lq", where) if self.options.dataroot_lq else None
        self.keys = self._gt.keys[: self.options.num_images]
        self._warned: set[str] = set()

    @classmethod
    def check_options(cls, opt: Mapping, where: str) -> None:
        """Find all that is wrong with the options of a data set, without reading a picture.

        Args:
            opt: the options.
            where: their key path, e.g. ``datasets:train``.
        Raises:
            GPENError: lists every problem by key path.
        """
        problems: list[GPENError] = [*problems_of(DatasetOptions, opt, where)]
        if not problems:
            options = DatasetOptions(**opt)
            problems = [
                *_value_problems(options, where),
                *problems_of(IoBackend, options.io_backend, f"{where}:io_backend"),
            ]
            problems += _caught(lambda: DegradationRanges.from_options(options.degradation, f"{where}:degradation"))
            problems += _caught(lambda: _check_sources(options, where)) if not problems else []
        if problems:
            raise join_errors(problems)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict:
        first = range(len(self.keys))[index]  # an IndexError past the end, which ends a loop over the data set
        rng = self._rng(index)
        for step in range(len(self.keys)):
            key = self.keys[(first + step) % len(self.keys)]
            try:
                item = self._item(key, rng if rng is not None else recipe_rng(self.options.seed, key))
                # workers cannot count for the run: the number travels with the batch, and the model adds it up
                return item | ({"skipped": step} if self.options.on_error == "skip" else {})
            except DataError as error:
                if self.options.on_error == "raise":
                    raise
                self._warn_once(key, error)
        raise DataError(str(self.options.dataroot_gt), f"none of {len(self.keys)} pictures can be read", "at least one")

    def _rng(self, index: int) -> np.random.Generator | None:
        """Where the draws of a training item come from; None in validation, where they come from its key."""
        if self.options.phase != "train":
            return None
        if isinstance(index, SampleIndex):
            return recipe_rng(self.options.seed, index.epoch, index.position)
        return recipe_rng(self.options.seed, int(torch.randint(2**62, ())))

    def _item(self, key: str, rng: np.random.Generator) -> dict:
        gt = fit_square(self._gt.read(key), self.options.out_size)
        mirrored = self.options.phase == "train" and rng.random() < 0.5 and self.options.use_hflip
        if mirrored:
            gt = np.ascontiguousarray(gt[:, ::-1])
        if self._lq is None:
            lq = degrade(gt, sample_recipe(self.ranges, rng), self.in_size)
        else:
            lq = self._lq.read(key)[:, :: -1 if mirrored else 1]
            lq = resize_bilinear(fit_square(lq, min(lq.shape[:2])), self.in_size)
        return {
            "lq": self._tensor(lq),
            "gt": self._tensor(gt.astype(np.float32) / 255),
            "lq_path": (self._lq or self._gt).name(key),
            "gt_path": self._gt.name(key),
        }

    def _tensor(self, picture: np.ndarray) -> torch.Tensor:
        """BGR in [0, 1], (H, W, 3), to RGB in the value range of the networks, (3, H, W)."""
        low, high = self.options.value_range
        rgb = np.ascontiguousarray(picture[:, :, ::-1].transpose(2, 0, 1), dtype=np.float32)  # (3, H, W)
        return torch.from_numpy(rgb * np.float32(high - low) + np.float32(low))

    def _warn_once(self, key: str, error: DataError) -> None:
        if key not in self._warned:
            self._warned.add(key)
            logging.getLogger("basicsr").warning(f"Skipped and replaced: {error}")


def _value_problems(options: DatasetOptions, where: str) -> list[OptionError]:
    problems = []
    for name in ("out_size", "in_size", "num_images", "batch_size_per_gpu", "dataset_enlarge_ratio"):
        value = getattr(options, name)
        if value is not None and not (value > 0 if name == "dataset_enlarge_ratio" else value >= 1):
            problems.append(OptionError(f"{where}:{name}", f"got {value}", "a number above 0"))
    if options.in_size and options.in_size > options.out_size:
        came = f"got {options.in_size}, above out_size {options.out_size}"
        problems.append(OptionError(f"{where}:in_size", came, "at most out_size", "Lower in_size or raise out_size."))
    if options.value_range[0] >= options.value_range[1]:
        came = f"got {list(options.value_range)}"
        problems.append(
            OptionError(f"{where}:value_range", came, "the smaller number first", "Write [-1, 1] or [0, 1].")
        )
    if options.dataroot_lq and options.degradation:
        came = f"given together with dataroot_lq {options.dataroot_lq}, whose pictures are degraded already"
        problems.append(OptionError(f"{where}:degradation", came, "one of the two", "Remove one of them."))
    return problems


def _check_sources(options: DatasetOptions, where: str) -> None:
    truth = _source(options, "dataroot_gt", where)
    if options.dataroot_lq:
        partners = set(_source(options, "dataroot_lq", where).keys)
        lonely = [key for key in truth.keys[: options.num_images] if key not in partners]
        if lonely:
            came = f"{options.dataroot_lq} has no '{lonely[0]}'" + (f" and {len(lonely) - 1} more" * (len(lonely) > 1))
            raise DataError(f"{where}:dataroot_lq", came, "a partner of the same name for each picture of dataroot_gt")


def _source(options: DatasetOptions, key: Literal["dataroot_gt", "dataroot_lq"], where: str) -> ImageSource:
    return _SOURCES[IoBackend(**options.io_backend).type](getattr(options, key), f"{where}:{key}")


def _caught(check: Callable[[], object]) -> list[GPENError]:
    try:
        check()
    except GPENError as error:
        return [error]
    return []
