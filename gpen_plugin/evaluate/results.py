"""What an evaluation has found out: the one file that tables, sheets, pages and studies are made of."""

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gpen_plugin.errors import DataError
from gpen_plugin.images.files import write_whole

FILE = "results.json"
FORMAT = 1


@dataclass(frozen=True)
class Column:
    """A metric.

    Attributes:
        name: as the option file calls it, e.g. ``psnr``.
        label: for a table's head, e.g. ``FID (GT)``; it says what a distance is measured to.
        lower_is_better: which way is better.
        of_sets: whether it has one value per set of images, and none per image.
        decimals: how many are printed.
        note: what a reader has to know, e.g. the file that is missing where there are no values; or empty.
        settings: how it was measured, as JSON; columns whose settings differ cannot stand side by side.
    """

    name: str
    label: str
    lower_is_better: bool
    of_sets: bool = False
    decimals: int = 2
    note: str = ""
    settings: str = ""

    @property
    def head(self) -> str:
        """The label with the arrow that says which way is better."""
        return f"{self.label} {'↓' if self.lower_is_better else '↑'}"


@dataclass(frozen=True)
class Row:
    """A method, or a run of it.

    Attributes:
        name: for tables.
        folder: its images are below ``methods/<folder>``.
        description: what ran: network, weights and their hash, sizes, iteration counts.
        failure: why it could not run at all, or empty.
        run_of: the method of several runs that this is one of; empty for a method that ran once.
    """

    name: str
    folder: str
    description: str = ""
    failure: str = ""
    run_of: str = ""


@dataclass(frozen=True)
class Failure:
    """A method that gave nothing for an image."""

    method: str
    condition: str
    key: str
    reason: str


@dataclass
class Results:
    """Everything that was measured under one protocol.

    Attributes:
        name: of the evaluation.
        title: one line for the head of tables and pages.
        fingerprint: of the protocol, see `Fingerprint.to_dict`: at least ``digest`` and ``kind``.
        size: side of the results in pixels.
        keys: the images.
        conditions: e.g. ``8x``, ``16x``; one empty text where there is but one.
        columns: metrics, in the order of the option file.
        rows: methods, likewise; of a method that was trained several times, a row per run (see `pooled`).
        images: row name -> condition -> key -> {column name -> value}, or {"failure": reason}. A value is NaN where
            the metric has none for this image (no face was found, say).
        sets: row name -> condition -> {column name -> value} of metrics of whole sets.
        notes: what else a reader has to know, e.g. conditions that the size does not allow.
    """

    name: str
    title: str
    fingerprint: dict
    size: int
    keys: list[str]
    conditions: list[str]
    columns: list[Column]
    rows: list[Row]
    images: dict[str, dict[str, dict[str, dict]]] = field(default_factory=dict)
    sets: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def has_truth(self) -> bool:
        """Whether there is ground truth to show."""
        return self.fingerprint["kind"] != "wild"

    def of_images(self, row: str, condition: str, column: str) -> np.ndarray:
        """The metric of each image in the order of `keys`, (N,) float64; NaN where there is none."""
        found = self.images.get(row, {}).get(condition, {})
        values = np.array([found.get(key, {}).get(column, math.nan) for key in self.keys], dtype=np.float64)
        return np.where(np.isfinite(values), values, math.nan)

    def value(self, row: str, condition: str, column: Column) -> float:
        """A cell of the table: the value of the set, or the mean over the images that have one. NaN if none has."""
        if column.of_sets:
            return self.sets.get(row, {}).get(condition, {}).get(column.name, math.nan)
        values = self.of_images(row, condition, column.name)
        return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan

    def has_image(self, row: str, condition: str, key: str) -> bool:
        """Whether the method gave an image for the image."""
        return "failure" not in self.images.get(row, {}).get(condition, {}).get(key, {"failure": ""})

    def restored(self, row: str, condition: str) -> int:
        """How many images the method gave an image for."""
        found = self.images.get(row, {}).get(condition, {})
        return sum("failure" not in found[key] for key in self.keys if key in found)

    def failures(self) -> Iterator[Failure]:
        """Each image that a method gave nothing for."""
        for row in self.rows:
            for condition in self.conditions:
                found = self.images.get(row.name, {}).get(condition, {})
                for key in self.keys:
                    if "failure" in found.get(key, {}):
                        yield Failure(row.name, condition, key, found[key]["failure"])


def image_of(root: Path, row: Row, condition: str, key: str) -> Path:
    """Where a restored image of an evaluation lies."""
    return image_below(root / "methods" / row.folder, condition, key)


def image_below(folder: Path, condition: str, key: str) -> Path:
    """Where a restored image lies in the folder of its method."""
    return folder / "restored" / condition / f"{key}.png"


def input_of(root: Path, condition: str, key: str) -> Path:
    """Where the degraded image lies, at its own size."""
    return root / "inputs" / condition / f"{key}.png"


def truth_of(root: Path, key: str) -> Path:
    """Where the ground truth lies."""
    return root / "truth" / f"{key}.png"


def write_results(root: Path, results: Results) -> None:
    """Write ``results.json`` below `root`, whole or not at all."""
    content = {"format": FORMAT, **dataclasses.asdict(results)}
    text = json.dumps(_without_nan(content), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(root / FILE, text + "\n")


def read_results(root: Path) -> Results:
    """Read the results of an evaluation.

    Raises:
        DataError: there are none, or the file is damaged.
    """
    path = root / FILE
    hint = "Run: python -m gpen_plugin.evaluate -opt FILE"
    if not path.is_file():
        raise DataError(str(path), "not there", "the results of an evaluation", hint)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        content["columns"] = [Column(**column) for column in content["columns"]]
        content["rows"] = [Row(**row) for row in content["rows"]]
        content["images"] = _with_nan(content["images"])
        content["sets"] = _with_nan(content["sets"])
        return Results(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(str(path), f"cannot be read ({error})", "the results of an evaluation", hint) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file; see `write_whole`."""
    write_whole(path, text.encode())


def delete_file(path: Path) -> None:
    """Delete a file of an evaluation, if it is there. Errors are those of `delete_folder`."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _not_deleted(path, error) from error


def delete_folder(folder: Path) -> None:
    """Delete a folder of an evaluation, if it is there.

    Raises:
        DataError: something of it would stay, and be taken for what is made next.
    """
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise _not_deleted(folder, error) from error


def _not_deleted(path: Path, error: OSError) -> DataError:
    got = f"cannot be deleted ({error.strerror or error})"
    return DataError(str(path), got, "a writable folder", "Delete it by hand.")


def _without_nan(content: object) -> object:
    """JSON has no NaN: null stands for it."""
    if isinstance(content, Mapping):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _with_nan(content: object) -> object:
    if isinstance(content, Mapping):
        return {key: _with_nan(value) for key, value in content.items()}
    return math.nan if content is None else content
