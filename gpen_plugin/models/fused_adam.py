"""Adam's fused kernel: one pass over weights, gradients and moments, where the plain one makes several."""

import torch

KERNEL = {"fused": True, "foreach": None}


def keep_fused(optimizer: torch.optim.Optimizer) -> None:
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
