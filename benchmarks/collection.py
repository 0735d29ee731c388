"""A large collection of small photographs: `gpen-restore --jobs`, killed and continued at random.

    python benchmarks/collection.py --faces FOLDER_OR_ZIP --count 20000 --kills 5 --work FOLDER

The photographs are made from few by crops, reduction and recompression. The command is killed with SIGKILL after a
random number of results and repeated, until all is done. Then each photograph must have one result, and a sample the
same bytes as with one process. Prints the figures of docs/SCALE.md, and writes FOLDER/collection.png and .json.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gpen_plugin.data.image_source import open_source

MIB = 2**20
PER_FOLDER = 1000
INTERVAL = 2.0  # seconds between two measurements of memory
PATIENCE = 20.0  # seconds in which the processes of a killed run must have ended
SUFFIX = ".png"  # of the results
RESTORE = (sys.executable, "-m", "gpen_plugin.restore")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", required=True, help="folder, zip or LMDB of photographs with a face each")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--jobs", default="auto")
    parser.add_argument("--sample", type=int, default=100, help="results that are made again with one process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="folder of the photographs and results")
    options = parser.parse_args()
    album, output = options.work / "album", options.work / "restored"
    make_album(options.faces, album, options.count, options.seed)
    command = [
        sys.executable,
        "-m",
        "gpen_plugin.restore",
        album,
        "--suffix",
        SUFFIX,
        "-o",
        output,
        "--jobs",
        options.jobs,
    ]
    runs = killed_and_continued(list(map(str, command)), output, options)
    problems = check(album, output, options)
    write_figures(runs, problems, options)
    return 1 if problems else 0


def make_album(faces: str, album: Path, count: int, seed: int) -> None:
    """Write photographs of 80 to 160 px with a face each; those that are there are kept."""
    source = open_source(faces, "--faces")
    for number in range(count):
        path = album / f"{number // PER_FOLDER:03d}" / f"{number:06d}.jpg"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, number])
        image = source.read(source.keys[rng.integers(len(source.keys))])
        height, width = image.shape[:2]
        top, left = (int(rng.integers(0, max(1, side // 10))) for side in (height, width))
        image = image[top : height - height // 10 + top, left : width - width // 10 + left]
        side = int(rng.integers(80, 161))
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        path.write_bytes(
            cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 91))])[1].tobytes()
        )


def killed_and_continued(command: list[str], output: Path, options: argparse.Namespace) -> list[dict]:
    """Repeat the command until it ends by itself; return what each run did."""
    rng = random.Random(options.seed)
    stops = sorted(rng.randrange(options.count) for _ in range(options.kills))
    runs = []
    for stop in [*stops, None]:
        before, started = finished(output), time.monotonic()
        log = (options.work / f"run_{len(runs)}.log").open("w")
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        memory: list[tuple[float, int, int]] = []
        while process.poll() is None:
            time.sleep(INTERVAL)
            done = finished(output)
            memory.append((time.monotonic() - started, done, resident(process.pid)))
            if stop is not None and done >= stop:
                process.kill()
                process.wait()
        seconds = time.monotonic() - started
        left = left_behind(process.pid)
        run = {"killed": stop is not None, "status": process.returncode, "seconds": seconds, "memory": memory}
        runs.append({**run, "results": finished(output) - before, "processes_left": left})
        print({name: value for name, value in runs[-1].items() if name != "memory"}, flush=True)
    return runs


def finished(output: Path) -> int:
    return sum(name.endswith(SUFFIX) for _, _, names in os.walk(output) for name in names)


def _session(pid: int) -> list[int]:
    """Processes of the session that `pid` began."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.getsid(int(entry)) == pid:
                    found.append(int(entry))
            except OSError:
                pass
    return found


def resident(pid: int) -> int:
    """Bytes that the processes of a session hold; pages that they share count by their part in each."""
    total = 0
    for process in _session(pid):
        try:
            with open(f"/proc/{process}/smaps_rollup") as file:
                total += next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
        except (OSError, StopIteration):
            pass
    return total


def left_behind(pid: int) -> int:
    """Processes of a session that have not ended after `PATIENCE` seconds."""
    until = time.monotonic() + PATIENCE
    while (left := len(_session(pid))) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def check(album: Path, output: Path, options: argparse.Namespace) -> list[str]:
    """What is wrong with the results, in sentences."""
    inputs = {path.relative_to(album).with_suffix(SUFFIX).as_posix() for path in album.rglob("*.jpg")}
    results = {path.relative_to(output).as_posix() for path in output.rglob(f"*{SUFFIX}")}
    others = {path.name for path in output.rglob("*") if path.is_file() and path.suffix != SUFFIX} - {"manifest.jsonl"}
    problems = [f"{len(inputs - results)} photographs have no result"] * bool(inputs - results)
    problems += [f"{len(results - inputs)} results have no photograph"] * bool(results - inputs)
    problems += [f"other files were left: {sorted(others)[:5]}"] * bool(others)
    with (output / "manifest.jsonl").open() as file:
        lines = [json.loads(line) for line in file]
    last = {line["source"]: line["status"] for line in lines}
    ended = Counter(last.values())
    problems += [f"the manifest ends with {dict(ended)}"] * (ended != {"done": len(inputs)})
    done = Counter(line["source"] for line in lines if line["status"] == "done")
    twice = sum(number > 1 for number in done.values())
    problems += [f"{twice} photographs are recorded as done more than once"] * bool(twice)
    if different := differing(sorted(random.Random(options.seed).sample(sorted(inputs), options.sample)), options):
        problems.append(f"{len(different)} of {options.sample} results differ from those of one process")
    started = Counter(line["source"] for line in lines if line["status"] == "started")
    print(f"{sum(number > 1 for number in started.values())} photographs were begun more than once")
    return problems


def differing(sample: list[str], options: argparse.Namespace) -> list[str]:
    """The results that are not what one process writes."""
    if not sample:
        return []
    album, output, again = (options.work / name for name in ("album", "restored", "again"))
    files = [str((album / name).with_suffix(".jpg")) for name in sample]
    command = [*RESTORE, *files, "--suffix", SUFFIX, "-o", str(again), "--redo"]
    subprocess.run(command, check=True, capture_output=True)
    return [name for name in sample if (again / Path(name).name).read_bytes() != (output / name).read_bytes()]


def write_figures(runs: list[dict], problems: list[str], options: argparse.Namespace) -> None:
    seconds = sum(run["seconds"] for run in runs)
    rate = options.count / seconds
    print(f"{options.count} photographs, {len(runs) - 1} kills, {seconds:.0f} s in all: {rate:.1f} a second")
    print(f"memory at most {max(m for run in runs for _, _, m in run['memory']) / MIB:.0f} MiB")
    print("\n".join(problems) or "Each photograph has one result, and the sample has the bytes of one process.")
    (options.work / "collection.json").write_text(json.dumps({"runs": runs, "problems": problems}))
    matplotlib.use("agg")
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    start = 0.0
    for run in runs:
        axes.plot(
            [start + t for t, _, _ in run["memory"]], [m / MIB for _, _, m in run["memory"]], color="tab:blue", lw=1
        )
        start += run["seconds"]
        if run["killed"]:
            axes.axvline(start, color="tab:red", lw=0.8, ls="--")
    axes.set(xlabel="seconds (dashed: killed)", ylabel="MiB, all processes", ylim=(0, None))
    figure.savefig(options.work / "collection.png", dpi=100)


if __name__ == "__main__":
    sys.exit(main())
