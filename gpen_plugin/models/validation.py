"""A validation that the ranks share: each picture is drawn and measured once, by one of them."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from os import path as osp

import numpy as np
from basicsr.metrics import calculate_metric
from torch.utils.data import DataLoader
from tqdm import tqdm

from gpen_plugin.models.training_state import of_every_rank

Pictures = dict[str, np.ndarray]


@dataclass
class Tally:
    """What a validation has measured, by the number of the picture.

    Attributes:
        values: metric -> picture -> value; of a metric of whole sets, what adds up to it.
        shown: picture -> its tiles, for the page.
    """

    values: dict[str, dict[int, object]] = field(default_factory=dict)
    shown: dict[int, Pictures] = field(default_factory=dict)

    def merge(self, other: "Tally") -> None:
        """Take over what another rank has measured."""
        for name, values in other.values.items():
            self.values.setdefault(name, {}).update(values)
        self.shown.update(other.shown)

    def results(self) -> dict[str, float]:
        """Each metric over the whole set. Summed in the order of the pictures, so it does not depend on the ranks."""
        return {name: _mean(name, [values[index] for index in sorted(values)]) for name, values in self.values.items()}


def measure(
    dataloader: DataLoader,
    restore: Callable[[Mapping, int], Pictures],
    metrics: Mapping[str, Mapping],
    num_shown: int,
    *,
    rank: int,
    world_size: int,
    progress: bool = False,
) -> Tally:
    """Restore and measure a set, each rank its share; every rank has to call this.

    Args:
        dataloader: the host's loader of the set; its batches would be of one picture.
        restore: (batch, picture's number) -> uint8 BGR pictures by name: ``result`` and, if there is one, ``gt``.
        metrics: name -> the host's options of it; the host gets ``img`` and ``img2``.
        num_shown: of so many pictures, the first, the tiles are kept.
        rank: of this process.
        world_size: how many ranks there are.
        progress: whether rank 0 shows a bar.
    Returns:
        The tally of all ranks, on each of them.
    """
    tally = Tally({name: {} for name in metrics})
    for index, batch in _share(dataloader, rank, world_size, progress and rank == 0):
        pictures = restore(batch, index)
        if index < num_shown:
            tally.shown[index] = pictures
        given = {"img": pictures["result"]} | ({"img2": pictures["gt"]} if "gt" in pictures else {})
        for name, options in metrics.items():
            tally.values[name][index] = calculate_metric(dict(given), dict(options))
    total = Tally()
    for part in of_every_rank(tally):
        total.merge(part)
    return total


def picture_path(opt: Mapping, batch: Mapping, dataset: str, current_iter: int) -> str:
    """The host's place for a restored picture.

    Args:
        opt: options of the run.
        batch: with one picture; its name is that of the file that it came from.
        dataset: the set's name.
        current_iter: counts in training only.
    """
    folder = opt["path"]["visualization"]
    name = osp.splitext(osp.basename(batch["lq_path" if "lq_path" in batch else "gt_path"][0]))[0]
    if opt["is_train"]:
        return osp.join(folder, name, f"{name}_{current_iter}.png")
    return osp.join(folder, dataset, f"{name}_{opt['val'].get('suffix') or opt['name']}.png")


def _share(dataloader: DataLoader, rank: int, world_size: int, progress: bool) -> Iterator[tuple[int, Mapping]]:
    if world_size == 1:
        batches = enumerate(dataloader)
    else:  # pictures of other ranks are not even decoded
        dataset, collate = dataloader.dataset, dataloader.collate_fn
        batches = ((index, collate([dataset[index]])) for index in range(rank, len(dataset), world_size))
    yield from tqdm(batches, total=-(-len(dataloader.dataset) // world_size), unit="image", disable=not progress)


def _mean(name: str, values: list) -> float:
    """The host's arithmetic: from 0, then divided. Metrics of whole sets come as accumulators that know both.

    Pictures without a value (NaN: no face was found, say) do not count; if none has one, the mean has none either.
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
