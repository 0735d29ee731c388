"""Faces on disk for the benchmarks that read them: drawn, with grain, so that they compress like photographs.

A drawn face alone is so smooth that its PNG has half the size of a photograph's, and is decoded in less time. `GRAIN`
gives it the size that portraits of people have, which is told with the figures.
"""

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from gpen_plugin.data.drawn_faces import draw_face

COUNT, SIZE = 8, 512
GRAIN = 2.5  # standard deviation, in units of 1/255
MAKE_LMDB = Path(__file__).parents[1] / "datasets_prep" / "make_lmdb.py"


@functools.cache
def _place() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="gpen-benchmark-")  # removed when the script ends


@functools.cache
def png_folder() -> Path:
    """A folder of `COUNT` PNG faces of `SIZE` px, made at the first call."""
    folder = Path(_place().name) / "faces"
    folder.mkdir()
    for seed in range(COUNT):
        grain = np.random.default_rng(seed).normal(0, GRAIN, (SIZE, SIZE, 3))
        face = np.rint(np.clip(draw_face(seed, SIZE) + grain, 0, 255)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{seed:02d}.png"), face)
    return folder


@functools.cache
def lmdb_folder(form: str) -> Path:
    """The same faces as an LMDB of a format of ``datasets_prep/make_lmdb.py``."""
    folder = Path(_place().name) / f"{form}.lmdb"
    command = [sys.executable, MAKE_LMDB, "-i", png_folder(), "-o", folder, "--size", str(SIZE), "--format", form]
    subprocess.run(command, check=True, capture_output=True)
    return folder
