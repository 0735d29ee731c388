"""A table of labels of the images, and the groups that they form."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from gpen_plugin.data.image_source import IMAGE_SUFFIXES
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.options import ReportOptions

MAX_SEPARATE_NUMBERS = 8  # numbers beyond this are cut into groups
THIRDS = 3
MAX_GROUPS = 40  # more texts are names, not groups
LEADING_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Labels:
    """A table of labels."""

    columns: list[str]  # those that are used
    # image as the table calls it, without an image's ending -> column -> label; empty where it has none
    of_image: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, eq=False)
class Group:
    """Images with one label."""

    column: str  # of the label
    name: str  # the label, or the smallest and the largest number of the group
    members: np.ndarray  # which images these are, (N,) bool
    others: np.ndarray  # which images have another label of the column, (N,) bool

    @property
    def images(self) -> int:
        """The number of images."""
        return int(self.members.sum())


def read_labels(options: ReportOptions) -> Labels | None:
    """Read the table of labels, if the options name one.

    DataError: it cannot be read, or an image stands in it twice. OptionError: a column is missing.
    """
    if options.labels is None:
        return None
    where, path = "report:labels", Path(options.labels).expanduser()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(where, f"{path} cannot be read ({error})", "a CSV file") from error
    heads = [head.strip() for head in lines[0]] if lines else []
    if len(heads) < 2 or len(set(heads)) < len(heads):
        got = f"{path} begins with {', '.join(heads) or 'nothing'}"
        raise DataError(where, got, "a head line: the image, and columns that differ in their names")
    return Labels(_chosen(heads[1:], options.label_columns), _by_image(heads, lines[1:], f"{where}: {path}"))


def _chosen(there: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    missing = [name for name in wanted or () if name not in there]
    if missing:
        got = f"got {', '.join(missing)}, which the labels do not have"
        raise OptionError("report:label_columns", got, "some of " + ", ".join(there))
    return list(there if wanted is None else wanted)


def _by_image(heads: Sequence[str], lines: Sequence[Sequence[str]], where: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        image = _without_ending(line[0].strip())
        if image in found:
            raise DataError(where, f"'{image}' stands there twice", "one line per image, whatever its ending")
        found[image] = {head: cell.strip() for head, cell in zip(heads[1:], line[1:], strict=False)}
    return found


def _without_ending(name: str) -> str:
    """The key of an image's file name; a key may contain dots."""
    return name[: -len(suffix)] if (suffix := PurePosixPath(name).suffix).lower() in IMAGE_SUFFIXES else name


def split_into_groups(labels: Labels, keys: Sequence[str]) -> tuple[list[Group], list[str]]:
    """Group the images by each column of the labels.

    Return the groups, column by column, sorted by label; and notes on the labels for the reader.
    """
    # A column of more than eight different numbers is cut into three groups of about equal count, or two: equal numbers
    # stay together.
    groups, notes = [], _notes(labels, keys)
    for column in labels.columns:
        texts = np.array([labels.of_image.get(key, {}).get(column, "") for key in keys], dtype=object)
        known = texts != ""
        lacking = int(sum(key in labels.of_image for key in keys) - known.sum())
        if lacking:
            notes.append(f"{column}: {_counted(lacking)} labeled, but not in this column.")
        names = _names(texts[known])
        if len(set(names)) > MAX_GROUPS:
            notes.append(f"{column}: {len(set(names))} different texts are no groups; left out.")
            continue
        named = np.full(len(keys), "", dtype=object)
        named[known] = names
        for name in dict.fromkeys(sorted(names, key=_order)):
            groups.append(Group(column, name, named == name, known & (named != name)))
    return groups, notes


def _notes(labels: Labels, keys: Sequence[str]) -> list[str]:
    unlabeled = sum(key not in labels.of_image for key in keys)
    unknown = len(set(labels.of_image) - set(keys))
    notes = [f"{_counted(unlabeled)} not labeled and in no group."] if unlabeled else []
    if unknown == 1:
        notes.append("1 line of the labels belongs to no image.")
    elif unknown:
        notes.append(f"{unknown} lines of the labels belong to no image.")
    return notes


def _counted(images: int) -> str:
    return "1 image is" if images == 1 else f"{images} images are"


def _names(texts: Sequence[str]) -> list[str]:
    """The group of each label."""
    numbers = [_number(text) for text in texts]
    if None in numbers or len(set(numbers)) <= MAX_SEPARATE_NUMBERS:
        return list(texts)
    values = np.array(numbers)
    ordered = np.sort(values)
    starts = np.flatnonzero(np.diff(ordered)) + 1  # of each number but the smallest
    wanted = [math.ceil(len(values) * part / THIRDS) for part in range(1, THIRDS)]
    cuts = {int(starts[np.abs(starts - position).argmin()]) for position in wanted}
    group_of = np.searchsorted(ordered[sorted(cuts)], values, side="right")
    ends = {group: (values[group_of == group].min(), values[group_of == group].max()) for group in set(group_of)}
    names = _ranges(ends, max(0, 1 - math.floor(math.log10(ordered[-1] - ordered[0]))))
    return [names[group] for group in group_of]


def _ranges(ends: Mapping[int, tuple[float, float]], decimals: int) -> dict[int, str]:
    """The ends of each group as text, with as few decimals as keep the groups apart."""
    names = {}
    for more in range(decimals, decimals + 17):
        printed = {group: [_printed(end, more) for end in pair] for group, pair in ends.items()}
        names = {group: " to ".join(dict.fromkeys(pair)) for group, pair in printed.items()}
        if len(set(names.values())) == len(names):
            break
    return names


def _printed(number: float, decimals: int) -> str:
    return f"{round(number, decimals) + 0.0:.{decimals}f}"  # no -0.00


def _order(name: str) -> tuple[float, str]:
    """Sort key: the number that a label begins with, so that 3-9 comes before 20-29; other labels last."""
    number = LEADING_NUMBER.match(name)
    return (float(number[0]) if number else math.inf, name)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
