"""The means of a table by groups of images, which show whether a method serves some faces worse than others.

The groups come from a table of labels of the images.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from gpen_plugin.data.labels import Labels, read_label_table
from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate.options import ReportOptions
from gpen_plugin.evaluate.results import Column, Results
from gpen_plugin.evaluate.stats import CellIndex, Interval, Summary, percentile_intervals, resampled_means

MAX_SEPARATE_NUMBERS = 8  # numbers beyond this are cut into groups
THIRDS = 3
MAX_GROUPS = 40  # more texts are names, not groups
LEADING_NUMBER = re.compile(r"-?\d+(\.\d+)?")

MIN_GROUP_IMAGES = 10  # images that an interval needs


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
    table = read_label_table(options.labels, "report:labels")
    return Labels(_chosen(table.columns, options.label_columns), table.of_image)


def _chosen(there: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    missing = [name for name in wanted or () if name not in there]
    if missing:
        got = f"got {', '.join(missing)}, which the labels do not have"
        raise OptionError("report:label_columns", got, "some of " + ", ".join(there))
    return list(there if wanted is None else wanted)


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


@dataclass(frozen=True)
class GroupMean:
    """A method's values of a group's images."""

    images: int  # how many have a value
    mean: float  # over them; NaN if there are none
    interval: Interval | None = None  # of the mean; None below ten images
    difference: float = np.nan  # `mean` less the mean of the images with another label; NaN if one of the two is
    difference_interval: Interval | None = None  # of the difference; None below ten images on either side
    # whether the group is served better or worse than the others, beyond the choice of images
    mark: Literal["better", "worse", ""] = ""


class GroupRow(NamedTuple):
    """A group in the table of one metric, with one value per method, left to right."""

    group: Group
    parts: list[GroupMean]


@dataclass(frozen=True, eq=False)
class GroupMeans:
    """Every mean of a table by groups."""

    summary: Summary  # the table
    groups: Sequence[Group]  # of images
    label_notes: Sequence[str]  # on the labels
    parts: dict[CellIndex, list[GroupMean]]  # by cell of the table, one per group

    @classmethod
    def of(cls, summary: Summary, labels: Labels) -> "GroupMeans":
        """Split the images of a summary by labels; resamples and seed are those of the summary."""
        results = summary.results
        groups, notes = split_into_groups(labels, results.keys)
        parts: dict[CellIndex, list[GroupMean]] = {}
        for condition in results.conditions:
            indices = [
                CellIndex(row.name, condition, column.name) for column in _columns(results) for row in results.rows
            ]
            lower = [column.lower_is_better for column in _columns(results) for _ in results.rows]
            if not indices:
                continue
            values = np.stack([results.image_values(*index) for index in indices], axis=1)  # (N, C)
            by_group = [_group_means(values, lower, group, summary.resamples, summary.seed) for group in groups]
            parts |= {index: [parts[number] for parts in by_group] for number, index in enumerate(indices)}
        return cls(summary, groups, notes, parts)

    @property
    def columns(self) -> list[Column]:
        """The metrics that have a value per image, and so per group."""
        return _columns(self.summary.results)

    def lines(self, column: Column, condition: str) -> Iterator[GroupRow]:
        """The rows of the table of a metric in a condition."""
        rows = self.summary.results.rows
        for number, group in enumerate(self.groups):
            yield GroupRow(group, [self.parts[row.name, condition, column.name][number] for row in rows])

    def by_label(self, column: Column, condition: str) -> dict[str, list[GroupRow]]:
        """The same rows by the column of the labels."""
        found: dict[str, list[GroupRow]] = {}
        for line in self.lines(column, condition):
            found.setdefault(line.group.column, []).append(line)
        return found

    def notes(self) -> list[str]:
        """The notes below the tables, as plain text."""
        summary = self.summary
        notes = [f"Protocol: {summary.results.fingerprint['line']}", *self.label_notes]
        if not self.groups:
            return [*notes, "No group of images: nothing to compare."]
        compared = sum(part.difference_interval is not None for parts in self.parts.values() for part in parts)
        marked = sum(bool(part.mark) for parts in self.parts.values() for part in parts)
        notes.append(
            "▲ better and ▼ worse than the images with another label of the same column: the 95 % interval of the"
            f" difference of the means excludes 0 ({summary.resamples} bootstrap resamples of the images, seed"
            f" {summary.seed})."
        )
        notes.append(
            f"{marked} of {compared} differences are marked; about {compared / 20:.3g} are expected by chance if no"
            " group differs. Correlated labels are marked together."
        )
        notes.append(f"Groups below {MIN_GROUP_IMAGES} images, or with fewer others, have no interval and no mark.")
        if summary.spreads:
            notes.append("Values of an image are means over the runs of a method.")
        return notes


def _columns(results: Results) -> list[Column]:
    return [column for column in results.columns if not column.of_sets]


def _group_means(values: np.ndarray, lower: Sequence[bool], group: Group, resamples: int, seed: int) -> list[GroupMean]:
    """One value per column of `values`, (N, C), which is NaN for images without a value."""
    sides = [np.where(images[:, None], values, np.nan) for images in (group.members, group.others)]
    inside, outside = np.split(_means_of_large_groups(np.concatenate(sides, axis=1), resamples, seed), 2, axis=1)
    intervals, differences = _intervals(inside), _intervals(inside - outside)
    parts = []
    for index, (own, others) in enumerate(zip(sides[0].T, sides[1].T, strict=True)):
        mean = _mean(own)
        mark = _mark(differences[index], lower[index])
        images = int(np.isfinite(own).sum())
        parts.append(GroupMean(images, mean, intervals[index], mean - _mean(others), differences[index], mark))
    return parts


def _means_of_large_groups(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Resampled means of each column, (resamples, C); NaN for columns of too few images."""
    enough = np.isfinite(values).sum(axis=0) >= MIN_GROUP_IMAGES
    means = np.full((resamples, values.shape[1]), np.nan)
    if enough.any():
        means[:, enough] = resampled_means(values[:, enough], resamples, seed)
    return means


def _intervals(means: np.ndarray) -> list[Interval | None]:
    """The interval of each column; None for a column of NaN."""
    has = np.isfinite(means).any(axis=0)
    found = iter(percentile_intervals(means[:, has]) if has.any() else ())
    return [next(found) if each else None for each in has]


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


def _mark(difference: Interval | None, lower_is_better: bool) -> Literal["better", "worse", ""]:
    if difference is None or difference.low <= 0 <= difference.high:
        return ""
    return "better" if (difference.high < 0) == lower_is_better else "worse"
