"""How cost grows: latency and memory over resolution, throughput over batch and over the workers that degrade faces.

    python benchmarks/growth.py --threads 2

Each has a plot. The lines under them are computed from what was measured, causes included: the share of the CPU's
time that the system takes, page faults, the rate of arithmetic.
"""

import argparse
import io
import math
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import torch
from degradation import BATCH, throughput
from face_images import SIZE, lmdb_folder
from inference import FUSED, REFERENCE, arms
from inference import network as released
from matplotlib.figure import Figure
from measure import Plot, clock, flop_of, parser, report
from memory import network, weights, working_set

from gpen_plugin.archs.layers import channels_of
from gpen_plugin.ops.memory import keep_freed_memory

SIZES = (64, 128, 256, 512, 1024)
BATCHES = (1, 2, 4, 8, 16)
WORKERS = (0, 1, 2, 4)
STEP = 0.1  # seconds of a training step on a GPU
SMALLEST = 16  # pixels; features weigh nothing there
PATIENCE = 2.0  # seconds: a slower call of the reference is not measured at the next size
MIB = 2**20
FOLDER = Path(__file__).parent / "plots"
COLORS = {"reference ops": "tab:gray"}  # gray for the baseline


@dataclass(frozen=True)
class Cost:
    """What one call took.

    Attributes:
        seconds: the median of some calls.
        system: the share of the process's CPU time that the system took.
        faults: pages that had to be brought in, per call.
    """

    seconds: float
    system: float
    faults: float


def cost(call: Callable[[], object], device: str, rounds: int) -> Cost:
    """Measure one call, after one that warms up."""
    call()
    before = resource.getrusage(resource.RUSAGE_SELF)
    seconds = statistics.median(clock(call, device) for _ in range(rounds))
    after = resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Cost(seconds, system / max(user + system, 1e-9), (after.ru_minflt - before.ru_minflt) / rounds)


def bend(x: Sequence[float], y: Sequence[float]) -> int:
    """Where a curve changes its slope most, as an index from 1: both axes are logarithmic."""
    slopes = [math.log(y[i + 1] / y[i]) / math.log(x[i + 1] / x[i]) for i in range(len(x) - 1)]
    return max(range(1, len(slopes)), key=lambda i: abs(slopes[i] - slopes[i - 1]))


def latency(options: argparse.Namespace) -> Plot:
    """Seconds of one face over its resolution, and what it is that bends the curve.

    From here on the process keeps the memory that it frees, as the commands do.
    """
    costs, flops, slow = {REFERENCE: [], FUSED: []}, [], False
    if options.device == "cpu":
        lq = torch.rand(1, 3, SIZES[-1], SIZES[-1]) * 2 - 1
        returned = cost(arms(network(SIZES[-1]), lq)[FUSED], options.device, options.rounds)
        keep_freed_memory()
    for size in SIZES:
        lq = torch.rand(1, 3, size, size, device=options.device) * 2 - 1
        both = arms(network(size).to(options.device), lq)
        flops.append(flop_of(both[FUSED]))
        costs[FUSED].append(cost(both[FUSED], options.device, options.rounds))
        if not slow:
            costs[REFERENCE].append(cost(both[REFERENCE], options.device, 1))
            slow = costs[REFERENCE][-1].seconds > PATIENCE
    seconds = {arm: [each.seconds for each in found] for arm, found in costs.items()}
    file = plot_curves("latency", "One face, fp32", ("resolution (px)", SIZES), "latency (s)", seconds)
    line = _rates_line(seconds[FUSED], flops)
    if options.device == "cpu":
        line += _mapping_line(returned, costs[FUSED][-1])
    return Plot(file, line)


def _rates_line(seconds: Sequence[float], flops: Sequence[float]) -> str:
    rates = [flop / each / 1e9 for flop, each in zip(flops, seconds, strict=True)]
    best = max(range(len(SIZES)), key=rates.__getitem__)
    first, top, end = (f"{rates[i]:.0f} GFLOP/s at {SIZES[i]} px" for i in (0, best, -1))
    return (
        f"It bends most at {SIZES[bend(SIZES, seconds)]} px. From size to size, a face takes {_factors(seconds)} times "
        f"as long, and {_factors(flops)} times the arithmetic; the rest is its rate: {first}, where "
        f"{weights(network(SIZES[0])) / MIB:.0f} MiB of weights are read for {flops[0] / 1e9:.0f} GFLOP; {top} at "
        f"best; {end}."
    )


def _factors(y: Sequence[float]) -> str:
    """How many times as large each is as the one before."""
    *most, last = (f"{y[i + 1] / y[i]:.1f}" for i in range(len(y) - 1))
    return f"{', '.join(most)} and {last}"


def _mapping_line(returned: Cost, kept: Cost) -> str:
    """What fresh memory costs at the largest size: where what is freed goes back to the system, and where it stays."""
    return (
        f" All this keeps freed memory, as the commands do. Where it goes back to the system, {SIZES[-1]} px takes "
        f"{returned.seconds / kept.seconds:.2f} times as long: {returned.system:.0%} of the CPU's time is the system's "
        f"({kept.system:.0%} if kept), with {returned.faults:,.0f} page faults a call ({kept.faults:,.0f})."
    )


def batches(options: argparse.Namespace) -> Plot:
    """Faces per second over the batch, at 256 px and the released width."""
    net, costs = released(256).to(options.device), []
    for batch in BATCHES:
        lq = torch.rand(batch, 3, 256, 256, device=options.device) * 2 - 1
        costs.append(cost(arms(net, lq)[FUSED], options.device, options.rounds))
    rates = [batch / each.seconds for batch, each in zip(BATCHES, costs, strict=True)]
    axis = ("batch (faces)", BATCHES)
    file = plot_curves(
        "batch", "GPEN 256 px, released width, fp32, fused", axis, "faces per second", {FUSED: rates}, log2="x"
    )
    best = max(range(len(BATCHES)), key=rates.__getitem__)
    rates_text = ", ".join(f"{rate:.2f} at {batch}" for rate, batch in zip(rates, BATCHES, strict=True))
    line = f"Faces a second: {rates_text}; most at {BATCHES[best]}."
    largest = channels_of(256, 1, 0.5) * 2 * 256**2 * 4 / MIB  # features and noise of the last block, float32
    line += (
        f" A batch reads the {weights(net) / MIB:.0f} MiB of weights once for all its faces; the largest features "
        f"take {largest:.0f} MiB a face. The system takes {costs[0].system:.0%} of the CPU's time at {BATCHES[0]} and "
        f"{costs[-1].system:.0%} at {BATCHES[-1]}."
    )
    return Plot(file, line)


def workers(seconds: float = 3.0) -> Plot:
    """Training pairs per second over the workers of torch's loader, and how many cores they kept busy."""
    cv2.setNumThreads(1)  # in this process; workers have it from here
    lmdb_folder("bmp")  # made before any clock runs
    rates, busy = {"float32": [], "uint8": []}, []
    for number in WORKERS:
        begun, before = time.perf_counter(), _cpu_seconds()
        rates["float32"].append(throughput(number, seconds))
        busy.append((_cpu_seconds() - before) / (time.perf_counter() - begun))
        rates["uint8"].append(throughput(number, seconds, uint8=True))
    axis = ("workers", WORKERS)
    file = plot_curves("workers", f"Training pairs of {SIZE} px, Eq. 4", axis, "pairs per second", rates, log2="")
    cores = ", ".join(f"{used:.1f} with {number}" for used, number in zip(busy, WORKERS, strict=True))
    handed_over = BATCH * 2 * 3 * SIZE**2 * 4 / MIB  # lq and gt, float32
    one = {name: values[WORKERS.index(1)] for name, values in rates.items()}
    return Plot(
        file,
        f"{_pairs_line('float32', rates['float32'])} Of {os.cpu_count()} cores, {cores} were busy, the start of the "
        f"workers included: where all are, more workers share what is there. A worker hands over "
        f"{handed_over:.0f} MiB per batch of {BATCH} in shared memory, which the process itself need not; with `uint8` "
        f"it is a quarter. {_pairs_line('uint8', rates['uint8'])} For a GPU that takes {STEP:g} s per step, one worker "
        f"makes {STEP * one['float32']:.1f} pairs a step, with `uint8` {STEP * one['uint8']:.1f}; at {2 * SIZE} px, by "
        f"the number of pixels, {STEP * one['float32'] / 4:.1f} and {STEP * one['uint8'] / 4:.1f}.",
    )


def _pairs_line(name: str, rates: Sequence[float]) -> str:
    text = ", ".join(f"{rate:.0f} with {number}" for rate, number in zip(rates, WORKERS, strict=True))
    best = max(range(len(WORKERS)), key=rates.__getitem__)
    return f"Pairs a second, {name}: {text}; most with {WORKERS[best]} workers."


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def memory(options: argparse.Namespace) -> Plot:
    """Peak memory of one face above the weights, over its resolution; the reference's up to 512 px."""
    peaks = {
        arm: [working_set(arm, size, options.device, options.threads) / MIB for size in sizes]
        for arm, sizes in {REFERENCE: SIZES[:-1], FUSED: SIZES}.items()
    }
    axis = ("resolution (px)", SIZES)
    file = plot_curves("memory", "One face, fp32, above the weights", axis, "peak memory (MiB)", peaks)
    own, at, last = peaks[FUSED], bend(SIZES, peaks[FUSED]), len(SIZES) - 1
    fixed = working_set(FUSED, SMALLEST, options.device, options.threads) / MIB
    maps = [channels_of(size, 2, 1) * 2 * size**2 * 4 / MIB for size in SIZES]  # of the last block, float32
    rises = (own[at] / own[0], own[last] / own[at])
    above = [f"{(own[i] - fixed) / maps[i]:.1f} times {maps[i]:.0f} MiB at {SIZES[i]} px" for i in (0, last)]
    return Plot(
        file,
        f"It bends at {SIZES[at]} px: {rises[0]:.1f}-fold from {SIZES[0]} px, then {rises[1]:.1f}-fold to "
        f"{SIZES[last]} px. At {SMALLEST} px, where features weigh nothing, {fixed:.0f} MiB are needed already; what "
        f"comes on top goes with the largest features: {above[0]}, {above[1]}.",
    )


def plot_curves(
    name: str,  # of the file, without the suffix
    title: str,
    x: tuple[str, Sequence[float]],  # label with unit, and values
    y: str,  # label with unit
    curves: Mapping[str, Sequence[float]],  # values by name; a shorter curve ends early
    *,
    log2: str = "xy",  # axes with a logarithmic scale; the others start at 0
) -> str:
    """Write one plot to the folder of plots, and return its path from the folder of the benchmarks."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(5.6, 3.4), dpi=100, layout="constrained")
        axes = figure.add_subplot()
        for label, heights in curves.items():
            axes.plot(x[1][: len(heights)], heights, marker="o", label=label, color=COLORS.get(label))
        axes.set(title=title, xlabel=x[0], ylabel=y)
        if "x" in log2:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
        if "y" in log2:
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter("{x:g}")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xticks(x[1])
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend()
        png = io.BytesIO()
        figure.savefig(png, format="png", metadata={"Software": None})
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.png"
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(png.getvalue())
    temporary.replace(path)
    return f"{FOLDER.name}/{path.name}"


def main() -> None:
    """Measure, plot and report. Latency changes how this process allocates memory, so workers come before it."""
    options = parser(__doc__, rounds=2).parse_args()
    torch.set_num_threads(options.threads)
    from_workers, of_memory = workers(), memory(options)
    report("How cost grows", (), options, plots=[latency(options), batches(options), of_memory, from_workers])


if __name__ == "__main__":
    main()
