"""A validation that the ranks share: each image is drawn and measured once, by one of them."""

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
    """What a validation has measured, by the number of the image.

    Attributes:
        values: metric -> image -> value; of a metric of whole sets, what adds up to it.
        shown: image -> its tiles, for the page.
    """

    values: dict[str, dict[int, object]] = field(default_factory=dict)
    shown: dict[int, Images] = field(default_factory=dict)

    def merge(self, other: "MetricSums") -> None:
        """Take over what another rank has measured."""
        for name, values in other.values.items():
            self.values.setdefault(name, {}).update(values)
        self.shown.update(other.shown)

    def results(self) -> dict[str, float]:
        """Each metric over the whole set. Summed in the order of the images, so it does not depend on the ranks."""
        return {name: _mean(name, [values[index] for index in sorted(values)]) for name, values in self.values.items()}


def compute_metrics(
    dataloader: DataLoader,
    restore: Callable[[Mapping, int], Images],
    metrics: Mapping[str, Mapping],
    num_shown: int,
    *,
    rank: int,
    world_size: int,
    progress: bool = False,
) -> MetricSums:
    """Restore and measure a set, each rank its share; every rank has to call this.

    Args:
        dataloader: the host's loader of the set; its batches would be of one image.
        restore: (batch, image's number) -> uint8 BGR images by name: ``result`` and, if there is one, ``gt``.
        metrics: name -> the host's options of it; the host gets ``img`` and ``img2``.
        num_shown: of so many images, the first, the tiles are kept.
        rank: of this process.
        world_size: how many ranks there are.
        progress: whether rank 0 shows a bar.
    Returns:
        The tally of all ranks, on each of them.
    """
    tally = MetricSums({name: {} for name in metrics})
    for index, batch in _share(dataloader, rank, world_size, progress and rank == 0):
        images = restore(batch, index)
        if index < num_shown:
            tally.shown[index] = images
        given = {"img": images["result"]} | ({"img2": images["gt"]} if "gt" in images else {})
        for name, options in metrics.items():
            tally.values[name][index] = calculate_metric(dict(given), dict(options))
    total = MetricSums()
    for part in all_gather_object(tally):
        total.merge(part)
    return total


class ImageNames:
    """The names of the images of a set, for files: flat where these are unique, else with their sub-folders.

    Images of one name that differ in their suffix keep it. Of a set whose images cannot be listed before they are read
    (one of a user's own), the names keep their sub-folders.

    Args:
        dataset: has the host's ``opt``, and gives items with ``lq_path`` or ``gt_path``.
    """

    def __init__(self, dataset: Dataset):
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
        """The path below the root of the set, without parts that would lead out of the folder of results."""
        path = osp.normpath(path)
        root = next((root for root in self._roots if path.startswith(root)), "")
        parts = path.removeprefix(root).replace("\\", "/").split("/")
        return "/".join(part for part in parts if part not in ("", ".", "..") and not part.endswith(":"))


def _path_of(item: Mapping) -> str | Sequence[str]:
    return item["lq_path" if "lq_path" in item else "gt_path"]


def _listed_paths(dataset: Dataset) -> list[str]:
    """The paths that the items of one of the host's sets will have; none where there is no such list."""
    paths = getattr(dataset, "paths", None) or []
    paths = [_path_of(path) if isinstance(path, Mapping) else path for path in paths]
    return paths if all(isinstance(path, str) for path in paths) else []


def _unique(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names)


def _without_suffix(path: str) -> str:
    return osp.splitext(path)[0]


def image_path(opt: Mapping, name: str, dataset: str, current_iter: int) -> str:
    """The host's place for a restored image.

    Args:
        opt: options of the run.
        name: from `ImageNames`.
        dataset: the set's name; a folder of its own when testing, and in training where there are several sets.
        current_iter: counts in training only.
    """
    folder = opt["path"]["visualization"]
    if not opt["is_train"]:
        return osp.join(folder, dataset, f"{name}_{opt['val'].get('suffix') or opt['name']}.png")
    if sum(phase.startswith("val") for phase in opt["datasets"]) > 1:
        folder = osp.join(folder, dataset)
    return osp.join(folder, name, f"{osp.basename(name)}_{current_iter}.png")


def _share(dataloader: DataLoader, rank: int, world_size: int, progress: bool) -> Iterator[tuple[int, Mapping]]:
    if world_size == 1:
        batches = enumerate(dataloader)
    else:  # images of other ranks are not even decoded
        dataset, collate = dataloader.dataset, dataloader.collate_fn
        batches = ((index, collate([dataset[index]])) for index in range(rank, len(dataset), world_size))
    yield from tqdm(batches, total=-(-len(dataloader.dataset) // world_size), unit="image", disable=not progress)


def _mean(name: str, values: list) -> float:
    """The host's arithmetic: from 0, then divided. Metrics of whole sets come as accumulators that know both.

    Images without a value (NaN: no face was found, say) do not count; if none has one, the mean has none either.
    """
    there = [value for value in values if not _is_nan(value)]
    if not there:
        return math.nan
    if len(there) < len(values):
        logging.getLogger("basicsr").info(f"{name}: {len(values) - len(there)} of {len(values)} images have no value.")
    total = 0
    for value in there:
        total += value
    return total / len(there)


def _is_nan(value: object) -> bool:
    return bool(value != value)  # of numbers of all kinds, NaN alone is not itself
