"""torch.distributed where it is initialized, else one process alone. Every rank has to make each of these calls."""

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")


def all_gather_object(value: Item, group: object = None) -> list[Item]:
    """`value` of each rank, by rank."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return [value]
    values: list = [None] * dist.get_world_size(group)
    dist.all_gather_object(values, value, group=group)
    return values


def broadcast_object(value: Item) -> Item:
    """The value of rank 0."""
    import torch.distributed as dist

    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values)
    return values[0]


def all_reduce_max(value: int) -> int:
    """The largest value of the ranks."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return value
    import torch

    tensor = torch.tensor(value, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def all_reduce_mean(value: "torch.Tensor") -> "torch.Tensor":
    """The mean of a tensor over the ranks."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return value
    value = value / dist.get_world_size()
    dist.all_reduce(value)
    return value
