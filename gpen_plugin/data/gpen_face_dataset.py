"""High-quality faces, alone: what the prior learns from, and the ground truth of the pairs that `GPEN` learns from."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from gpen_plugin.config.schema import validate
from gpen_plugin.data.image_source import FolderSource, ImageSource, LmdbSource, resize_square
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import DataError, GPENError, OptionError, join_errors
from gpen_plugin.host import register
from gpen_plugin.host.data_cursor import SampleIndex

LARGEST_ENLARGEMENT = 2  # of an image: what is enlarged more is no ground truth, and a warning says so
_SOURCES = {"disk": FolderSource, "lmdb": LmdbSource}


@dataclass(frozen=True)
class IoBackend:
    """The section ``io_backend``.

    Args:
        type: ``disk`` for a folder of images, ``lmdb`` for an LMDB in the host's format.
    """

    type: Literal["disk", "lmdb"] = "disk"


@dataclass(frozen=True)
class FaceOptions:
    """The keys of a `GPENFaceDataset` in an option file.

    Args:
        dataroot_gt: folder or LMDB with the faces.
        out_size: side of a face; images of another size are cropped to the central square and resized.
        name: what the host calls the set in its log; it has to be in every option file.
        type: the class of the set, likewise.
        phase: set by the host: ``train``, ``val`` or ``test``.
        io_backend: see `IoBackend`; for every root.
        use_hflip: mirror half of the images, in training only.
        value_range: of the images; (0, 1) for the host's own models.
        seed: of all that is drawn for an image.
        num_images: use only this many images, the first in order of their keys.
        on_error: ``raise``, or ``skip`` to log, count and replace an image that cannot be read.
        scale: put here by the host, which copies a key of that name; faces have none.
        num_worker_per_gpu: read, as all that follow, by the host's loader: processes that prepare images.
        batch_size_per_gpu: items per step.
        dataset_enlarge_ratio: how often an epoch goes through the set.
        prefetch_mode: None, ``cpu`` or ``cuda``.
        num_prefetch_queue: batches that ``cpu`` prefetching holds ready.
        pin_memory: see torch's DataLoader.
        persistent_workers: keep the processes from one epoch to the next.
    """

    dataroot_gt: str
    out_size: int
    name: str = ""
    type: str = ""
    phase: Literal["train", "val", "test"] = "train"
    io_backend: Mapping = field(default_factory=dict)
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

    def value_problems(self, where: str) -> list[GPENError]:
        """What is wrong with the values, by key path; nothing is opened."""
        problems: list[GPENError] = []
        for name in ("out_size", "num_images", "batch_size_per_gpu", "dataset_enlarge_ratio"):
            value = getattr(self, name)
            if value is not None and not (value > 0 if name == "dataset_enlarge_ratio" else value >= 1):
                problems.append(OptionError(f"{where}:{name}", f"got {value}", "a number above 0"))
        if self.value_range[0] >= self.value_range[1]:
            got, hint = f"got {list(self.value_range)}", "Write [-1, 1] or [0, 1]."
            problems.append(OptionError(f"{where}:value_range", got, "the smaller number first", hint))
        return [*problems, *validate(IoBackend, self.io_backend, f"{where}:io_backend")]

    def check_sources(self, where: str) -> None:
        """Open what the options name, values being right. DataError if it is not there."""
        self.source("dataroot_gt", where)

    def source(self, key: str, where: str) -> ImageSource:
        """The images under the root that `key` names."""
        return _SOURCES[IoBackend(**self.io_backend).type](getattr(self, key), f"{where}:{key}")


@register("dataset")
class GPENFaceDataset(Dataset):
    """Faces from a folder or LMDB, as a GAN is shown them.

    An item is a mapping: ``gt`` (3, out_size, out_size), float32 RGB in `value_range`; ``gt_path``, the file, or for an
    LMDB the key with ``.png``; with ``on_error: skip`` also ``skipped``, how many unreadable images were passed over
    to find this one.

    Whatever is drawn for an item is a function of the seed and of its place in the training (see `SampleIndex`), or in
    validation of its key. With indices of another sampler it is drawn from torch's generator of the process.

    Args:
        opt: the options of one data set as the host passes them; see `FaceOptions`.
    Raises:
        GPENError: an option is wrong, or the data are not there.
    """

    wants_sample_index = True  # asks `gpen_plugin.host` to have the host's sampler yield `SampleIndex`
    options_class = FaceOptions

    def __init__(self, opt: Mapping):
        super().__init__()
        where = f"datasets:{opt.get('phase', 'train')}"
        self.check_options(opt, where)
        self.opt = opt
        self.options = self.options_class(**opt)
        self._gt = self.options.source("dataroot_gt", where)
        self.keys = self._gt.keys[: self.options.num_images]
        self._warned: set[str] = set()
        self._warned_of_small = False

    @classmethod
    def check_options(cls, opt: Mapping, where: str) -> None:
        """Find all that is wrong with the options of a data set, without reading an image.

        Args:
            opt: the options.
            where: their key path, e.g. ``datasets:train``.
        Raises:
            GPENError: lists every problem by key path.
        """
        problems: list[GPENError] = [*validate(cls.options_class, opt, where)]
        if not problems:
            options = cls.options_class(**opt)
            problems = options.value_problems(where) or collect_errors(lambda: options.check_sources(where))
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
                item = self._item(key, rng if rng is not None else rng_from_key(self.options.seed, key))
                # workers cannot count for the run: the number travels with the batch, and the model adds it up
                return item | ({"skipped": step} if self.options.on_error == "skip" else {})
            except DataError as error:
                if self.options.on_error == "raise":
                    raise
                self._warn_once(key, error)
        raise DataError(str(self.options.dataroot_gt), f"none of {len(self.keys)} images can be read", "at least one")

    def _rng(self, index: int) -> np.random.Generator | None:
        """Where the draws of a training item come from; None in validation, where they come from its key."""
        if self.options.phase != "train":
            return None
        if isinstance(index, SampleIndex):
            return rng_from_key(self.options.seed, index.epoch, index.position)
        return rng_from_key(self.options.seed, int(torch.randint(2**62, ())))

    def _item(self, key: str, rng: np.random.Generator) -> dict:
        """All of an item but ``skipped``. Mirroring is the first draw."""
        return self._shown(key, self._face(key, self._mirrored(rng), rng))

    def _mirrored(self, rng: np.random.Generator) -> bool:
        """Draw whether an image is mirrored. The draw is made with `use_hflip` off too, so the later ones stay."""
        return self.options.phase == "train" and rng.random() < 0.5 and self.options.use_hflip

    def _face(self, key: str, mirrored: bool, rng: np.random.Generator) -> np.ndarray:
        """The face, (out_size, out_size, 3) BGR uint8; a subclass may draw changes to it from `rng`."""
        image = self._gt.read(key)
        side = min(image.shape[:2])
        if side * LARGEST_ENLARGEMENT < self.options.out_size and not self._warned_of_small:
            self._warned_of_small = True  # once for the whole set: there may be thousands
            logging.getLogger("basicsr").warning(
                f"{self._gt.name(key)} has {side} px and is enlarged to {self.options.out_size} px as ground truth. "
                "There may be more such images. Remove small images from dataroot_gt, or lower out_size."
            )
        face = resize_square(image, self.options.out_size)
        return cv2.flip(face, 1) if mirrored else face

    def _shown(self, key: str, face: np.ndarray) -> dict:
        return {"gt": self._tensor(face), "gt_path": self._gt.name(key)}

    def _tensor(self, image: np.ndarray, size: int | None = None) -> torch.Tensor:
        """BGR to RGB in the value range of the networks, and from one size to another bilinearly.

        Args:
            image: (H, W, 3), uint8, or float in [0, 1].
            size: side of the result; None keeps the image's.
        Returns:
            (3, H, W) or (3, size, size), float32.
        """
        planes = self._planes(image)
        if size is not None and planes.shape[1:] != (size, size):
            planes = _resized(planes, size)
        return torch.from_numpy(planes)

    def _planes(self, image: np.ndarray) -> np.ndarray:
        """RGB in the value range, (3, H, W) float32, each value written once: what is large takes longest to touch."""
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


def _resized(planes: np.ndarray, size: int) -> np.ndarray:
    """(3, H, W) to (3, size, size), bilinearly: `resize_bilinear`, one channel at a time."""
    resized = np.empty((len(planes), size, size), np.float32)
    for plane, room in zip(planes, resized, strict=True):
        cv2.resize(plane, (size, size), dst=room, interpolation=cv2.INTER_LINEAR)
    return resized


def collect_errors(check: Callable[[], object]) -> list[GPENError]:
    """The error of ours that `check` raises, in a list: empty if it raises none."""
    try:
        check()
    except GPENError as error:
        return [error]
    return []
