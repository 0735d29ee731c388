"""Run every benchmark, each in a process of its own, and write the results to RESULTS.md.

    python benchmarks/results.py [--threads 2]

All options are passed to each benchmark. If one fails, RESULTS.md says so and the others still run. Where there is a
GPU, gpu.py runs as well, without these options; elsewhere its last results are taken.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath

import torch
from bench_report import (
    OUTCOMES,
    Comparison,
    Plot,
    arithmetic,
    memory,
    spread,
    target_line,
    throughput,
    write_atomically,
)

FOLDER = Path(__file__).parent
FIRST = ("inference", "onnx_runtime", "memory", "training_step")  # the others follow by name
# this script, see `gpu_part`, an estimate, an hour of work, and three that need a model or images
NOT_BENCHMARKS = ("results", "gpu", "training_cost", "collection", "dark_spots", "flicker", "variant_effect")
TIMEOUT = 600  # seconds for one benchmark
GPU_TIMEOUT = 600  # gpu.py stops itself before
NO_GPU = "GPU rows come from `benchmarks/gpu.py`, which has not run: it needs a GPU."
HOW_TO_READ = (
    '"Reference ops" are plain PyTorch; the section "The reference" compares them with BasicSR\'s generator. '
    '"Fused" is the network as `gpen-restore` runs it. Baseline and ours alternate, so that a busy '
    "machine slows both. The ratio is the baseline's time divided by ours, the median over the rounds. Times are "
    "medians, with the fastest and the slowest round in parentheses. Peak memory is the growth of the resident peak of "
    "a separate process; on a GPU, the allocator's peak. A multiply-add counts as two operations; the measured peak is "
    "that of a large 3x3 convolution in the same run. On a CPU, the commands keep the memory that they free, and so "
    'does "fused"; the reference of one face and of a training step runs in a process that returns it to the system, '
    "as glibc does by itself, if the row does not say otherwise. Timed GPU convolutions of float32 use TF32, PyTorch's "
    "default."
)
HEADINGS = ("what", "baseline", "ours", "ratio", "target", "memory", "rate")


@dataclass(frozen=True)
class Part:
    """The results of one benchmark, a section of the page."""

    script: str
    title: str = ""
    machine: Mapping[str, str] | None = None  # facts by name
    settings: str = ""  # device, threads and rounds, in words
    comparisons: Sequence[Comparison] = ()
    plots: Sequence[Plot] = ()
    left_out: Sequence[str] = ()  # attempts that were no faster
    failure: str = ""  # why there are no results
    day: str = ""  # ISO date

    @classmethod
    def read(cls, script: str, found: Mapping) -> "Part":
        """The results that `bench_report.report` wrote as JSON."""
        return cls(
            script,
            found["title"],
            found["machine"],
            found["settings"],
            [Comparison(**row) for row in found["comparisons"]],
            [Plot(**plot) for plot in found["plots"]],
            found["left_out"],
            day=found["day"],
        )


def scripts(folder: Path) -> list[Path]:
    """The benchmarks in a folder, in the order of the results."""
    found = [path for path in folder.glob("*.py") if "__main__" in path.read_text() and path.stem not in NOT_BENCHMARKS]
    return sorted(found, key=lambda path: (FIRST.index(path.stem) if path.stem in FIRST else len(FIRST), path.stem))


def run(script: Path, arguments: Sequence[str], timeout: float = TIMEOUT) -> Part:
    """Run one benchmark, and read its results or its error."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, str(script), *arguments, "--json", str(found)]
        try:
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            return Part(script.stem, failure=f"took more than {timeout:g} s")
        if done.returncode or not found.is_file():
            lines = done.stderr.strip().splitlines()
            return Part(script.stem, failure=lines[-1] if lines else f"exit status {done.returncode}, no figures")
        return Part.read(script.stem, json.loads(found.read_text()))


def gpu_part() -> Part | None:
    """The results of gpu.py, which runs if there is a GPU, or its last ones; None if there are none."""
    script, found = FOLDER / "gpu.py", FOLDER / "gpu.json"
    if torch.cuda.is_available():
        print(f"\n== {script.name}", flush=True)
        command, begun = [sys.executable, str(script), "--json", str(found)], time.time()
        try:
            subprocess.run(command, timeout=GPU_TIMEOUT, check=False)
        except subprocess.TimeoutExpired:
            return Part(script.stem, failure=f"took more than {GPU_TIMEOUT} s")
        if not found.is_file() or found.stat().st_mtime < begun - 1:  # file systems round times
            return Part(script.stem, failure="no figures")
    return Part.read(script.stem, json.loads(found.read_text())) if found.is_file() else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all with these arguments and write the page; exit status 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER / "RESULTS.md", help="file to write")
    options, passed_on = parser.parse_known_args(arguments)
    parts, begun = [], time.monotonic()
    for script in scripts(FOLDER):
        print(f"\n== {script.name}", flush=True)
        parts.append(run(script, passed_on))
        if parts[-1].failure:
            print(f"{script.name} failed: {parts[-1].failure}", file=sys.stderr)
    parts += filter(None, [gpu_part()])
    minutes = (time.monotonic() - begun) / 60
    write_atomically(options.out, page(parts, date.today(), minutes))
    print(f"\n{options.out.name} written, {minutes:.0f} minutes")
    return int(any(part.failure for part in parts))


def page(parts: Sequence[Part], day: date, minutes: float) -> str:
    """RESULTS.md of all benchmarks, which took so many minutes."""
    blocks = ["# Results", f"Written by `make bench` on {day.isoformat()}, in {minutes:.0f} minutes.", _outcomes(parts)]
    blocks += [f"**{part.script}.py failed:** {_cell(part.failure)}" for part in parts if part.failure]
    machine = {name: fact for part in parts if part.script != "gpu" for name, fact in (part.machine or {}).items()}
    blocks += [_facts(machine), HOW_TO_READ]
    blocks += [_section(part) for part in parts if not part.failure]
    if all(part.script != "gpu" for part in parts):
        blocks.append(NO_GPU)
    left_out = [line for part in parts for line in part.left_out]
    if left_out:
        blocks += ["## Tried without gain", "\n".join(f"- {_sentence(line)}" for line in left_out)]
    return "\n\n".join(blocks) + "\n"


def _outcomes(parts: Sequence[Part]) -> str:
    """Which targets are met, which are not, and which were not measured."""
    rows = [row for part in parts for row in part.comparisons if target_line(row)]
    named = {outcome: [row.what for row in rows if row.met is met] for met, outcome in OUTCOMES.items()}
    found = [(f"{outcome} ({len(names)} of {len(rows)})", names) for outcome, names in named.items() if names]
    return "\n".join(f"- {outcome}: {'; '.join(names)}" for outcome, names in found)


def _facts(machine: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {fact}" for name, fact in machine.items())


def _section(part: Part) -> str:
    blocks = [f"## {part.title}", f"`benchmarks/{part.script}.py`: {part.settings}."]
    if part.script == "gpu":
        blocks += [f"Measured on {part.day}.", _facts(part.machine or {})]
    if part.comparisons:
        rows = [HEADINGS, ("---",) * len(HEADINGS), *(_row(each) for each in part.comparisons)]
        blocks.append("\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows))
    notes = [(row.what, [_sentence(fact) for fact in (row.error, row.note) if fact]) for row in part.comparisons]
    lines = [f"- {what}: {' '.join(facts)}" for what, facts in notes if facts]
    if lines:
        blocks.append("\n".join(lines))
    for plot in part.plots:
        blocks += [f"![{PurePosixPath(plot.file).stem}]({plot.file})", plot.line]
    return "\n\n".join(blocks)


def _row(row: Comparison) -> tuple[str, ...]:
    return (
        row.what,
        _arm(row.baseline, row.baseline_seconds),
        _arm(row.ours, row.our_seconds),
        f"{row.ratio:.2f}" if row.our_seconds else "",
        target_line(row).removeprefix("target "),
        memory(row).removeprefix("peak memory "),
        "; ".join(fact for fact in (throughput(row), arithmetic(row)) if fact),
    )


def _arm(words: str, seconds: Sequence[float]) -> str:
    return ": ".join(fact for fact in (words, spread(seconds) if seconds else "") if fact)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def _cell(text: str) -> str:
    """A text without line breaks and column separators."""
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    sys.exit(main())
