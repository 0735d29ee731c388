"""The fast ops against their plain references, alone: forward, and forward and backward.

python benchmarks/ops.py --size 256 --threads 2
"""

import argparse
import functools
from collections.abc import Callable

import torch
from measure import Comparison, check_close, compare, parser, report

from gpen_plugin.ops import HOST_KERNELS, bias_act, fir_kernel, force_implementation, modulated_conv, upfirdn2d

CHANNELS = 128


def cases(side: int, device: str) -> tuple[torch.Tensor, dict[str, Callable[[torch.Tensor], torch.Tensor]]]:
    """The features that every op takes, (1, 128, side, side), contiguous, and the ops by their names."""
    torch.manual_seed(0)
    x = torch.randn(1, CHANNELS, side, side, device=device)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3, device=device)
    style, bias = torch.randn(1, CHANNELS, device=device), torch.randn(CHANNELS, device=device)
    blur, double = (fir_kernel((1, 3, 3, 1), gain).to(device) for gain in (1.0, 4.0))
    return x, {
        "upfirdn2d, blur": lambda x: upfirdn2d(x, blur, pad=(2, 1)),
        "upfirdn2d, up": lambda x: upfirdn2d(x, double, up=2, pad=(2, 1)),
        "upfirdn2d, down": lambda x: upfirdn2d(x, blur, down=2, pad=(1, 1)),
        "bias_act": lambda x: bias_act(x, bias),
        "modulated_conv": lambda x: modulated_conv(x, weight, style),
        "modulated_conv, up": lambda x: modulated_conv(x, weight, style, up=True, kernel=double),
    }


def forward(op: Callable, x: torch.Tensor, impl: str) -> torch.Tensor:
    """The op's result."""
    with torch.inference_mode(), force_implementation(impl):
        return op(x)


def backward(op: Callable, x: torch.Tensor, impl: str) -> torch.Tensor:
    """The gradient of its sum of squares."""
    x = x.detach().requires_grad_()
    with force_implementation(impl):
        return torch.autograd.grad(op(x).square().sum(), x)[0]


def rows(options: argparse.Namespace) -> list[Comparison]:
    """Each op both ways, on the layout that suits it; BasicSR's compiled kernels, too, where they are built."""
    side, found = options.size // 4, []
    x, ops = cases(side, options.device)
    last = x.contiguous(memory_format=torch.channels_last)
    baselines = ["reference", *(["host"] if HOST_KERNELS and options.device == "cuda" else [])]
    for baseline in baselines:
        for name, op in ops.items():
            for what, way in (("forward", forward), ("forward and backward", backward)):
                arms = {
                    f"{baseline}, contiguous": functools.partial(way, op, x, baseline),
                    "fast, channels last": functools.partial(way, op, last, "fast"),
                }
                found.append(
                    compare(
                        f"{name}, {CHANNELS} channels of {side} px, {what}",
                        *arms.items(),
                        rounds=options.rounds,
                        device=options.device,
                        error=check_close(*[arm() for arm in arms.values()]),
                    )
                )
    return found


def main() -> None:
    """Print one row per op and way."""
    command = parser(__doc__, rounds=5)
    command.add_argument("--size", type=int, default=256, help="of the image whose features of a quarter are taken")
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    report("The ops alone", rows(options), options)


if __name__ == "__main__":
    main()
