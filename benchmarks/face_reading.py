"""How much sooner faces are read from an LMDB than from a folder of PNG files, and from tars than from an LMDB.

    python benchmarks/face_reading.py

All files are in the memory of the operating system, so what is timed is finding, copying and decoding.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from face_images import SIZE, lmdb_folder, png_folder, tar_folder
from measure import Comparison, check_close, compare, parser, report

from gpen_plugin.data.image_source import FolderSource, ImageSource, LmdbSource, TarSource

TARGETS = {"bmp": 3.0, "png": None}  # of an LMDB against the folder


def read_all(source: ImageSource) -> list[np.ndarray]:
    """The images, (H, W, 3) BGR uint8."""
    return [source.read(key) for key in source.keys]


def against_folder(form: str, options: argparse.Namespace) -> Comparison:
    """The LMDB of one format against the folder."""
    folder, database = FolderSource(png_folder(), "faces"), LmdbSource(lmdb_folder(form), "faces")
    expected, result = (torch.from_numpy(np.stack(read_all(source))) for source in (folder, database))
    return compare(
        f"reading faces of {SIZE} px: LMDB, --format {form}",
        ("folder of PNG files", lambda: read_all(folder)),
        (f"LMDB of {form}", lambda: read_all(database)),
        rounds=options.rounds,
        target=TARGETS[form],
        items=len(folder.keys),
        error=check_close(expected, result, tolerance=0),
        note=f"A face takes {kilobytes(png_folder() / '*.png')} KB in the folder, and in the LMDB "
        f"{kilobytes(lmdb_folder(form) / 'data.mdb', len(folder.keys))} KB.",
    )


def against_lmdb(form: str, options: argparse.Namespace) -> Comparison:
    """Tars of one format against the LMDB of the same files."""
    database, tars = LmdbSource(lmdb_folder(form), "faces"), TarSource(tar_folder(form), "faces")
    expected, result = (torch.from_numpy(np.stack(read_all(source))) for source in (database, tars))
    return compare(
        f"reading faces of {SIZE} px: tar, --format {form}",
        (f"LMDB of {form}", lambda: read_all(database)),
        (f"tar of {form}", lambda: read_all(tars)),
        rounds=options.rounds,
        items=len(database.keys),
        error=check_close(expected, result, tolerance=0),
    )


def kilobytes(pattern: Path, faces: int = 1) -> int:
    """The mean size of the files that fit a pattern, over the faces that each holds."""
    sizes = [path.stat().st_size for path in pattern.parent.glob(pattern.name)]
    return round(sum(sizes) / len(sizes) / faces / 1000)


def main(argv: Sequence[str] | None = None) -> None:
    """Print two comparisons per format."""
    options = parser(__doc__, rounds=9, threads=1).parse_args(argv)
    cv2.setNumThreads(options.threads)
    rows = [compared(form, options) for compared in (against_folder, against_lmdb) for form in TARGETS]
    report("Reading faces from LMDBs and tars", rows, options)


if __name__ == "__main__":
    main()
