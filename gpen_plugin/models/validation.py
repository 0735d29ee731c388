"""Validation over several ranks: each image is restored and measured once, by one rank."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import path as osp

import numpy as np
from basicsr.metrics import calculate_metric
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from gpen_plugin.data.gpen_face_dataset import GPENFaceDataset
from gpen_plugin.host.distributed import all_gather_object

Images = dict[str, np.ndarray]


@dataclass
class MetricSums:
    """Metric values of a validation."""

    # metric -> index of an image -> value, or an accumulator of a metric of whole sets
    values: dict[str, dict[int, object]] = field(default_factory=dict)
    shown: dict[int, Images] = field(default_factory=dict)  # index of an image -> its tiles in the grid

    def merge(self, other: "MetricSums") -> None:
        """Add the values of another rank."""
        for name, values in other.values.items():
            self.values.setdefault(name, {}).update(values)
        self.shown.update(other.shown)

    def results(self) -> dict[str, float]:
        """Each metric over the whole set, summed in the order of the images: independent of the number of ranks."""
        return {name: _mean(name, [values[index] for index in sorted(values)]) for name, values in self.values.items()}


def compute_metrics(
    dataloader: DataLoader,  # BasicSR's, with batches of one image
    restore: Callable[[Mapping, int], Images],  # (batch, index) -> uint8 BGR: ``result`` and, if there is one, ``gt``
    metrics: Mapping[str, Mapping],  # name -> options of BasicSR's `calculate_metric`, which gets ``img`` and ``img2``
    num_shown: int,  # tiles of so many images, from the first, are returned
    *,
    rank: int,
    world_size: int,
    progress: bool = False,  # on rank 0
) -> MetricSums:
    """Restore and measure a set, each rank its part. Call it on every rank: each gets the values of all."""
    sums = MetricSums({name: {} for name in metrics})
    for index, batch in _shard(dataloader, rank, world_size, progress and rank == 0):
        images = restore(batch, index)
        if index < num_shown:
            sums.shown[index] = images
        given = {"img": images["result"]} | ({"img2": images["gt"]} if "gt" in images else {})
        for name, options in metrics.items():
            sums.values[name][index] = calculate_metric(dict(given), dict(options))
    total = MetricSums()
    for part in all_gather_object(sums):
        total.merge(part)
    return total


class ImageNames:
    """File names for the images of a set: flat where these are unique and listed in advance, else with sub-folders.

    If images differ only in the suffix, the names contain it.
    """

    def __init__(self, dataset: Dataset):  # with BasicSR's ``opt``, and items with ``lq_path`` or ``gt_path``
        roots = (dataset.opt.get(key) for key in ("dataroot_lq", "dataroot_gt"))
        roots = (osp.join(osp.normpath(root), "") for root in roots if isinstance(root, str) and root)
        self._roots = sorted(roots, key=len, reverse=True)  # one may lie in the other
        if isinstance(dataset, GPENFaceDataset):
            keys = names = dataset.keys  # without suffix
        else:
            keys = [self._key(path) for path in _listed_paths(dataset)]
            names = [_without_suffix(key) for key in keys]
        self._with_suffix = not _unique(names)
        names = keys if self._with_suffix else names
        self._flat = bool(names) and _unique([osp.basename(name) for name in names])

    def of(self, batch: Mapping) -> str:
        """The name of the image of a batch: a relative path with '/' between folders, without suffix."""
        key = self._key(_path_of(batch)[0])
        name = key if self._with_suffix else _without_suffix(key)
        return osp.basename(name) if self._flat else name

    def _key(self, path: str) -> str:
        """The path below the root of the set, without parts that would leave the folder of results."""
        path = osp.normpath(path)
        root = next((root for root in self._roots if path.startswith(root)), "")
        parts = path.removeprefix(root).replace("\\", "/").split("/")
        return "/".join(part for part in parts if part not in ("", ".", "..") and not part.endswith(":"))


def _path_of(item: Mapping) -> str | Sequence[str]:
    return item["lq_path" if "lq_path" in item else "gt_path"]


def _listed_paths(dataset: Dataset) -> list[str]:
    """The paths of the items of one of BasicSR's sets; none where there is no such list."""
    paths = getattr(dataset, "paths", None) or []
    paths = [_path_of(path) if isinstance(path, Mapping) else path for path in paths]
    return paths if all(isinstance(path, str) for path in paths) else []


def _unique(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names)


def _without_suffix(path: str) -> str:
    return osp.splitext(path)[0]


def image_path(opt: Mapping, name: str, dataset: str, current_iter: int) -> str:
    """BasicSR's path of a restored image; in training with the iteration, and with the set where there are several."""
    folder = opt["path"]["visualization"]
    if not opt["is_train"]:
        return osp.join(folder, dataset, f"{name}_{opt['val'].get('suffix') or opt['name']}.png")
    if sum(phase.startswith("val") for phase in opt["datasets"]) > 1:
        folder = osp.join(folder, dataset)
    return osp.join(folder, name, f"{osp.basename(name)}_{current_iter}.png")


def _shard(dataloader: DataLoader, rank: int, world_size: int, progress: bool) -> Iterator[tuple[int, Mapping]]:
    if world_size == 1:
        batches = enumerate(dataloader)
    else:  # images of other ranks are not decoded
        dataset, collate = dataloader.dataset, dataloader.collate_fn
        batches = ((index, collate([dataset[index]])) for index in range(rank, len(dataset), world_size))
    yield from tqdm(batches, total=-(-len(dataloader.dataset) // world_size), unit="image", disable=not progress)


def _mean(name: str, values: list) -> float:
    """The mean without images that have no value (NaN, for example without a face); NaN if none has a value."""
    known = [value for value in values if not _is_nan(value)]
    if not known:
        return math.nan
    if len(known) < len(values):
        logging.getLogger("basicsr").info(f"{name}: {len(values) - len(known)} of {len(values)} images have no value.")
    total = 0  # BasicSR's arithmetic, which accumulators of whole sets support too
    for value in known:
        total += value
    return total / len(known)


def _is_nan(value: object) -> bool:
    return bool(value != value)  # of numbers of all kinds, NaN alone is not itself
