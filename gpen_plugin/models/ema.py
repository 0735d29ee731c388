"""The exponential moving average of the weights, and Adam's fused kernel."""

import torch
from torch import nn


@torch.no_grad()
def update_ema(average: nn.Module, source: nn.Module, decay: float) -> None:
    """In place: parameters = decay * average + (1 - decay) * source, buffers are copied. Networks without DDP."""
    parameters, buffers = dict(source.named_parameters()), dict(source.named_buffers())
    names, averaged = zip(*average.named_parameters(), strict=True)
    torch._foreach_lerp_(averaged, [parameters[name] for name in names], 1 - decay)
    averaged_buffers = dict(average.named_buffers())
    if averaged_buffers:
        torch._foreach_copy_([*averaged_buffers.values()], [buffers[name] for name in averaged_buffers])


KERNEL = {"fused": True, "foreach": None}


def restore_fused_state(optimizer: torch.optim.Optimizer) -> None:
    """Make a loaded state of an Adam built with `KERNEL` fit the fused kernel; a hook after ``load_state_dict``."""
    # A state contains the kernel that wrote it and the memory layout of its tensors. With another kernel's flag the
    # fused kernel would be replaced silently; and because it reads memory linearly, moments in another layout than
    # their weights (a GPU's state on a CPU with channels last) would be applied to the wrong weights.
    for group in optimizer.param_groups:
        group.update(KERNEL)
        for parameter in group["params"]:
            held = optimizer.state.get(parameter, {})
            for name, value in held.items():
                like = value if name == "step" else parameter
                held[name] = torch.empty_like(like, device=parameter.device).copy_(value)
