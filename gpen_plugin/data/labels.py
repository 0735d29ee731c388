"""Labels of images, read from a table, and the weights that a training gives them.

A table is a CSV file with a head line, then an image per line: its key or file name, and a label per column.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpen_plugin.data.image_source import without_suffix
from gpen_plugin.data.roots import WeightedGroup
from gpen_plugin.errors import DataError, OptionError


@dataclass(frozen=True)
class Labels:
    """A table of labels."""

    columns: list[str]  # those that are used
    # image as the table calls it, without an image's ending -> column -> label; empty where it has none
    of_image: Mapping[str, Mapping[str, str]]


def read_label_table(path: str, where: str) -> Labels:
    """Read a table. DataError, under the key path `where`: it cannot be read, or an image stands in it twice."""
    file_path = Path(path).expanduser()
    try:
        with file_path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(where, f"{file_path} cannot be read ({error})", "a CSV file") from error
    heads = [head.strip() for head in lines[0]] if lines else []
    if len(heads) < 2 or len(set(heads)) < len(heads):
        got = f"{file_path} begins with {', '.join(heads) or 'nothing'}"
        raise DataError(where, got, "a head line: the image, and columns that differ in their names")
    found: dict[str, dict[str, str]] = {}
    for line in lines[1:]:
        image = without_suffix(line[0].strip())
        if image in found:
            expected = "one line per image, whatever its ending"
            raise DataError(f"{where}: {file_path}", f"'{image}' stands there twice", expected)
        found[image] = {head: cell.strip() for head, cell in zip(heads[1:], line[1:], strict=False)}
    return Labels(heads[1:], found)


@dataclass(frozen=True)
class LabelWeights:
    """The section ``label_weights``."""

    # CSV file of labels, as `report: labels` of an evaluation: a head line, then an image per line, its key or file
    # name first
    labels: str
    column: str  # the column of the label
    # label -> part of an epoch's images that have it, relative to the other weights; ~: all labels equally often
    weights: Mapping | None = None
    # weight of the images without a label, or with one that `weights` lacks; ~ refuses such images
    other: float | None = None

    def __post_init__(self):
        given = {f"weights:{label}": weight for label, weight in (self.weights or {}).items()}
        for name, weight in {**given, "other": self.other}.items():
            is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if weight is not None and not (is_number and 0 < weight < math.inf):
                raise OptionError(name, f"got {weight!r}", "a number above 0")
        if self.weights is not None and not self.weights:
            raise OptionError("weights", "got none", "labels with weights", "Write ~ for equal weights.")

    def groups(self, keys: Sequence[str], where: str) -> list[WeightedGroup]:
        """The images of each label, as indices in `keys`, the labels sorted.

        DataError as in `read_label_table`. OptionError, by key path: the column is missing, an image has no weight, or
        a weight no image.
        """
        table = read_label_table(self.labels, f"{where}:labels")
        if self.column not in table.columns:
            got = f"got {self.column}, which the labels do not have"
            raise OptionError(f"{where}:column", got, "one of " + ", ".join(table.columns))
        weights = None if self.weights is None else {str(label): weight for label, weight in self.weights.items()}
        members: dict[str, list[int]] = defaultdict(list)
        others: list[int] = []
        for index, key in enumerate(keys):
            label = table.of_image.get(key, {}).get(self.column, "")
            unknown = not label or (weights is not None and label not in weights)
            (others if unknown else members[label]).append(index)
        if others and self.other is None:
            key = keys[others[0]]
            got = f"{len(others)} of {len(keys)} images have no label with a weight, such as '{key}'"
            raise OptionError(f"{where}:weights", got, "a weight for each image", "Add the labels, or set other.")
        missing = [label for label in weights or () if label not in members]
        if missing:
            raise OptionError(f"{where}:weights:{missing[0]}", "no image has this label", "labels of the images")
        found = [
            WeightedGroup(f"{where}:weights:{label}", 1 if weights is None else weights[label], members[label], label)
            for label in sorted(members)
        ]
        return found + ([WeightedGroup(f"{where}:other", self.other, others, "other")] if others else [])
