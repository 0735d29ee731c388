"""Face images for the benchmarks: synthetic ones, and files of them with grain so that they compress like photographs.

A synthetic face alone is so smooth that its PNG has half the size of a photograph's and is decoded in less time.
`GRAIN` gives it the size of a portrait; the results state the size.
"""

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

COUNT, SIZE = 8, 512
GRAIN = 2.5  # standard deviation, in units of 1/255
DATASETS_PREP = Path(__file__).parents[1] / "datasets_prep"


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="gpen-benchmark-")  # removed when the script ends


def _run(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, DATASETS_PREP / script, *map(str, arguments)], check=True, capture_output=True)


@functools.cache
def synthetic_faces(count: int, size: int) -> list[np.ndarray]:
    """Different faces in FFHQ's framing, each (size, size, 3) BGR uint8."""
    folder = Path(_folder().name) / f"synthetic_{count}_{size}"
    _run("make_demo_faces.py", "-o", folder, "--size", size, "--val", count, "--train", 1)
    return [cv2.imread(str(path)) for path in sorted((folder / "val").glob("*.png"))]


@functools.cache
def png_folder() -> Path:
    """A folder of `COUNT` PNG faces of `SIZE` px, written at the first call."""
    folder = Path(_folder().name) / "faces"
    folder.mkdir()
    for number, face in enumerate(synthetic_faces(COUNT, SIZE)):
        grain = np.random.default_rng(number).normal(0, GRAIN, (SIZE, SIZE, 3))
        cv2.imwrite(str(folder / f"{number:02d}.png"), np.rint(np.clip(face + grain, 0, 255)).astype(np.uint8))
    return folder


@functools.cache
def lmdb_folder(form: str) -> Path:
    """The same faces as an LMDB of a format of ``datasets_prep/make_lmdb.py``."""
    folder = Path(_folder().name) / f"{form}.lmdb"
    _run("make_lmdb.py", "-i", png_folder(), "-o", folder, "--size", SIZE, "--format", form)
    return folder


@functools.cache
def tar_folder(form: str) -> Path:
    """The same faces in a tar of ``datasets_prep/make_tar.py``; its folder."""
    folder = Path(_folder().name) / f"{form}_shards"
    _run("make_tar.py", "-i", png_folder(), "-o", folder, "--size", SIZE, "--format", form)
    return folder
