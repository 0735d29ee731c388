"""Write the labels for the groups of an evaluation on FairFace (``report: labels:``), one line per image.

    python datasets_prep/fairface_labels.py --input fairface_val_128.zip --output datasets/fairface/val_labels.csv \
        --seen datasets_prep/fairface_val_seen.csv

The input is a folder or zip of images with a ``labels.csv``: file, age, gender, race as FairFace's annotators chose
them, and five landmarks, ``eye_l_x`` to ``mouth_r_y``, in pixels. What is added is measured, or was seen by eye:

    turned      |a - b| / (a + b), with a and b the distances from the nose to the two eyes; 0 is frontal
    brightness  mean luma, 0 to 255, of the rectangle that holds eyes, nose and mouth: of skin, and of its light
    (--seen)    further columns of a file of one's own; images that are not in it get ``nothing``
"""

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np

from gpen_plugin.data.image_source import open_folder_or_zip
from gpen_plugin.errors import DataError, OptionError, handle_errors
from gpen_plugin.images.files import write_whole

LABELS = "labels.csv"
COPIED_COLUMNS = ("race", "gender", "age")
POINTS = ("eye_l", "eye_r", "nose", "mouth_l", "mouth_r")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--input", type=Path, required=True, help=f"folder or zip of images with {LABELS}")
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--seen", type=Path, help="CSV file: file, and labels of one's own")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Write the file.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status.
    """
    options = parser().parse_args(argv)
    source = open_folder_or_zip(options.input, "--input")
    given = _rows(
        _labels_of(options.input), str(options.input), (*COPIED_COLUMNS, *(f"{p}_{a}" for p in POINTS for a in "xy"))
    )
    seen = _seen(options.seen) if options.seen else {}
    if unknown := sorted(seen.keys() - given.keys()):
        got = f"names {', '.join(unknown[:3])}"
        raise OptionError("--seen", got, f"images of {options.input}", "Correct the names.")
    there = set(source.keys)
    if absent := [file for file in given if Path(file).stem not in there]:
        got = f"its {LABELS} names {', '.join(absent[:3])}, of which there is no image"
        raise DataError(str(options.input), got, "an image for each line", "Correct the names, or remove the lines.")
    columns = [name for name in next(iter(seen.values()), {}) if name != "file"]
    lines = []
    for file, row in given.items():
        face = source.read(Path(file).stem)
        own = {name: seen.get(file, {}).get(name, "nothing") for name in columns}
        lines.append(
            {
                "file": file,
                **{name: row[name].replace("_", " ") for name in COPIED_COLUMNS},
                **measured(face, row),
                **own,
            }
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.output, text.getvalue().encode())
    print(f"{options.output}: {len(lines)} images, {', '.join(list(lines[0])[1:])}")
    return 0


def measured(face: np.ndarray, row: Mapping[str, str]) -> dict[str, str]:
    """How far a face is turned, and how bright it is.

    Args:
        face: (H, W, 3) BGR uint8.
        row: its ``file``, and its landmarks, ``eye_l_x`` and so on, in pixels.
    Returns:
        ``turned`` and ``brightness``, as numbers in text.
    Raises:
        DataError: a landmark is no number, or none of the face is in the image.
    """
    try:
        points = {name: np.array([float(row[f"{name}_{axis}"]) for axis in "xy"]) for name in POINTS}
    except ValueError as error:
        raise DataError(row["file"], f"a landmark is no number ({error})", "pixels", "Correct its line.") from error
    left, right = (np.linalg.norm(points["nose"] - points[eye]) for eye in ("eye_l", "eye_r"))
    corners = np.stack(list(points.values()))  # (5, 2)
    (x0, y0), (x1, y1) = np.clip(np.round([corners.min(0), corners.max(0)]), 0, None).astype(int)
    inside = face[y0 : y1 + 1, x0 : x1 + 1]
    if not inside.size:
        got = f"its landmarks lie outside of the image, {face.shape[1]} x {face.shape[0]} px"
        raise DataError(row["file"], got, "pixels of the image itself", "Correct its line.")
    luma = cv2.cvtColor(inside, cv2.COLOR_BGR2GRAY).mean()
    return {"turned": f"{abs(left - right) / (left + right):.3f}", "brightness": f"{luma:.1f}"}


def _labels_of(path: Path) -> str:
    try:
        if path.is_dir():
            return (path / LABELS).read_text(encoding="utf-8")
        with ZipFile(path) as archive:
            return archive.read(LABELS).decode()
    except (OSError, KeyError) as error:
        raise DataError(str(path), f"has no {LABELS} ({error})", "labels beside the images") from error


def _seen(path: Path) -> dict[str, dict[str, str]]:
    try:
        return _rows(path.read_text(encoding="utf-8"), str(path), ())
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError("--seen", f"{path} cannot be read ({error})", "a CSV file", "Check the path.") from error


def _rows(text: str, where: str, needed: Sequence[str]) -> dict[str, dict[str, str]]:
    """The lines of a CSV file by the name of their image."""
    rows = list(csv.DictReader(io.StringIO(text)))
    missing = [name for name in ("file", *needed) if rows and name not in rows[0]]
    if missing or not rows:
        got = f"has no column {missing[0]}" if missing else "has no line"
        raise DataError(where, got, f"columns {', '.join(('file', *needed))}", "Correct its first line.")
    by_file = {row["file"]: row for row in rows}
    if len(by_file) < len(rows) or any(None in (*row, *row.values()) for row in rows):
        got = "names an image twice, or has a line of another length than its first"
        raise DataError(where, got, "one line for each image", "Correct these lines.")
    return by_file


if __name__ == "__main__":
    sys.exit(main())
