"""How much memory one face takes: fused against the plain reference, each in a process of its own.

python benchmarks/memory.py --threads 2
"""

import argparse

import torch
from inference import FUSED, REFERENCE, arms
from measure import Comparison, check_close, parser, peak_memory, report
from torch import nn

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.inference import fuse

TARGET = 2
SIZES = (512, 1024)
HELD_TOGETHER_AT = 256  # pixels: the arms' agreement does not depend on the size, their time does

RUN = """
import sys, torch
from inference import arms
from memory import network
arm, size, device, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
torch.set_num_threads(threads)
run = arms(network(size).to(device), torch.zeros(1, 3, size, size, device=device))[arm]
mark()
run()
"""


def network(size: int) -> GPEN:
    """A GPEN of the published width (channel_multiplier 2), with random weights."""
    torch.manual_seed(0)
    return GPEN(size, channel_multiplier=2).eval().requires_grad_(False)


def working_set(arm: str, size: int, device: str, threads: int) -> int:
    """Peak bytes that one face of `size` takes above the weights; `arm` is ``REFERENCE`` or ``FUSED``."""
    return peak_memory(RUN, arm, size, device, threads)


def weights(net: nn.Module) -> int:
    """Bytes of all that a network holds, each tensor once."""
    held = {tensor.data_ptr(): tensor.nbytes for tensor in (*net.parameters(), *net.buffers())}
    return sum(held.values())


def face(size: int, error: str, options: argparse.Namespace) -> list[Comparison]:
    """What one face takes, above the weights and with them."""
    above = tuple(working_set(arm, size, options.device, options.threads) for arm in (REFERENCE, FUSED))
    net = network(size)
    held = (weights(net), weights(fuse(net)))
    whole = tuple(own + more for own, more in zip(held, above, strict=True))
    what = f"peak memory of one face, GPEN {size} px, channel_multiplier 2, fp32"
    note = f"Weights: {held[0] / 2**20:.0f} MiB, fused {held[1] / 2**20:.0f} MiB."
    return [
        Comparison(f"{what}, {name}", REFERENCE, FUSED, (), (), memory=memory, memory_target=TARGET, **more)
        for name, memory, more in (
            ("above the weights", above, {"error": error}),
            ("with the weights", whole, {"note": note}),
        )
    ]


def main() -> None:
    """Measure each size and tell."""
    options = parser(__doc__, rounds=1).parse_args()
    torch.set_num_threads(options.threads)
    lq = torch.rand(1, 3, HELD_TOGETHER_AT, HELD_TOGETHER_AT, device=options.device) * 2 - 1
    both = arms(network(HELD_TOGETHER_AT).to(options.device), lq)
    error = f"{check_close(*(arm() for arm in both.values()))}, at {HELD_TOGETHER_AT} px"
    rows = [row for size in SIZES for row in face(size, error, options)]
    report("Memory", rows, options)


if __name__ == "__main__":
    main()
