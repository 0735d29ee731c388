"""What an option file asks of the machine."""

from collections.abc import Iterator, Mapping

import torch

from gpen_plugin.errors import GPENError, OptionError


def devices(opt: Mapping, *, alone_only: bool) -> Iterator[GPENError]:
    """GPUs that are not there, cannot do what is wanted, or would be used in a way that does not work.

    Args:
        opt: options as the host parsed them.
        alone_only: whether each GPU needs a process of its own.
    """
    train, number = opt.get("train") or {}, opt.get("num_gpu")
    if not isinstance(number, int):
        return  # the host has put a number in place of auto
    if number > torch.cuda.device_count():
        held = f"at most {torch.cuda.device_count()}, the GPUs that PyTorch sees"
        yield OptionError("num_gpu", f"got {number}", held, "Use auto, or 0 for the CPU.")
        return
    # without a launcher the host wraps networks in DataParallel, through which no path length and no compiled code goes
    alone = number > 1 and opt["is_train"] and not opt.get("dist")
    if alone and (alone_only or train.get("compile")):
        way_out = f"Start with torchrun --nproc_per_node={number} and --launcher pytorch, or use 1."
        yield OptionError("num_gpu", f"got {number} without a launcher", "one process per GPU", way_out)
    if number and train.get("precision") == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        came = f"got bf16, which {torch.cuda.get_device_name()} cannot do"
        yield OptionError("train:precision", came, "fp32 on this GPU", "Set it to fp32.")
