"""GPEN fused for evaluation against the plain reference: one face, or on a GPU a batch of them.

python benchmarks/inference.py --threads 2
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from measure import (
    DTYPES,
    Comparison,
    allocated,
    check_close,
    compare,
    flop_of,
    in_another_process,
    not_measured,
    parser,
    peak_flop,
    report,
    tf32,
)

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.inference import fuse
from gpen_plugin.ops import force_implementation
from gpen_plugin.ops.memory import keep_freed_memory
from gpen_plugin.restore.runtime import MIN_GAIN, gain_of_bf16

RELEASED = {  # the widths of the released files
    256: {"channel_multiplier": 1, "narrow": 0.5},
    512: {"channel_multiplier": 2, "narrow": 1},
}
REFERENCE, FUSED = "reference ops", "fused"
LARGEST_RMS = 0.02  # of bfloat16, as a fraction of the output's standard deviation
# faces at once: a larger batch runs in parts. The reference would need more memory than a GPU has; at 512 px and a
# batch of 64 the largest features have 2 ** 31 elements, which many kernels cannot index
AT_ONCE = {REFERENCE: 16, FUSED: 32}


def network(size: int, narrow: float | None = None) -> GPEN:
    """A GPEN of random weights, with noise as after training, of a released width or of a factor of the channels."""
    torch.manual_seed(0)
    widths = RELEASED[256 if size <= 256 else 512] | ({"narrow": narrow} if narrow else {})
    net = GPEN(size, **widths).eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        if name.endswith("noise_weight"):
            parameter.fill_(0.1)
    return net


@dataclass(frozen=True)
class Form:
    """How a network runs."""

    name: str = FUSED  # or `REFERENCE`, which has neither of the other options
    precision: str = "fp32"
    channels_last: bool = True
    backend: str | None = None  # of torch.compile
    graph: bool = False  # on a GPU, one CUDA graph: at a batch of 1 launching kernels takes longer than running them

    @property
    def words(self) -> str:
        """What differs from the usual form."""
        layout = "" if self.channels_last else "contiguous"
        parts = (self.precision, layout, self.backend, "one CUDA graph" if self.graph else "")
        return ", ".join(part for part in parts if part)

    def call(self, net: GPEN, lq: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Restore the batch `lq`, without the graph. Shares with `net` what is not fused."""
        run, layout, impl = net, torch.contiguous_format, "reference"
        if self.name == FUSED:
            layout, impl = torch.channels_last if self.channels_last else layout, "auto"
            # a compiler needs the traceable form: it has no writes in place, and so is one graph
            run = fuse(net.to(memory_format=layout), DTYPES[self.precision], traceable=self.backend is not None)
            net.to(memory_format=torch.contiguous_format)
        if self.backend is not None:
            torch.compiler.reset()
            run = torch.compile(run, backend=self.backend, dynamic=False, fullgraph=True)
        parts = lq.contiguous(memory_format=layout).split(AT_ONCE[self.name])

        @torch.inference_mode()
        def restore() -> torch.Tensor:
            with force_implementation(impl):
                return run(parts[0]) if len(parts) == 1 else torch.cat([run(part) for part in parts])

        return restore


def arms(net: GPEN, lq: torch.Tensor, precision: str = "fp32") -> dict[str, Callable[[], torch.Tensor]]:
    """The reference, and the fused network with the channels last."""
    return {form.name: form.call(net, lq) for form in (Form(REFERENCE), Form(FUSED, precision))}


def rms(expected: torch.Tensor, result: torch.Tensor) -> str:
    """The error of bfloat16 as text; the script ends if it is above `LARGEST_RMS`."""
    error = ((result - expected).square().mean().sqrt() / expected.std()).item()
    text = f"rms error {error:.2%} of the output's standard deviation"
    if not error <= LARGEST_RMS:
        sys.exit(f"The arms differ: {text}. Nothing was timed.")
    return text


def face(size: int, options: argparse.Namespace, precision: str, *, kept: bool = False) -> Comparison:
    """One face, fp32 or bf16, against the reference as other programs run it: on a CPU in a process of its own.

    With `kept`, for information, the reference keeps freed memory too.
    """
    net, device = network(size).to(options.device), options.device
    lq = torch.rand(1, 3, size, size, device=device) * 2 - 1
    both = arms(net, lq, precision)
    results = [arm() for arm in both.values()]
    elsewhere = in_another_process(reference, size) if device == "cpu" and not kept else None
    with elsewhere or contextlib.nullcontext(both[REFERENCE]) as baseline:
        return compare(
            f"GPEN {size} px, {precision}",
            (f"{REFERENCE}, fp32" + ", freed memory kept" * kept, baseline),
            (f"{FUSED}, {precision}", both[FUSED]),
            rounds=options.rounds,
            device=device,
            target=None if kept else 3 if precision == "fp32" else 5,
            flop=flop_of(both[FUSED]),
            dtype=precision,
            error=check_close(*results) if precision == "fp32" else rms(*results),
            note="" if precision == "fp32" else arithmetic(device),
        )


def reference(size: int) -> Callable[[], torch.Tensor]:
    """One face on the reference ops."""
    return arms(network(size), torch.rand(1, 3, size, size) * 2 - 1)[REFERENCE]


def arithmetic(device: str) -> str:
    """What bfloat16 can bring on this machine at best."""
    gain = peak_flop(device, "bf16") / peak_flop(device, "fp32")
    conclusion = "so bf16 cannot be faster than fp32 here" if gain < 1.05 else "which bounds what bf16 can add to fp32"
    return f"A large convolution runs {gain:.2f} times as fast in bf16 as in fp32 on this machine, {conclusion}."


def many_faces(
    what: str,
    size: int,
    batch: int,
    forms: tuple[Form, Form],  # baseline and ours
    options: argparse.Namespace,
    *,
    target: float | None = None,
    limit: float | None = None,
) -> Comparison:
    """A batch of faces in two forms, with the peak memory of each above the weights on a GPU."""
    device = options.device
    net = network(size, options.narrow).to(device)
    lq = torch.rand(batch, 3, size, size, device=device) * 2 - 1
    calls = [form.call(net, lq) for form in forms]
    expected, result = (call() for call in calls)
    exact = all(form.precision == "fp32" for form in forms)
    error = check_close(expected, result) if exact else rms(expected, result)
    memory = tuple(map(allocated, calls)) if device == "cuda" else None
    for i, form in enumerate(forms):
        if form.graph and device == "cuda":
            calls[i] = recorded(calls[i])
            error += f"; from the graph: {rms(expected, calls[i]())}"
    return compare(
        what,
        *((f"{form.name}, {form.words}", call) for form, call in zip(forms, calls, strict=True)),
        rounds=options.rounds,
        device=device,
        target=target,
        limit=limit,
        items=batch,
        flop=flop_of(Form(FUSED, forms[1].precision).call(net, lq)),
        dtype=forms[1].precision,
        error=error,
        memory=memory,
        note="without the graph, which a CPU does not have" if forms[1].graph and device == "cpu" else "",
    )


def recorded(call: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """The same as one CUDA graph, in TF32 where it computes in float32; each call overwrites the result of the last."""
    with tf32():
        warm_up(call)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call()

    def replay() -> torch.Tensor:
        graph.replay()
        return result

    return replay


def warm_up(call: Callable[[], torch.Tensor]) -> None:
    """Call it some times on a stream of its own, as a graph that is recorded next demands."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)


LEFT_OUT = (  # measured once each; without a date on 2026-11-23, on two cores with AVX-512
    "Winograd's F(4x4, 3x3) for the convolutions that keep the resolution, by three matrix products: alone 2.6 "
    "times as fast as oneDNN at 32 px and 1024 channels, 1.8 at 64 px, 1.7 at 128 px, 1.4 at 256 px, 0.84 at 512 "
    "px; in all, by estimate, an eighth of the 512 px network's time, for weights four times as large, differences "
    "of 6e-6 to 9e-6 of the range in each convolution, and a file that ONNX Runtime would have to run more slowly",
    "weights packed beforehand by PyTorch's private oneDNN operators: the six convolutions of 8 to 32 px of the 256 px "
    "network took 81 instead of 98 ms on one thread, the larger ones as long as before (2026-11-30, AVX2)",
    "huge pages (PyTorch's THP_MEM_ALLOC_ENABLE) on top of kept memory: 512 px took 676 and 689 ms with them, 685 and "
    "699 without, for up to 280 MiB more (2026-11-30, two cores with AVX-512)",
    "batches on a CPU, a part of the faces for each thread: eight faces of the 256 px network took 9 % less time, but "
    "the last bits of a face could depend on the number of threads and on the other faces (2026-11-30, two cores with "
    "AVX-512)",
    "compiling the traceable form by torch.compile with freezing: 52.4 instead of 60.0 ms at 256 px, 658 instead of "
    "684 ms at 512 px; with max-autotune, too, 46.8 instead of 55.8 ms and 661 instead of 683 ms. It compiles for "
    "18 to 47 s in each process, needs a C++ compiler, and its code has a fixed number of threads, while "
    "gpen-restore runs each face of a photograph in threads of its own (2026-11-30, two cores with AVX-512)",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row per size and precision."""
    options = parser(__doc__, rounds=3).parse_args(argv)
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as gpen-restore does
    rows = [face(size, options, "fp32", kept=kept) for size in RELEASED for kept in (False, True)]
    gain = gain_of_bf16(torch.device(options.device))
    why = f"a convolution runs {gain:.2f} times as fast in bf16 as in fp32 on this machine"
    for size in RELEASED:
        slow = gain < MIN_GAIN
        rows.append(not_measured(f"GPEN {size} px, bf16", why) if slow else face(size, options, "bf16"))
    report("One face", rows, options, left_out=LEFT_OUT)


if __name__ == "__main__":
    main()
