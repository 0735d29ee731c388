"""GPEN folded for evaluation against the plain reference: one face, or a batch of them, on a CPU or a GPU.

python benchmarks/inference.py --threads 2
python benchmarks/inference.py --device cuda
"""

import argparse
from collections.abc import Callable

import torch
from measure import Comparison, compare, flop_of, held_together, not_measured, parser, peak_flop, report

from gpen_plugin.archs import GPEN
from gpen_plugin.archs.folding import fold
from gpen_plugin.ops import force_implementation

RELEASED = {  # the widths of the released files
    256: {"channel_multiplier": 1, "narrow": 0.5},
    512: {"channel_multiplier": 2, "narrow": 1},
}
REFERENCE, FOLDED = "reference ops", "folded"


def network(size: int) -> GPEN:
    """A GPEN of random weights; its noise speaks, as it does after training."""
    torch.manual_seed(0)
    net = GPEN(size, **RELEASED[size]).eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        if name.endswith("noise_weight"):
            parameter.fill_(0.1)
    return net


def arms(net: GPEN, lq: torch.Tensor, dtype: torch.dtype) -> dict[str, Callable[[], torch.Tensor]]:
    """The reference, and the folded network with the channels last, which shares what it does not fold."""
    folded = fold(net.to(memory_format=torch.channels_last), dtype)
    net.to(memory_format=torch.contiguous_format)
    last = lq.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def reference() -> torch.Tensor:
        with force_implementation("reference"):
            return net(lq)

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return folded(last)

    return {REFERENCE: reference, FOLDED: ours}


def rms(expected: torch.Tensor, result: torch.Tensor) -> str:
    """The error of bfloat16, which no tolerance of the range describes."""
    error = (result - expected).square().mean().sqrt() / expected.std()
    assert error < 0.02 or expected.shape[-1] < 512, f"rms {error:.1%} of the output's standard deviation"
    return f"rms error {error:.2%} of the output's standard deviation"


def face(size: int, options: argparse.Namespace, precision: str) -> Comparison:
    """One face, fp32 or bf16."""
    net, device = network(size).to(options.device), options.device
    lq = torch.rand(1, 3, size, size, device=device) * 2 - 1
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    both = arms(net, lq, dtype)
    results = [arm() for arm in both.values()]
    return compare(
        f"GPEN {size} px, {precision}",
        *both.items(),
        rounds=options.rounds,
        device=device,
        target=3 if precision == "fp32" else 5,
        flop=flop_of(both[FOLDED]),
        dtype=precision,
        error=held_together(*results) if precision == "fp32" else rms(*results),
        note="" if precision == "fp32" else arithmetic(device),
    )


def arithmetic(device: str) -> str:
    """What bfloat16 can bring on this machine at best."""
    gain = peak_flop(device, "bf16") / peak_flop(device, "fp32")
    verdict = "so bf16 cannot be faster than fp32 here" if gain < 1.05 else "which bounds what bf16 can add to fp32"
    return f"A large convolution runs {gain:.2f} times as fast in bf16 as in fp32 on this machine, {verdict}."


def many_faces(batch: int, options: argparse.Namespace) -> Comparison:
    """512 px in bf16 on a GPU, as one graph, for at a batch of 1 launching kernels takes longer than running them."""
    what = f"GPEN 512 px, bf16, batch {batch}, one CUDA graph"
    if options.device != "cuda":
        return not_measured(what, note="Wanted on one H200: " + ("under 3 ms" if batch == 1 else "1,000 faces/s") + ".")
    lq = torch.rand(batch, 3, 512, 512, device="cuda") * 2 - 1
    both = arms(network(512).cuda(), lq, torch.bfloat16)
    graph, given = torch.cuda.CUDAGraph(), both[FOLDED]()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        drawn = both[FOLDED]()
    graph.replay()
    return compare(
        what,
        (REFERENCE, both[REFERENCE]),
        (f"{FOLDED}, replayed", graph.replay),
        rounds=options.rounds,
        device="cuda",
        limit=0.003 if batch == 1 else batch / 1000,
        items=batch,
        flop=flop_of(both[FOLDED]),
        dtype="bf16",
        error=f"{rms(both[REFERENCE](), given)}; {held_together(given, drawn)} from the graph",
    )


LEFT_OUT = (
    "Winograd's F(4x4, 3x3) for the convolutions that keep the resolution, by three matrix products: 2.6 times as fast "
    "as oneDNN at 32 px and 1024 channels, 1.8 at 64 px, 1.7 at 128 px, 1.4 at 256 px, 0.84 at 512 px. It would save an "
    "eighth of the 512 px network, for weights four times as large and differences seven times as large, and ONNX "
    "Runtime could not follow",
    "keeping freed memory (glibc's mallopt), which spares large maps their page faults: the folded 512 px network went "
    "from 1.38 to 1.10 s alone, but gpen-restore with six photographs only from 13.4 to 12.7 s, with 17 % more memory",
    "batches on a CPU: large maps are mapped page by page, so that a batch of 8 takes longer than its faces in turn",
)


def main() -> None:
    """Print one row per size and precision."""
    options = parser(__doc__, rounds=5).parse_args()
    torch.set_num_threads(options.threads)
    rows = [face(size, options, precision) for precision in ("fp32", "bf16") for size in RELEASED]
    rows += [many_faces(batch, options) for batch in (1, 16)]
    report("One face", rows, options, left_out=LEFT_OUT)


if __name__ == "__main__":
    main()
