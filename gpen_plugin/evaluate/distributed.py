"""Several processes that share an evaluation, as torchrun starts them. One process is the case of one rank."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from gpen_plugin.errors import OptionError
from gpen_plugin.restore.network import torch_device

Item = TypeVar("Item")
JOINING = timedelta(minutes=10)  # a launcher that was killed meanwhile is not waited for longer
PATIENCE = timedelta(days=7)  # rank 0 may train an encoder while the others wait


@dataclass(frozen=True)
class Ranks:
    """This process among its like. They exchange small things over gloo; images go through a shared folder.

    Attributes:
        rank: of this process.
        world_size: how many there are.
        device: where this one computes.
        group: through which several talk.
    """

    rank: int
    world_size: int
    device: torch.device
    group: distributed.ProcessGroup | None = None

    @classmethod
    def of_this_process(cls, device: str | None = None) -> "Ranks":
        """Read what torchrun says, and join the others.

        From here on torch computes in one thread on the CPU: convolutions differ in the last digits with the number of
        threads, and torchrun gives each process one. As many processes as cores use them all.

        Args:
            device: e.g. ``cpu`` or ``cuda``; None takes a GPU where there is one, each rank of a machine its own.
        Raises:
            OptionError: there is no such device, or the others cannot be reached.
        """
        torch.set_num_threads(1)
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        group = _joined(world_size) if world_size > 1 else None
        return cls(int(os.environ.get("RANK", "0")), world_size, _device(device), group)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes what all have found."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This rank's part of a list that all ranks have."""
        return items[self.rank :: self.world_size]

    def gather(self, value: Item) -> list[Item]:
        """`value` of each rank, by rank; every rank has to call this."""
        if self.world_size == 1:
            return [value]
        values: list = [None] * self.world_size
        distributed.all_gather_object(values, value, group=self.group)
        return values

    def wait(self) -> None:
        """Go on when every rank has come here."""
        self.gather(None)

    def leader_first(self) -> Iterator[None]:
        """A loop of one turn, which rank 0 finishes before the others begin: ``for _ in ranks.leader_first(): ...``"""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def leave(self) -> None:
        """Say goodbye to the others, at the very end."""
        if distributed.is_initialized():
            distributed.destroy_process_group()


def merged(parts: Iterable[dict]) -> dict:
    """The union of the ranks' mappings."""
    return {key: value for part in parts for key, value in part.items()}


def _joined(world_size: int) -> distributed.ProcessGroup:
    try:
        if not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=JOINING)
        return distributed.new_group(timeout=PATIENCE, backend="gloo")
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        got = f"says {world_size} processes, and the others cannot be reached ({reason})"
        raise OptionError("WORLD_SIZE", got, "processes that torchrun started") from error


def _device(name: str | None) -> torch.device:
    device = torch_device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type != "cuda":
        return device
    if name is None or ":" not in name:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
