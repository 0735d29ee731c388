"""How much faster the fast ops are than the reference ops, alone and in a whole network.

    python benchmarks/ops.py --size 256 --device cpu --threads 1

Both are timed in turns within one run, so that a busy machine slows both; read the ratio of the medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from gpen_plugin.archs import GPEN, GPENDiscriminator
from gpen_plugin.ops import HOST_KERNELS, bias_act, fir_kernel, force_implementation, modulated_conv, upfirdn2d


def cases(size: int, device: str, backward: bool) -> dict[str, Callable[[], torch.Tensor]]:
    """What is timed: the ops on features of a quarter of `size`, and both networks on a picture of `size`."""
    torch.manual_seed(0)
    small, latent = size // 4, 512
    x = torch.randn(1, 128, small, small, device=device, requires_grad=backward)
    weight = torch.randn(128, 128, 3, 3, device=device)
    style, bias = torch.randn(1, 128, device=device), torch.randn(128, device=device)
    blur, double = fir_kernel((1, 3, 3, 1)).to(device), fir_kernel((1, 3, 3, 1), gain=4.0).to(device)
    picture = torch.randn(1, 3, size, size, device=device, requires_grad=backward)
    gpen = GPEN(size, num_style_feat=latent, channel_multiplier=1, narrow=0.5).to(device)
    judge = GPENDiscriminator(size, channel_multiplier=1, narrow=0.5).to(device)
    channels_last = GPEN(size, num_style_feat=latent, channel_multiplier=1, narrow=0.5).to(device)
    channels_last = channels_last.to(memory_format=torch.channels_last)
    return {
        f"upfirdn2d, blur, 128 x {small} px": lambda: upfirdn2d(x, blur, pad=(2, 1)),
        f"upfirdn2d, up, 128 x {small} px": lambda: upfirdn2d(x, double, up=2, pad=(2, 1)),
        f"upfirdn2d, down, 128 x {small} px": lambda: upfirdn2d(x, blur, down=2, pad=(1, 1)),
        f"bias_act, 128 x {small} px": lambda: bias_act(x, bias),
        f"modulated_conv, 128 x {small} px": lambda: modulated_conv(x, weight, style),
        f"modulated_conv, up, 128 x {small} px": lambda: modulated_conv(x, weight, style, up=True, kernel=double),
        f"GPEN {size} px": lambda: gpen(picture),
        f"GPEN {size} px, channels last": lambda: channels_last(picture.to(memory_format=torch.channels_last)),
        f"GPENDiscriminator {size} px": lambda: judge(picture),
    }


def seconds(case: Callable[[], torch.Tensor], impl: str, backward: bool) -> float:
    """Time one call, and its backward pass if asked for."""
    with force_implementation(impl), torch.set_grad_enabled(backward):
        _synchronise()
        start = time.perf_counter()
        out = case()
        if backward:
            out.sum().backward()
        _synchronise()
        return time.perf_counter() - start


def compare(case: Callable[[], torch.Tensor], impls: list[str], rounds: int, backward: bool) -> dict[str, float]:
    """The median seconds of each implementation over interleaved rounds, after one that warms up."""
    times = {impl: [] for impl in impls}
    for _ in range(rounds + 1):
        for impl, taken in times.items():
            taken.append(seconds(case, impl, backward))
    return {impl: statistics.median(taken[1:]) for impl, taken in times.items()}


def _synchronise():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Print one line per case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="pictures' height and width")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of which the median is taken")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--backward", action="store_true", help="time forward and backward")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    impls = ["reference", "fast"] + (["host"] if HOST_KERNELS and options.device == "cuda" else [])
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, median of {options.rounds} rounds")
    print(f"{'':42}" + "".join(f"{impl + ' ms':>14}" for impl in impls) + f"{'reference/fast':>18}")
    for name, case in cases(options.size, options.device, options.backward).items():
        medians = compare(case, impls, options.rounds, options.backward)
        figures = "".join(f"{1000 * medians[impl]:14.2f}" for impl in impls)
        print(f"{name:42}{figures}{medians['reference'] / medians['fast']:18.2f}", flush=True)


if __name__ == "__main__":
    main()
