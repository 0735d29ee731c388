"""The exponential moving average of the weights, and Adam's fused kernel."""

import torch
from torch import nn


@torch.no_grad()
def update_ema(average: nn.Module, source: nn.Module, decay: float) -> None:
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


KERNEL = {"fused": True, "foreach": None}


def restore_fused_state(optimizer: torch.optim.Optimizer) -> None:
    """Make a state that was just loaded fit the fused kernel; a hook for after ``load_state_dict``.

    A state brings along which kernel wrote it, and the layout of its tensors. The plain kernel would take over quietly;
    and the fused one walks through memory as it lies, so that moments which lie in another order than their weights
    (a state of a GPU on a CPU, whose weights have the channels last) would be other weights' moments.

    Args:
        optimizer: an Adam that was built with `KERNEL`.
    """
    for group in optimizer.param_groups:
        group.update(KERNEL)
        for parameter in group["params"]:
            held = optimizer.state.get(parameter, {})
            for name, value in held.items():
                like = value if name == "step" else parameter
                held[name] = torch.empty_like(like, device=parameter.device).copy_(value)
