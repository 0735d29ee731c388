"""Every figure of one GPU in one run of at most eight minutes, the most important ones first.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --rows "batch 16" photograph
    python benchmarks/gpu.py --device cpu --size 32 --narrow 0.0625 --width 800 --compile eager --json FILE

Writes benchmarks/gpu.json after each row, and `make bench` makes a section of RESULTS.md of it. Rows run in another
process, which is replaced after a failure and killed at a row's time limit: no row depends on another. The last line is
a dry run without a GPU, in which rows that need one say so.
"""

import argparse
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import group_photograph
import onnx_runtime
import torch
import training_step
from bench_report import Comparison, describe, save
from inference import REFERENCE, Form, many_faces, network
from machine import facts
from measure import not_measured, parser
from training_step import Setting

from gpen_plugin.nets.onnx_providers import PROVIDERS

TITLE = "On a GPU"
BUDGET = 480  # seconds for all rows
START = 90  # seconds for a process to start: imports, and the GPU's driver
FILE = Path(__file__).with_name("gpu.json")
PLAIN = Form(REFERENCE)


@dataclass(frozen=True)
class Row:
    """One or more comparisons that are measured together, named as the first of them."""

    name: str
    measure: Callable[..., Sequence[Comparison] | Comparison]  # called with the options and the goal
    seconds: float  # time limit
    goal: Mapping[str, float] = field(default_factory=dict)  # target or limit
    needs_gpu: bool = False

    def left_out(self, why: str) -> list[Comparison]:
        """The row without figures."""
        return [not_measured(self.name, why, **self.goal)]


def rows(options: argparse.Namespace) -> list[Row]:
    """All rows, the most important ones first; `options.size` is the main resolution."""
    size, half, double = options.size, options.size // 2, 2 * options.size
    bf16, fp32 = Form(precision="bf16", graph=True), Form(graph=True)
    eager, contiguous = Form(precision="bf16"), Form(precision="bf16", channels_last=False, graph=True)
    compiled = Form(precision="bf16", backend=options.compile, graph=True)
    return [
        faces(size, 1, bf16, limit=0.003),
        faces(size, 16, bf16, limit=0.016),
        training(Setting(size, "bf16", 4, options.narrow), 90),
        Row(f"30 faces of a photograph, GPEN {size} px", group, 60, {"target": 4}),
        faces(size, 64, bf16),
        faces(size, 4, bf16),
        Row(f"photographs from file to file, GPEN {size} px", whole_path, 90),
        training(Setting(double, "bf16", None, options.narrow), 120),
        faces(size, 1, fp32),
        faces(size, 16, fp32),
        faces(half, 1, bf16),
        faces(double, 1, bf16),
        faces(size, 1, bf16, eager, needs_gpu=True),
        faces(size, 16, bf16, eager, needs_gpu=True),
        faces(size, 1, bf16, contiguous),
        faces(size, 16, bf16, contiguous),
        faces(size, 16, fp32, Form(channels_last=False, graph=True)),
        training_memory(Setting(size, "bf16", None, options.narrow)),
        training_memory(Setting(double, "bf16", None, options.narrow)),
        faces(size, 1, compiled, bf16, seconds=120),
        faces(size, 16, compiled, bf16, seconds=120),
        runtime(size, "cuda", 60),
        runtime(size, "tensorrt", 240),
    ]


def faces(
    size: int,
    batch: int,
    ours: Form,
    baseline: Form = PLAIN,
    *,
    seconds: float = 60,
    needs_gpu: bool = False,
    **goal: float,
) -> Row:
    """Inference of a batch."""
    against = "" if baseline == PLAIN else f", against {baseline.words}"
    what = f"GPEN {size} px, batch {batch}, {ours.words}{against}"
    return Row(what, partial(many_faces, what, size, batch, (baseline, ours)), seconds, goal, needs_gpu)


def training(setting: Setting, seconds: float) -> Row:
    """A step of fine-tuning."""
    goal = {} if setting.target is None else {"target": setting.target}
    return Row(setting.what, lambda options, **_: training_step.comparisons(setting, options), seconds, goal)


def training_memory(setting: Setting) -> Row:
    """Peak memory of a step of fine-tuning, in processes of its own; on a CPU training_step.py measures it."""
    what = f"peak memory of {setting.what}, above the networks"

    def measure(options: argparse.Namespace) -> Comparison:
        memory = training_step.memory_of(setting, options)
        return Comparison(what, training_step.PLAIN, f"GPENModel, {setting.precision}", (), (), memory=memory)

    return Row(what, measure, 90, needs_gpu=True)


def group(options: argparse.Namespace, target: float) -> Comparison:
    """All faces of a photograph at once, against one by one."""
    restorer = group_photograph.make_restorer(options.device, options.size, options.narrow)
    return group_photograph.at_once(restorer, group_photograph.photograph(options.width), options, target)


def whole_path(options: argparse.Namespace) -> Comparison:
    """Photographs from file to file, and how long the GPU waits."""
    restorer = group_photograph.make_restorer(options.device, options.size, options.narrow)
    return group_photograph.whole_path(restorer, group_photograph.photograph(options.width)[0], options)


def runtime(size: int, provider: str, seconds: float) -> Row:
    """The exported file in onnxruntime."""
    what = f"GPEN {size} px in onnxruntime, provider {provider}"

    def measure(options: argparse.Namespace) -> list[Comparison]:
        import onnxruntime

        if f"{PROVIDERS[provider].name}ExecutionProvider" not in onnxruntime.get_available_providers():
            return [not_measured(what, "the installed onnxruntime does not have this provider")]
        given = argparse.Namespace(**{**vars(options), "provider": provider})
        with TemporaryDirectory() as folder:
            return onnx_runtime.face(what, network(size, options.narrow), given, Path(folder))

    return Row(what, measure, seconds, needs_gpu=True)


def outcome(row: Row, options: argparse.Namespace) -> tuple[list[Comparison], bool]:
    """The row's comparisons and whether it failed."""
    if row.needs_gpu and options.device != "cuda":
        return row.left_out("needs a GPU"), False
    try:
        found = row.measure(options, **row.goal)
    except (Exception, SystemExit) as error:  # of any kind: the other rows go on
        first = (str(error).strip().splitlines() or [""])[0]
        return row.left_out(f"{type(error).__name__}: {first}"), True
    gc.collect()
    if options.device == "cuda":
        torch.cuda.empty_cache()
    return [found] if isinstance(found, Comparison) else list(found), False


def work(connection: Connection, options: argparse.Namespace) -> None:
    """Measure rows, by their numbers, as long as they are asked for."""
    os.setpgrp()  # what a row starts is killed with it
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    numbered = rows(options)
    if options.device == "cuda":
        torch.zeros(1, device="cuda")
    connection.send(facts())
    while True:
        try:
            number = connection.recv()
        except EOFError:
            return
        connection.send(outcome(numbered[number], options))


class Worker:
    """A process that measures rows."""

    def __init__(self, options: argparse.Namespace, target: Callable = work):
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._connection, other = context.Pipe()
        self._process = context.Process(target=target, args=(other, options))
        self._process.start()
        other.close()

    def start(self, seconds: float) -> dict[str, str] | str:
        """The machine's facts, or why it did not start."""
        return self._answer(seconds, f"it did not start within {seconds:.3g} s")

    def measure(self, number: int, seconds: float) -> tuple[list[Comparison], bool] | str:
        """`outcome` of a row, or why there is none."""
        try:
            self._connection.send(number)
        except OSError:
            return "its process ended"
        return self._answer(seconds, f"it was stopped after {seconds:.3g} s")

    def _answer(self, seconds: float, late: str) -> object:
        try:
            return self._connection.recv() if self._connection.poll(seconds) else late
        except (EOFError, OSError):
            return "its process ended"

    def end(self) -> None:
        """Kill it with all that it started."""
        self._connection.close()
        for kill in (lambda: os.killpg(self._process.pid, signal.SIGKILL), self._process.kill):
            try:
                kill()
            except ProcessLookupError:  # it has ended, or has no group yet
                continue
        self._process.join()


def run(options: argparse.Namespace, chosen: Sequence[Row], target: Callable = work) -> list[Comparison]:
    """Measure the chosen rows within the budget, and save what there is after each."""
    end, worker, found, machine = time.monotonic() + options.budget, None, [], {}
    numbers = {row.name: number for number, row in enumerate(rows(options))}
    try:
        for row in chosen:
            left = end - time.monotonic()
            answer: object = f"the {options.budget:.0f} s were over"
            if left > 0 and worker is None:
                worker = Worker(options, target)
                answer = worker.start(min(START, left))
                if isinstance(answer, dict):
                    machine = answer
                left = end - time.monotonic() if isinstance(answer, dict) else 0
            if left > 0:
                answer = worker.measure(numbers[row.name], min(row.seconds, left))
            comparisons, failed = (row.left_out(answer), True) if isinstance(answer, str) else answer
            if failed and worker is not None:
                worker.end()
                worker = None
            found += comparisons
            print("\n".join(line for each in comparisons for line in ["", *describe(each)]), flush=True)
            save(TITLE, found, options, machine)
    finally:
        if worker is not None:
            worker.end()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit status 1 if a row has no figures although there is a GPU."""
    made = parser(__doc__, rounds=5, threads=os.cpu_count() or 1)
    made.set_defaults(device="cuda", json=FILE)
    made.add_argument("--size", type=int, default=512, help="main resolution; half and twice of it are measured once")
    made.add_argument("--narrow", type=float, help="factor of the channels; default: that of the released networks")
    made.add_argument("--width", type=int, default=group_photograph.WIDTH, help="of the photograph, in pixels")
    made.add_argument("--compile", default="inductor", help="backend of torch.compile")
    made.add_argument("--rows", nargs="+", help="parts of the names of the rows to measure; default: all")
    made.add_argument("--budget", type=float, default=BUDGET, help="seconds for all rows")
    options = made.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        made.error("there is no GPU here; for a dry run, see the first lines of this file")
    every = rows(options)
    chosen = [row for row in every if not options.rows or any(part in row.name for part in options.rows)]
    if not chosen:
        made.error(f"--rows: got {options.rows}; expected parts of {'; '.join(row.name for row in every)}")
    found = run(options, chosen)
    print(f"\n{options.json} written")
    return int(options.device == "cuda" and any(not (row.our_seconds or row.memory) for row in found))


if __name__ == "__main__":
    sys.exit(main())
