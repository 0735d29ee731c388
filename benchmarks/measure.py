"""How the benchmarks measure: two arms in turns within one run, and the ratio of each pair.

A busy machine slows both arms of a round, so the ratio is what to read.
"""

import argparse
import contextlib
import functools
import gc
import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from bench_report import Comparison, Plot, report
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

__all__ = [
    "DTYPES",
    "Comparison",
    "Plot",
    "allocated",
    "busy",
    "check_close",
    "clock",
    "compare",
    "flop_of",
    "in_another_process",
    "not_measured",
    "parser",
    "peak_flop",
    "peak_memory",
    "report",
    "tf32",
]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHORTEST = 0.02  # seconds that one measurement takes at least: a shorter call is repeated within it

cudnn = torch.backends.cudnn
cudnn.allow_tf32 = False  # what is held together is held together in all digits of float32; see `clock` for the times


def parser(description: str, *, rounds: int = 5, threads: int = 2) -> argparse.ArgumentParser:
    """The options that every benchmark has; `description` is its docstring, of which the first line is shown."""
    made = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    made.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where networks run")
    made.add_argument("--threads", type=int, default=threads, help="CPU threads")
    made.add_argument("--rounds", type=int, default=rounds, help="rounds, in each of which both arms run once")
    made.add_argument("--json", type=Path, help="file that the figures are written to as well")
    return made


def compare(
    what: str,
    baseline: tuple[str, Callable[[], object]],
    ours: tuple[str, Callable[[], object]],
    *,
    rounds: int,
    device: str = "cpu",
    target: float | None = None,
    limit: float | None = None,
    items: int = 1,
    flop: float | None = None,
    dtype: str = "fp32",
    error: str = "",
    memory: tuple[int, int] | None = None,
    note: str = "",
) -> Comparison:
    """Time both arms in turns, after a round that warms up; each arm is its words and the call. See `Comparison`."""
    arms = (baseline[1], ours[1])
    calls = [_calls_of(arm, device) for arm in arms]
    taken = [[], []]
    for _ in range(rounds):
        for arm, number, seconds in zip(arms, calls, taken, strict=True):
            seconds.append(clock(arm, device, number))
    peak = peak_flop(device, dtype) if flop else 0
    return Comparison(
        what,
        baseline[0],
        ours[0],
        *taken,
        target=target,
        limit=limit,
        items=items,
        flop=flop,
        dtype=dtype,
        peak=peak,
        error=error,
        memory=memory,
        note=note,
    )


@contextlib.contextmanager
def in_another_process(build: Callable[..., Callable[[], object]], *arguments: object) -> Iterator[Callable[[], None]]:
    """A call that runs `build(*arguments)()` in a process of its own, whose memory is as glibc has it by itself.

    A process that has kept freed memory once has it for all calls. `build` runs there once, and is of a module.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, torch.get_num_threads(), build, arguments), daemon=True)
    process.start()
    there.close()

    def call() -> None:
        here.send(None)
        here.recv()

    try:
        here.recv()  # EOFError if `build` failed, whose error is on the screen
        yield call
    finally:
        here.close()  # ends the process
        process.join()


def _serve(connection: Connection, threads: int, build: Callable, arguments: Sequence[object]) -> None:
    torch.set_num_threads(threads)
    call = build(*arguments)
    with contextlib.suppress(EOFError):
        while True:
            connection.send(None)
            connection.recv()
            call()


def not_measured(what: str, why: str, *, target: float | None = None, limit: float | None = None) -> Comparison:
    """A row that says why it has no figures, instead of being absent."""
    return Comparison(what, "", "", (), (), target=target, limit=limit, note=f"not measured: {why}")


def clock(call: Callable[[], object], device: str = "cpu", calls: int = 1) -> float:
    """Seconds of one `call`, the mean of `calls` in a row: by CUDA's events on a GPU, else by the wall's clock.

    A GPU convolves float32 in TF32 meanwhile, as PyTorch lets it by itself: that is what users of either arm have.
    """
    if device == "cuda":
        return _clock_on_gpu(call, calls)
    begun = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begun) / calls


def _clock_on_gpu(call: Callable[[], object], calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    with tf32():
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
    return start.elapsed_time(end) / 1000 / calls


@contextlib.contextmanager
def tf32() -> Iterator[None]:
    """A GPU convolves float32 in TF32 within the block."""
    cudnn.allow_tf32 = True
    try:
        yield
    finally:
        cudnn.allow_tf32 = False


def _calls_of(call: Callable[[], object], device: str) -> int:
    """Warm `call` up, and find how many of it make a measurement."""
    once = clock(call, device, calls=3 if device == "cuda" else 1)
    if device == "cuda" or once < 10 * SHORTEST:  # else the first call's own costs hardly show
        once = clock(call, device)
    return max(1, math.ceil(SHORTEST / once))


def check_close(expected: torch.Tensor, result: torch.Tensor, tolerance: float = 1e-4) -> str:
    """Tell how far `result` is from `expected`, of the same shape; the script ends here if it is further than agreed.

    Args:
        expected: what the baseline gives.
        result: what ours gives.
        tolerance: the largest difference allowed, as a share of the range (highest - lowest) of `expected`.
    """
    if expected.shape != result.shape:
        sys.exit(f"The arms differ in shape: {tuple(expected.shape)} and {tuple(result.shape)}.")
    expected, result = expected.detach().double(), result.detach().double().to(expected.device)
    share = ((expected - result).abs().max() / (expected.max() - expected.min())).item()
    if not share <= tolerance:
        sys.exit(f"The arms differ by {share:.1e} of the range, more than {tolerance:.0e}: nothing was timed.")
    return f"largest difference {share:.1e} of the range"


def flop_of(call: Callable[[], object]) -> float:
    """Floating-point operations of one `call`: of its convolutions and matrix products, a multiply-add as two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


@functools.cache
def peak_flop(device: str, dtype: str) -> float:
    """FLOP/s of a large 3x3 convolution, channels last: the best of some calls, measured once per process."""
    samples, channels = (64, 512) if device == "cuda" else (4, 256)
    x = torch.randn(samples, channels, 64, 64, device=device, dtype=DTYPES[dtype])
    weight = torch.randn(channels, channels, 3, 3, device=device, dtype=DTYPES[dtype])
    x, weight = (each.contiguous(memory_format=torch.channels_last) for each in (x, weight))

    def call() -> torch.Tensor:
        return torch.nn.functional.conv2d(x, weight, padding=1)

    with torch.inference_mode():
        best = min(clock(call, device) for _ in range(10))
    return flop_of(call) / best


def allocated(call: Callable[[], object]) -> int:
    """Peak bytes of one `call` on a GPU, by PyTorch's allocator, above what was there before."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def busy(call: Callable[[], object], device: str = "cuda") -> float:
    """Fraction of one call's time in which `device` runs kernels or copies, by PyTorch's profiler."""
    activity, kind = (
        (ProfilerActivity.CUDA, DeviceType.CUDA) if device == "cuda" else (ProfilerActivity.CPU, DeviceType.CPU)
    )
    with tf32(), profile(activities=[activity]) as profiler:
        begun = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
    spans = [event.time_range for event in profiler.events() if event.device_type == kind]
    return union([(span.start, span.end) for span in spans]) / 1e6 / seconds


def union(spans: Sequence[tuple[float, float]]) -> float:
    """Length that the spans cover together; those that overlap count once."""
    covered, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


_IN_OWN_PROCESS = """
import ctypes, sys, torch
from machine import resident
def mark():
    global resident_at_mark, allocated_at_mark
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, and does not hide what comes
    except AttributeError:
        pass  # not glibc
    try:
        open("/proc/self/clear_refs", "w").write("5")  # the peak starts again from what is resident now
    except OSError:
        pass  # where that is forbidden the peak counts from the start, and the growth is a lower bound
    resident_at_mark, allocated_at_mark = resident("VmHWM"), 0
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        allocated_at_mark = torch.cuda.memory_allocated()
mark()
exec(compile(sys.argv.pop(1), "benchmark", "exec"))
if torch.cuda.is_initialized():
    print(torch.cuda.max_memory_allocated() - allocated_at_mark)
else:
    print(resident("VmHWM") - resident_at_mark)
"""


def peak_memory(code: str, *arguments: object) -> int:
    """Peak bytes of a piece of Python, run in a process of its own.

    Args:
        code: calls ``mark()`` when all is made that shall not count, such as the network's weights; finds `arguments`
            as ``sys.argv[1:]``, and the benchmarks' modules importable.
        arguments: turned into strings.
    Returns:
        How far the resident peak grew beyond the mark; where the code used a GPU, the allocator's peak instead.
    """
    where = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", _IN_OWN_PROCESS, code, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": where}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"Measuring memory failed:\n{done.stderr}")
    return int(done.stdout.split()[-1])
