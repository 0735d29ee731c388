"""Several processes that share an evaluation, as torchrun starts them; a single process is rank 0 of 1."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from gpen_plugin.errors import OptionError
from gpen_plugin.host.distributed import all_gather_object
from gpen_plugin.nets.loading import select_device

Item = TypeVar("Item")
INIT_TIMEOUT = timedelta(minutes=10)
GROUP_TIMEOUT = timedelta(days=7)  # rank 0 may train an encoder while the others wait


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks. They exchange small objects over gloo, and images through a shared folder."""

    rank: int
    world_size: int
    device: torch.device
    group: distributed.ProcessGroup | None = None

    @classmethod
    def of_this_process(
        cls,
        # e.g. ``cpu`` or ``cuda``; None takes a GPU if there is one, each rank of a machine its own
        device: str | None = None,
    ) -> "Ranks":
        """Read torchrun's variables and join the group.

        OptionError: there is no such device, or the other ranks cannot be reached.
        """
        # From here on torch uses one CPU thread: the last digits of a convolution depend on the number of threads, and
        # torchrun gives each process one. Start one process per core to use all cores.
        torch.set_num_threads(1)
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        group = _init_group(world_size) if world_size > 1 else None
        return cls(int(os.environ.get("RANK", "0")), world_size, _local_device(device), group)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes the results."""
        return self.rank == 0

    def shard(self, items: Sequence[Item]) -> Sequence[Item]:
        """This rank's part of a list that all ranks have."""
        return items[self.rank :: self.world_size]

    def gather(self, value: Item) -> list[Item]:
        """`value` of every rank, in order; every rank must call this."""
        if self.world_size == 1:
            return [value]
        return all_gather_object(value, self.group)

    def barrier(self) -> None:
        """Return once every rank has called this."""
        self.gather(None)

    def main_first(self) -> Iterator[None]:
        """A loop of one turn that rank 0 finishes before the others begin: ``for _ in ranks.main_first(): ...``"""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def close(self) -> None:
        """Leave the group at the very end."""
        if distributed.is_initialized():
            distributed.destroy_process_group()


def merge_dicts(parts: Iterable[dict]) -> dict:
    """The union of the ranks' dicts."""
    return {key: value for part in parts for key, value in part.items()}


def _init_group(world_size: int) -> distributed.ProcessGroup:
    try:
        if not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=INIT_TIMEOUT)
        return distributed.new_group(timeout=GROUP_TIMEOUT, backend="gloo")
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        got = f"says {world_size} processes, and the others cannot be reached ({reason})"
        raise OptionError("WORLD_SIZE", got, "processes that torchrun started") from error


def _local_device(name: str | None) -> torch.device:
    device = select_device(name or "auto", mps=name is not None)
    if device.type != "cuda":
        return device
    if name is None or ":" not in name:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
