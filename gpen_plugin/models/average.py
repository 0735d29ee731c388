"""The running average (EMA) of a network's weights."""

import torch
from torch import nn


@torch.no_grad()
def move_average(average: nn.Module, source: nn.Module, decay: float) -> None:
    """Move the average towards the network: parameters by 1 - decay, buffers altogether.

    Args:
        average: changed in place; of the same class and size as `source`.
        source: not wrapped for several GPUs.
        decay: 0 copies.
    """
    parameters, buffers = dict(source.named_parameters()), dict(source.named_buffers())
    names, averaged = zip(*average.named_parameters(), strict=True)
    torch._foreach_lerp_(averaged, [parameters[name] for name in names], 1 - decay)
    kept = dict(average.named_buffers())
    if kept:
        torch._foreach_copy_([*kept.values()], [buffers[name] for name in kept])
