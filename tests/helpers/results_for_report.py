"""Results of an evaluation that never ran, with images that the tests draw: small, and with every oddity."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpen_plugin.evaluate.results import Column, Results, Row, input_path, restored_path, truth_path
from gpen_plugin.images.files import write_image

SIZE = 16
PSNR = Column("psnr", "PSNR", lower_is_better=False)
LPIPS = Column("lpips", "LPIPS", lower_is_better=True, decimals=3, note="weights_100%.pth is missing")
FID = Column("fid", "FID (GT)", lower_is_better=True, of_sets=True)
NASTY_KEYS = ["<script>window.hit=1<|script>", "a\"b'c", "100%", "folder/pic_1", "a&b #2?", "x" * 200, "$ü~^\\"]
NASTY_NAME = '</script><img src=x onerror="window.hit=1"> & _50%_ | $x$'


def made_results(
    values: dict[str, Sequence[float]],
    keys: Sequence[str] | None = None,
    conditions: Sequence[str] = ("",),
    columns: Sequence[Column] = (PSNR, FID),
    kind: str = "bfr",
) -> Results:
    """Results in which each method's first metric has these values, the same in every condition.

    None stands for a failure, NaN for no value. The FID of a method is the number of letters in its name.
    """
    keys = list(keys or (f"face_{place}" for place in range(len(next(iter(values.values()))))))
    fingerprint = {"digest": "0123456789ab", "kind": kind, "line": f"{kind} 0123456789ab, {len(keys)} images"}
    rows = [Row(name, f"method_{place}", f"about {name}") for place, name in enumerate(values)]
    results = Results("made", "A made table", fingerprint, SIZE, keys, list(conditions), list(columns), rows)
    for name, numbers in values.items():
        entries = {
            key: {"failure": "RuntimeError: <b>no</b> & $"} if number is None else {columns[0].name: float(number)}
            for key, number in zip(keys, numbers, strict=True)
        }
        results.images[name] = {condition: dict(entries) for condition in conditions}
        results.sets[name] = {condition: {"fid": float(len(name))} for condition in conditions}
    return results


def nasty_results() -> Results:
    """Seven images with awkward keys; a good method, one that fails once and lacks a value, and one that cannot run."""
    numbers = [20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0]
    values = {NASTY_NAME: [number + 1 for number in numbers], "GPEN": [math.nan, None, *numbers[2:]], "plain": numbers}
    results = made_results(values, NASTY_KEYS, columns=(PSNR, LPIPS, FID))
    results.title = "</title><script>window.hit=1</script>"
    results.rows.append(Row("broken", "broken", failure="CheckpointError: no file <i>"))
    return results


def draw_images(root: Path, results: Results) -> None:
    """Write an image wherever the results say that there is one; which one it is can be read off its colors."""
    for place, key in enumerate(results.keys):
        write_image(truth_path(root, key), shade(place, 200))
        for number, condition in enumerate(results.conditions):
            write_image(input_path(root, condition, key), shade(place, 10 * number)[:4, :4])
            for row in results.rows:
                if "failure" not in results.images.get(row.name, {}).get(condition, {}).get(key, {"failure": ""}):
                    write_image(restored_path(root, row, condition, key), shade(place, 100 + 10 * number))


def shade(blue: int, green: int) -> np.ndarray:
    """An image of one color, (SIZE, SIZE, 3) BGR uint8."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[..., 0], image[..., 1] = blue, green
    return image
