"""gpen-restore with a process per core against one process on one core, on the same photographs.

    python benchmarks/restore_jobs.py --jobs 2
    python benchmarks/restore_jobs.py --jobs 2 -i FOLDER_OF_PHOTOGRAPHS

Each run has as many cores as processes. Times are those of the run's report, from the moment when the first process has
opened its networks.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from face_images import GRAIN, synthetic_faces
from measure import Comparison, not_measured, parser, report

TARGET = 0.9  # of the number of cores
HEIGHT, WIDTH = 1200, 1600
SIDE, FACES = 320, 3


def write_album(folder: Path, count: int) -> None:
    """Photographs of synthetic faces, with grain."""
    rng = np.random.default_rng(0)
    faces = synthetic_faces(FACES, SIDE)
    for number in range(count):
        coarse = rng.integers(90, 166, (HEIGHT // 100, WIDTH // 100, 3)).astype(np.uint8)
        image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        for i, face in enumerate(faces):
            top, left = rng.integers(HEIGHT - SIDE), i * WIDTH // FACES + rng.integers(WIDTH // FACES - SIDE)
            image[top : top + SIDE, left : left + SIDE] = face
        image = np.clip(np.rint(image + rng.normal(0, GRAIN, image.shape)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:03d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])


def run(album: Path, output: Path, jobs: int, device: str) -> float:
    """Seconds of a run on as many cores as processes."""
    cores = sorted(os.sched_getaffinity(0))[:jobs]
    written = output.with_suffix(".json")
    words = ["-o", output, "--report", written, "--jobs", jobs, "--device", device, "--detector", "yunet"]
    subprocess.run(
        [sys.executable, "-m", "gpen_plugin.restore", *map(str, (album, *words, "--mask", "soft"))],
        check=True,
        capture_output=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return json.loads(written.read_text())["seconds"]


def row(options: argparse.Namespace) -> Comparison:
    what = f"gpen-restore --jobs {options.jobs}, photographs of {WIDTH} x {HEIGHT} px with {FACES} faces"
    if len(os.sched_getaffinity(0)) < options.jobs:
        return not_measured(what, f"fewer than {options.jobs} cores here", target=TARGET * options.jobs)
    arms = {1: [], options.jobs: []}
    with tempfile.TemporaryDirectory(prefix="gpen-benchmark-") as folder:
        album = options.input or Path(folder, "album")
        if options.input:
            what = f"gpen-restore --jobs {options.jobs}, {options.input.name}"
        else:
            album.mkdir()
            write_album(album, options.count)
        for number in range(options.rounds):
            for jobs, seconds in arms.items():
                seconds.append(run(album, Path(folder, f"{jobs}-{number}"), jobs, options.device))
        first, last = (Path(folder, f"{jobs}-0") for jobs in arms)
        names = sorted(path.relative_to(first) for path in first.rglob("*") if path.suffix != ".jsonl")
        files = [name for name in names if (first / name).is_file()]
        same = all((first / name).read_bytes() == (last / name).read_bytes() for name in files)
    if not same:
        sys.exit("The results of one process and of several differ: nothing was timed.")
    return Comparison(
        what,
        "one process, one core",
        f"{options.jobs} processes, {options.jobs} cores",
        arms[1],
        arms[options.jobs],
        target=TARGET * options.jobs,
        items=len(files),
        error=f"the same {len(files)} files, byte for byte",
    )


if __name__ == "__main__":
    made = parser(__doc__, rounds=3)
    made.add_argument("-i", "--input", type=Path, help="folder of photographs (default: synthetic ones)")
    made.add_argument("--jobs", type=int, default=2, help="number of processes and cores")
    made.add_argument("--count", type=int, default=60, help="number of synthetic photographs")
    options = made.parse_args()
    report("Restoring with --jobs", [row(options)], options)
