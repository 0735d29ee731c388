"""Run every benchmark, one after the other, each in a process of its own, and write what they found to RESULTS.md.

    python benchmarks/results.py [--device cuda] [--threads 2]

What is given goes to each benchmark. One that fails is told in the results, the others still run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from page import Part, page
from telling import write_whole

FOLDER = Path(__file__).parent
FIRST = ("inference", "onnx_runtime", "memory", "training_step")  # the order of what a reader asks; then by name
UNMEASURED = ("results", "training_cost")  # this, and a reckoning on paper
LONGEST = 300  # seconds that one benchmark may take


def scripts(folder: Path) -> list[Path]:
    """The benchmarks in a folder: what can be run and measures, in the order of the results."""
    found = [path for path in folder.glob("*.py") if "__main__" in path.read_text() and path.stem not in UNMEASURED]
    return sorted(found, key=lambda path: (FIRST.index(path.stem) if path.stem in FIRST else len(FIRST), path.stem))


def run(script: Path, arguments: Sequence[str], longest: float = LONGEST) -> Part:
    """Run one benchmark, and read what it found or why it failed."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, str(script), *arguments, "--json", str(found)]
        try:
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=longest, check=False)
        except subprocess.TimeoutExpired:
            return Part(script.stem, failure=f"took more than {longest:g} s")
        if done.returncode or not found.is_file():
            told = done.stderr.strip().splitlines()
            return Part(script.stem, failure=told[-1] if told else f"exit status {done.returncode}, no figures")
        return Part.read(script.stem, json.loads(found.read_text()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all and write the page.

    Args:
        arguments: for each benchmark; ``None`` takes the command line's.
    Returns:
        Exit status: 1 if a benchmark failed.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER / "RESULTS.md", help="file to write")
    options, passed_on = parser.parse_known_args(arguments)
    parts, begun = [], time.monotonic()
    for script in scripts(FOLDER):
        print(f"\n== {script.name}", flush=True)
        parts.append(run(script, passed_on))
        if parts[-1].failure:
            print(f"{script.name} failed: {parts[-1].failure}", file=sys.stderr)
    minutes = (time.monotonic() - begun) / 60
    write_whole(options.out, page(parts, date.today(), minutes))
    print(f"\n{options.out.name} written, {minutes:.0f} minutes")
    return int(any(part.failure for part in parts))


if __name__ == "__main__":
    sys.exit(main())
