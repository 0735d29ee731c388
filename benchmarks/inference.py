"""GPEN fused for evaluation against the plain reference: one face, or a batch of them, on a CPU or a GPU.

python benchmarks/inference.py --threads 2
python benchmarks/inference.py --device cuda
"""

import argparse
import sys
from collections.abc import Callable

import torch
from measure import DTYPES, Comparison, check_close, compare, flop_of, not_measured, parser, peak_flop, report

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.inference import fuse
from gpen_plugin.ops import force_implementation

RELEASED = {  # the widths of the released files
    256: {"channel_multiplier": 1, "narrow": 0.5},
    512: {"channel_multiplier": 2, "narrow": 1},
}
REFERENCE, FUSED = "reference ops", "fused"
LARGEST_RMS = 0.02  # of bfloat16, as a fraction of the output's standard deviation


def network(size: int) -> GPEN:
    """A GPEN of random weights, with noise as after training."""
    torch.manual_seed(0)
    net = GPEN(size, **RELEASED[size]).eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        if name.endswith("noise_weight"):
            parameter.fill_(0.1)
    return net


def arms(net: GPEN, lq: torch.Tensor, dtype: torch.dtype) -> dict[str, Callable[[], torch.Tensor]]:
    """The reference, and the fused network with the channels last, which shares what it does not fuse."""
    fused = fuse(net.to(memory_format=torch.channels_last), dtype)
    net.to(memory_format=torch.contiguous_format)
    last = lq.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def reference() -> torch.Tensor:
        with force_implementation("reference"):
            return net(lq)

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return fused(last)

    return {REFERENCE: reference, FUSED: ours}


def rms(expected: torch.Tensor, result: torch.Tensor) -> str:
    """The error of bfloat16 as text; the script ends if it is above `LARGEST_RMS`."""
    error = ((result - expected).square().mean().sqrt() / expected.std()).item()
    text = f"rms error {error:.2%} of the output's standard deviation"
    if not error <= LARGEST_RMS:
        sys.exit(f"The arms differ: {text}. Nothing was timed.")
    return text


def face(size: int, options: argparse.Namespace, precision: str) -> Comparison:
    """One face, fp32 or bf16."""
    net, device = network(size).to(options.device), options.device
    lq = torch.rand(1, 3, size, size, device=device) * 2 - 1
    both = arms(net, lq, DTYPES[precision])
    results = [arm() for arm in both.values()]
    return compare(
        f"GPEN {size} px, {precision}",
        (f"{REFERENCE}, fp32", both[REFERENCE]),
        (f"{FUSED}, {precision}", both[FUSED]),
        rounds=options.rounds,
        device=device,
        target=3 if precision == "fp32" else 5,
        flop=flop_of(both[FUSED]),
        dtype=precision,
        error=check_close(*results) if precision == "fp32" else rms(*results),
        note="" if precision == "fp32" else arithmetic(device),
    )


def arithmetic(device: str) -> str:
    """What bfloat16 can bring on this machine at best."""
    gain = peak_flop(device, "bf16") / peak_flop(device, "fp32")
    conclusion = "so bf16 cannot be faster than fp32 here" if gain < 1.05 else "which bounds what bf16 can add to fp32"
    return f"A large convolution runs {gain:.2f} times as fast in bf16 as in fp32 on this machine, {conclusion}."


def many_faces(batch: int, options: argparse.Namespace) -> Comparison:
    """512 px in bf16 on a GPU, as one graph, for at a batch of 1 launching kernels takes longer than running them."""
    what = f"GPEN 512 px on one H200, bf16, batch {batch}, one CUDA graph"
    limit = 0.003 if batch == 1 else batch / 1000
    if options.device != "cuda":
        return not_measured(what, limit=limit)
    lq = torch.rand(batch, 3, 512, 512, device="cuda") * 2 - 1
    both = arms(network(512).cuda(), lq, torch.bfloat16)
    graph, given = torch.cuda.CUDAGraph(), warmed_up(both[FUSED])
    with torch.cuda.graph(graph):
        drawn = both[FUSED]()
    graph.replay()
    return compare(
        what,
        (f"{REFERENCE}, fp32", both[REFERENCE]),
        (f"{FUSED}, bf16, replayed", graph.replay),
        rounds=options.rounds,
        device="cuda",
        limit=limit,
        items=batch,
        flop=flop_of(both[FUSED]),
        dtype="bf16",
        error=f"{rms(both[REFERENCE](), given)}; {check_close(given, drawn)} from the graph",
    )


def warmed_up(call: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Call it some times on a stream of its own, as a graph that is recorded next demands, for its result."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            result = call()
    torch.cuda.current_stream().wait_stream(stream)
    return result


LEFT_OUT = (  # measured once each, on 2026-11-23, on two cores with AVX-512
    "Winograd's F(4x4, 3x3) for the convolutions that keep the resolution, by three matrix products: alone 2.6 "
    "times as fast as oneDNN at 32 px and 1024 channels, 1.8 at 64 px, 1.7 at 128 px, 1.4 at 256 px, 0.84 at 512 "
    "px; in all, by estimate, an eighth of the 512 px network's time, for weights four times as large, differences "
    "of 6e-6 to 9e-6 of the range in each convolution, and a file that ONNX Runtime would have to run more slowly",
    "keeping freed memory (glibc's mallopt), which spares large maps their page faults: the fused 512 px network went "
    "from 1.38 to 1.10 s alone, but gpen-restore with six photographs only from 13.4 to 12.7 s, with 17 % more memory",
    "batches on a CPU: large maps are mapped page by page, so that a batch of 8 takes longer than its faces in turn",
)


def main() -> None:
    """Print one row per size and precision."""
    options = parser(__doc__, rounds=3).parse_args()
    torch.set_num_threads(options.threads)
    rows = [face(size, options, precision) for precision in ("fp32", "bf16") for size in RELEASED]
    rows += [many_faces(batch, options) for batch in (1, 16)]
    report("One face", rows, options, left_out=LEFT_OUT)


if __name__ == "__main__":
    main()
