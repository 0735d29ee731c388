"""The cost of a method: parameters, multiply-adds and seconds per face on this machine."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from gpen_plugin.baselines.method import Method, Sample
from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate.results import Column, write_text

FILE = "cost.json"
MAX_TIMED_FACES = 5
MAX_SECONDS = 20.0  # a slow method is timed on fewer faces
COLUMNS = {
    "parameters": Column("parameters", "Params (M)", lower_is_better=True, of_sets=True, ranked=False),
    "multiply_adds": Column("multiply_adds", "MACs (G)", lower_is_better=True, of_sets=True, ranked=False),
    "seconds": Column("seconds", "Seconds", lower_is_better=True, of_sets=True, decimals=3, ranked=False),
}
UNITS = {"parameters": 1e6, "multiply_adds": 1e9, "seconds": 1.0}


def cost_columns(names: Sequence[str]) -> list[Column]:
    """The columns of an option file's ``cost``; OptionError for another name."""
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise OptionError("cost", f"got {', '.join(map(str, unknown))}", "some of " + ", ".join(COLUMNS))
    return [COLUMNS[name] for name in names]


def measure_cost(
    method: Method,
    samples: Callable[[], Sample],  # the next face at each call
    names: Sequence[str],  # of `COLUMNS`
    device: torch.device,
    folder: Path,  # of the method: an earlier measurement is taken from there, so that second runs give the same bytes
    digest: str,  # of the method and the inputs
) -> dict[str, float]:
    """Measure a method on the first faces, in the units of `COLUMNS`; what a method does not have is absent."""
    stamp = {"digest": digest, "machine": machine(device), "names": [*names]}
    known = _read(folder / FILE, stamp)
    if known is not None:
        return known
    found: dict[str, float] = {}
    if "parameters" in names and hasattr(method, "parameters"):
        found["parameters"] = method.parameters
    with FlopCounterMode(display=False) as counter:  # also the first call, which is slower than others
        method(samples())
    if "multiply_adds" in names and counter.get_total_flops():
        found["multiply_adds"] = counter.get_total_flops() / 2
    if "seconds" in names:
        found["seconds"] = _seconds(method, samples, device)
    cost = {name: value / UNITS[name] for name, value in found.items()}
    write_text(folder / FILE, json.dumps({**stamp, "cost": cost}, indent=1) + "\n")
    return cost


def _seconds(method: Method, samples: Callable[[], Sample], device: torch.device) -> float:
    times: list[float] = []
    while len(times) < MAX_TIMED_FACES and sum(times) < MAX_SECONDS:
        sample = samples()
        start = time.perf_counter()
        method(sample)  # ends with an image on the CPU, so that a GPU has finished
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _read(path: Path, stamp: Mapping) -> dict[str, float] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["cost"] if {name: content[name] for name in stamp} == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def machine(device: torch.device) -> str:
    """The GPU, or the processor and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread" + "s" * (threads != 1)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cost_note(names: Sequence[str], rows: Sequence[str], device: torch.device, condition: str) -> str:
    """How the columns were measured, for the reader of the tables."""
    where = f" in the condition {condition}" if condition else ""
    heads = ", ".join(COLUMNS[name].label for name in names)
    explained = []
    if "multiply_adds" in names:
        explained.append("MACs are those of convolutions and matrix products")
    if "seconds" in names:
        timed = f"seconds per face are the median of up to {MAX_TIMED_FACES} single faces on {machine(device)}"
        explained.append(f"{timed}, without reading files")
    return f"{heads} of {', '.join(rows)}{where}{': ' if explained else ''}{'; '.join(explained)}."
