"""Statistics of tables: means over runs, ranking, bootstrap intervals, paired differences; their summary with notes."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from gpen_plugin.evaluate.protocols import ALL_SETS, join_keys
from gpen_plugin.evaluate.results import Column, Results, Row, group_by_method

LEVEL = 0.95
CHUNK = 2_000_000  # indices in memory at once
MAX_LISTED_FAILURES = 20
MAX_LISTED_IMAGES = 3  # of a failure
MAX_REASON = 600  # characters


def split_test_sets(results: Results) -> Results:
    """Results with a condition per test set and one of all images, as the tables show them; others are unchanged.

    A metric that some test set has no values of, for want of ground truth, has none over all images.
    """
    if not results.test_sets:
        return results
    images: dict = {}
    for row, by_condition in results.images.items():
        entries = by_condition[""]
        images[row] = {name: {key: entries[key] for key in keys} for name, keys in results.test_sets.items()}
    columns = {column.name for column in results.columns if not column.of_sets}
    for name in results.test_sets:
        found = (entry for by_set in images.values() for entry in by_set[name].values())
        columns &= {column for entry in found for column in entry}
    columns |= {"failure", "skipped"}
    for row, by_set in images.items():
        entries = results.images[row][""]
        by_set[ALL_SETS] = {
            key: {name: value for name, value in entry.items() if name in columns} for key, entry in entries.items()
        }
    sets = {
        row: {(condition or ALL_SETS): values for condition, values in by_condition.items()}
        for row, by_condition in results.sets.items()
    }
    return dataclasses.replace(results, conditions=[*results.test_sets, ALL_SETS], images=images, sets=sets)


def average_runs(results: Results) -> Results:
    """Results with one row per method.

    A value is the mean over the runs, and NaN if a run has none, so that all means are over the same runs. An image
    that a run failed on, and a run that could not be built, are failures of the method. Its images are those of the
    first run.
    """
    averaged = dataclasses.replace(results, rows=[], images={}, sets={})
    for name, rows in group_by_method(results.rows).items():
        if not rows[0].run_of:
            averaged.rows += rows
            averaged.images |= {name: results.images[name]} if name in results.images else {}
            averaged.sets |= {name: results.sets[name]} if name in results.sets else {}
            continue
        row = _average_row(name, rows)
        averaged.rows.append(row)
        if not row.failure:
            averaged.images[name] = _average_images(results, rows)
            averaged.sets[name] = _average_sets(results, rows)
    return averaged


def _average_row(name: str, rows: Sequence[Row]) -> Row:
    failures = [f"{_run(row)}: {row.failure}" for row in rows if row.failure]
    return Row(name, rows[0].folder, _described(rows), "; ".join(failures))


def _described(rows: Sequence[Row]) -> str:
    """The descriptions of the runs, part by part; equal parts stand once."""
    parts = itertools.zip_longest(*(row.description.split("; ") for row in rows if row.description), fillvalue="")
    said = [", ".join(dict.fromkeys(filter(None, part))) for part in parts]
    counted = f"mean over {len(rows)} runs" if len(rows) > 1 else "1 run"
    return "; ".join([counted, *said]) if said else ""


def _run(row: Row) -> str:
    return row.name.removeprefix(f"{row.run_of}, ")


def _average_images(results: Results, rows: Sequence[Row]) -> dict:
    columns = [column for column in results.columns if not column.of_sets]
    return {
        condition: {key: _average_image(results, rows, condition, key, columns) for key in results.keys_of(condition)}
        for condition in results.conditions
        if all(condition in results.images.get(row.name, {}) for row in rows)
    }


def _average_image(results: Results, rows: Sequence[Row], condition: str, key: str, columns: Sequence[Column]) -> dict:
    entries = [results.images[row.name][condition].get(key, {}) for row in rows]
    failures = [
        f"{_run(row)}: {entry['failure']}" for row, entry in zip(rows, entries, strict=True) if "failure" in entry
    ]
    skipped = [entry for entry in entries if "skipped" in entry]  # by one run as by all
    return {"failure": "; ".join(failures)} if failures else skipped[0] if skipped else _means(entries, columns)


def _average_sets(results: Results, rows: Sequence[Row]) -> dict:
    columns = [column for column in results.columns if column.of_sets]
    return {
        condition: _means([results.sets.get(row.name, {}).get(condition, {}) for row in rows], columns)
        for condition in results.conditions
    }


def _means(entries: Sequence[dict], columns: Sequence[Column]) -> dict[str, float]:
    """The mean of each column that any run has; NaN unless all have it."""
    names = [column.name for column in columns if any(column.name in entry for entry in entries)]
    return {name: float(np.mean([entry.get(name, np.nan) for entry in entries])) for name in names}


class CellIndex(NamedTuple):
    """A cell of a table: names of the row, the condition and the column."""

    row: str
    condition: str
    column: str


@dataclass(frozen=True)
class Cell:
    """A number in a table."""

    value: float  # NaN where there is none
    text: str  # as it is printed; ``-`` where there is none
    images: int  # how many it is computed over
    complete: bool  # whether these are all the images of the evaluation that any method has a value for
    mark: Literal["best", "second", ""] = ""  # ``best``, ``second`` or empty


Cells = Mapping[CellIndex, Cell]


def format_cells(results: Results) -> Cells:
    """Fill every cell of a table, and rank the comparable ones; values that print alike share a mark."""
    # Means over different images are not compared: a method that failed on an image, or has no value where another has
    # one, would profit. Such a cell is incomplete and unranked.
    cells = {}
    for condition in results.conditions:
        for column in results.columns:
            found = _format_column(results, condition, column)
            cells |= _ranked(found, column) if column.ranked else found
    return cells


def _format_column(results: Results, condition: str, column: Column) -> dict[CellIndex, Cell]:
    has_value = {row.name: _has_value(results, row, condition, column) for row in results.rows}
    wanted = np.logical_or.reduce(list(has_value.values()))
    cells = {}
    for row in results.rows:
        value = results.value(row.name, condition, column)
        text = f"{round(value, column.decimals) + 0.0:.{column.decimals}f}" if np.isfinite(value) else "-"  # no -0.00
        has = has_value[row.name]
        complete = is_complete(results, row, condition) and bool((has == wanted).all())
        cells[CellIndex(row.name, condition, column.name)] = Cell(value, text, int(has.sum()), complete)
    return cells


def _has_value(results: Results, row: Row, condition: str, column: Column) -> np.ndarray:
    """Which images a value rests on, (N,) bool."""
    if not column.of_sets:
        return np.isfinite(results.image_values(row.name, condition, column.name))
    has_value = bool(np.isfinite(results.value(row.name, condition, column)))
    keys = results.keys_of(condition)
    return np.array([has_value and results.has_image(row.name, condition, key) for key in keys])


def _ranked(cells: Mapping[CellIndex, Cell], column: Column) -> dict[CellIndex, Cell]:
    compared = [cell.text for cell in cells.values() if cell.complete and cell.text != "-"]
    order = sorted(set(compared), key=float, reverse=not column.lower_is_better) if len(compared) > 1 else []
    mark_of = dict(zip(order, ("best", "second"), strict=False))
    return {
        index: replace(cell, mark=mark_of.get(cell.text, "") if cell.complete else "") for index, cell in cells.items()
    }


def is_complete(results: Results, row: Row, condition: str) -> bool:
    """Whether the method restored every image: neither failed on one nor was skipped."""
    return not row.failure and results.restored(row.name, condition) == len(results.keys_of(condition))


def attempted(results: Results, row: Row, condition: str) -> bool:
    """Whether the method has results or failures in the condition; the paper's tables show ``-`` if not."""
    return bool(row.failure or results.images.get(row.name, {}).get(condition))


class Spread(NamedTuple):
    """The values of a method's runs."""

    values: tuple[float, ...]  # one per run; their mean is the method's value
    deviation: float  # their standard deviation, with n - 1


def run_std(results: Results, table: Results) -> dict[CellIndex, Spread]:
    """The spread of every value that is a mean over two or more runs."""
    found = {}
    for method, rows in group_by_method(results.rows).items():
        if len(rows) < 2:
            continue
        for condition in results.conditions:
            for column in (column for column in results.columns if column.ranked):
                values = _values(results, table, method, rows, condition, column)
                if values and np.isfinite(values).all():
                    index = CellIndex(method, condition, column.name)
                    found[index] = Spread(tuple(values), float(np.std(values, ddof=1)))
    return found


def _values(
    results: Results, table: Results, method: str, rows: list[Row], condition: str, column: Column
) -> list[float]:
    """The value of each run, over the images that all runs have; empty if there is none."""
    if not np.isfinite(table.value(method, condition, column)):
        return []
    if column.of_sets:
        return [results.value(row.name, condition, column) for row in rows]
    shared = np.isfinite(table.image_values(method, condition, column.name))
    return [float(results.image_values(row.name, condition, column.name)[shared].mean()) for row in rows]


class Interval(NamedTuple):
    """A 95 % confidence interval of a mean."""

    low: float
    high: float


class Difference(NamedTuple):
    """How far a method is from the best one of its column, over the images that both have a value for."""

    mean: float  # the method's value less the best one's
    low: float  # end of the 95 % interval of `mean`
    high: float  # the other end
    images: int  # how many both have

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def mean_ci(
    values: np.ndarray,  # one row per image, (N, C) float; NaN where an image has no value
    resamples: int,
    seed: int,
) -> list[Interval | None]:
    """Bootstrap percentile intervals of the mean of each column (Efron 1979), on the same resamples.

    One per column; None if fewer than two images have a value.
    """
    known = np.isfinite(values)  # (N, C)
    enough = known.sum(axis=0) >= 2
    if not enough.any():
        return [None] * values.shape[1]
    found = iter(percentile_intervals(resampled_means(values[:, enough], resamples, seed)))
    return [next(found) if has else None for has in enough]


def resampled_means(
    # one row per image, (N, C) float; NaN where an image has no value, but not in all of a column
    values: np.ndarray,
    resamples: int,
    seed: int,  # the same seed and number of images give the same resamples
) -> np.ndarray:
    """Means of each column over images sampled with replacement, (resamples, C) float64.

    NaN if a resample has no image with a value.
    """
    known = np.isfinite(values)  # (N, C)
    # Relative to the first value, so that a constant column gives exactly 0.
    origin = values[known.argmax(axis=0), np.arange(values.shape[1])]
    return origin + _bootstrap_means(np.where(known, values - origin, 0.0), known, resamples, seed)


def percentile_intervals(means: np.ndarray) -> list[Interval]:
    """The interval of each column of resampled means, (resamples, C)."""
    tail = 50 * (1 - LEVEL)
    ends = np.nanpercentile(means, [tail, 100 - tail], axis=0)  # (2, C)
    return [Interval(*pair) for pair in ends.T.tolist()]


def _bootstrap_means(values: np.ndarray, known: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of resamples, (resamples, C), as a product of matrices with the image counts as weights."""
    rng = np.random.default_rng(seed)
    count = len(values)
    step = max(1, CHUNK // count)
    means = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, step):
        chunk = min(step, resamples - start)
        images = rng.integers(0, count, (chunk, count)) + count * np.arange(chunk)[:, None]
        weights = np.bincount(images.ravel(), minlength=chunk * count).reshape(chunk, count).astype(np.float64)
        with np.errstate(invalid="ignore"):  # 0 / 0: the resample has no image with a value
            means[start : start + chunk] = (weights @ values) / (weights @ known)
    return means


def bootstrap_ci(results: Results, resamples: int, seed: int) -> dict[CellIndex, Interval]:
    """The interval of every mean of a table."""
    found = {}
    for condition in results.conditions:
        indices = [
            CellIndex(row.name, condition, column.name)
            for column in results.columns
            if not column.of_sets
            for row in results.rows
        ]
        if not indices:
            continue
        values = np.stack([results.image_values(*index) for index in indices], axis=1)  # (N, C)
        intervals = mean_ci(values, resamples, seed)
        found |= {index: interval for index, interval in zip(indices, intervals, strict=True) if interval}
    return found


def paired_difference_ci(results: Results, cells: Cells, resamples: int, seed: int) -> dict[CellIndex, Difference]:
    """The difference of each method from the best one of its column, if one is ranked best."""
    found = {}
    for condition in results.conditions:
        compared = {}
        for column in results.columns:
            best = _best(results, cells, condition, column)
            if column.of_sets or best is None:
                continue
            values = results.image_values(best, condition, column.name)
            for row in results.rows:
                if row.name != best and cells[row.name, condition, column.name].images:
                    index = CellIndex(row.name, condition, column.name)
                    compared[index] = results.image_values(*index) - values
        if not compared:
            continue
        intervals = mean_ci(np.stack(list(compared.values()), axis=1), resamples, seed)
        for (index, values), interval in zip(compared.items(), intervals, strict=True):
            if interval:
                found[index] = Difference(float(np.nanmean(values)), *interval, int(np.isfinite(values).sum()))
    return found


def _best(results: Results, cells: Cells, condition: str, column: Column) -> str | None:
    """The best of the marked methods: several share the mark if they print alike."""
    marked = [row.name for row in results.rows if cells[row.name, condition, column.name].mark == "best"]
    pick = min if column.lower_is_better else max
    return pick(marked, key=lambda name: cells[name, condition, column.name].value, default=None)


class Head(NamedTuple):
    """The head of a column of numbers."""

    column: Column
    condition: str


@dataclass(frozen=True)
class Summary:
    """Results, ranked and with intervals."""

    results: Results  # a row per method
    unaveraged: Results  # a row per run of a method that was trained several times
    cells: Cells  # every number
    intervals: dict[CellIndex, Interval]  # 95 % intervals of those that are means
    differences: dict[CellIndex, Difference]  # of the methods from the best one of a column
    spreads: dict[CellIndex, Spread]  # between the runs of those methods that were trained several times
    resamples: int  # how many the intervals rest on
    seed: int  # of the drawing of resamples

    @classmethod
    def of(cls, results: Results, resamples: int, seed: int) -> "Summary":
        """Average the runs of each method, rank the methods and compute the intervals."""
        results = split_test_sets(results)
        table = average_runs(results)
        cells = format_cells(table)
        intervals = bootstrap_ci(table, resamples, seed)
        differences = paired_difference_ci(table, cells, resamples, seed)
        return cls(table, results, cells, intervals, differences, run_std(results, table), resamples, seed)

    @property
    def has_conditions(self) -> bool:
        """Whether each metric has a column per condition, as in Table 3 of the paper, or per test set."""
        return len(self.results.conditions) > 1

    @property
    def heads(self) -> list[Head]:
        """The columns of numbers, left to right: metrics, and below each the conditions."""
        return [Head(column, condition) for column in self.results.columns for condition in self.results.conditions]

    def cell(self, row: Row, head: Head) -> Cell:
        """A number of the table."""
        return self.cells[row.name, head.condition, head.column.name]

    def spread_text(self, row: Row, head: Head) -> str:
        """The standard deviation between runs, e.g. ``± 0.12``; empty without runs."""
        spread = self.spreads.get(CellIndex(row.name, head.condition, head.column.name))
        return f"± {spread.deviation:.{head.column.decimals}f}" if spread else ""

    def is_incomplete(self, row: Row, head: Head) -> bool:
        """Whether the cell gets a dagger: it lacks images that others have."""
        if not head.column.ranked or self.cell(row, head).complete or not attempted(self.results, row, head.condition):
            return False
        return not is_complete(self.results, row, head.condition) or self._is_measured(row, head)

    def _is_measured(self, row: Row, head: Head) -> bool:
        """Whether the results have this metric of the row; of merged evaluations, one may have measured others."""
        if head.column.of_sets:
            return head.column.name in self.results.sets.get(row.name, {}).get(head.condition, {})
        entries = self.results.images.get(row.name, {}).get(head.condition, {})
        return any(head.column.name in entry for entry in entries.values())

    def is_near_best(self, row: Row, head: Head) -> bool:
        """Whether the method is not clearly worse than the best one."""
        cell = self.cell(row, head)
        difference = self.differences.get(CellIndex(row.name, head.condition, head.column.name))
        return cell.complete and cell.mark != "best" and difference is not None and not difference.is_clear

    def images_of(self, row: Row) -> str:
        """The number of restored images, and of all if some are missing, in the only condition."""
        restored, wanted = self.results.restored(row.name, self.results.conditions[0]), len(self.results.keys)
        return str(restored) if restored == wanted else f"{restored}/{wanted}"

    def notes(self, left_out: Sequence[Column] = ()) -> list[str]:
        """The notes below a table, as plain text; metrics that the table has `left_out` share one."""
        shown = [column for column in self.results.columns if column not in left_out]
        lacking = "; ".join(f"{column.label} ({self._note_of(column).rstrip('.')})" for column in left_out)
        return [
            f"Protocol: {self.results.fingerprint['line']}",
            *self._general_notes(shown),
            *self._run_notes(),
            *(f"{column.head}: {note}" for column in shown if (note := self._note_of(column))),
            *([f"Left out, without values: {lacking}."] if lacking else []),
            *self._unranked_notes(),
            *self._unmeasured_notes(shown),
            *self._skipped_notes(),
            *self._failure_notes(),
            *(one_line(note) for note in self.results.notes),
        ]

    def _note_of(self, column: Column) -> str:
        valued = any(index.column == column.name and cell.images for index, cell in self.cells.items())
        return one_line(column.note) or ("" if valued else "no value on any image.")

    def _general_notes(self, columns: Sequence[Column]) -> Iterator[str]:
        images = len(self.results.keys)
        counted = "1 image" if images == 1 else f"{images} images"
        if self.results.test_sets:
            counted += f" ({', '.join(f'{name} {len(keys)}' for name, keys in self.results.test_sets.items())})"
        yield f"{counted}. Best in bold, second underlined. Values that print alike share a mark."
        if any(self.is_near_best(row, head) for row in self.results.rows for head in self.heads):
            how = f"{self.resamples} bootstrap resamples of the images, seed {self.seed}"
            yield f"≈ no clear difference from the best: the 95 % interval of the paired difference contains 0 ({how})."
        if images < 2:
            yield "No intervals: they need two images or more."
            return
        of_sets = [column.label for column in columns if column.of_sets and column.ranked]
        if of_sets:
            listed = ", ".join(of_sets)
            yield f"No intervals for {listed}: resampling with repetitions biases a distance between sets."

    def _run_notes(self) -> Iterator[str]:
        counts: dict[str, int] = {}
        for index, spread in self.spreads.items():
            counts[index.row] = len(spread.values)
        if counts:
            listed = ", ".join(f"{name} ({count})" for name, count in counts.items())
            yield (
                "± is the standard deviation (n - 1) between the runs of a method, each with weights of its own:"
                f" {listed}. The value is the mean over the runs, image by image. Intervals and differences are over"
                " the images, for these runs. Only ± shows how much another training would differ. The images shown"
                " are those of the first run, with mean values beside them."
            )

    def _unranked_notes(self) -> Iterator[str]:
        unrestored, valueless = [], {column.label: [] for column in self.results.columns}
        for row in self.results.rows:
            for condition in self.results.conditions:
                if not attempted(self.results, row, condition):
                    continue
                restored, skipped = (
                    count(row.name, condition) for count in (self.results.restored, self.results.skipped)
                )
                if restored + skipped < len(self.results.keys_of(condition)):
                    unrestored.append(self._counted(row, condition, restored))
                    continue
                if skipped:
                    continue  # has notes of its own
                for head in (Head(column, condition) for column in self.results.columns):
                    if self.is_incomplete(row, head):
                        valueless[head.column.label].append(self._counted(row, condition, self.cell(row, head).images))
        if unrestored:
            yield f"† Not ranked, because it failed on images: {', '.join(unrestored)}."
        for label, methods in valueless.items():
            if methods:
                yield f"† Not ranked by {label}, which has no value on some images: {', '.join(methods)}."

    def _unmeasured_notes(self, columns: Sequence[Column]) -> Iterator[str]:
        for column in (column for column in columns if column.ranked):
            heads = [Head(column, condition) for condition in self.results.conditions]
            whole = [row for row in self.results.rows if all(is_complete(self.results, row, each[1]) for each in heads)]
            lacking = [row.name for row in whole if not any(self._is_measured(row, head) for head in heads)]
            if lacking and len(lacking) < len(self.results.rows):
                yield f"{column.label} has no values for {', '.join(lacking)}."

    def _skipped_notes(self) -> Iterator[str]:
        """What the values of a method without all images can be compared with: the others on the same images."""
        for row in self.results.rows:
            for condition in self.results.conditions:
                if not self.results.skipped(row.name, condition):
                    continue
                counted = self._counted(row, condition, self.results.restored(row.name, condition))
                compared = [self._on_same_images(row, Head(column, condition)) for column in self.results.columns]
                yield " ".join(
                    [
                        f"† Not ranked, because it needs a reference face, which only some images have: {counted}.",
                        *filter(None, compared),
                    ]
                )

    def _on_same_images(self, row: Row, head: Head) -> str:
        """The value of a method, and the best of the ranked methods on the same images, as text."""
        index = CellIndex(row.name, head.condition, head.column.name)
        difference = self.differences.get(index)
        best = _best(self.results, self.cells, head.condition, head.column)
        if difference is None or best is None:
            return ""
        own = self.results.image_values(*index)
        other = self.results.image_values(best, head.condition, head.column.name)
        both, decimals = np.isfinite(own) & np.isfinite(other), head.column.decimals
        mean, low, high = (f"{number + 0.0:+.{decimals}f}" for number in difference[:3])
        return (
            f"{head.column.label} on these {difference.images} images: {own[both].mean():.{decimals}f}, {best}"
            f" {other[both].mean():.{decimals}f}, paired difference {mean} [{low}, {high}]."
        )

    def _counted(self, row: Row, condition: str, images: int) -> str:
        name = f"{row.name}, {condition}" if condition else row.name
        return f"{name} (n = {images}/{len(self.results.keys_of(condition))})"

    def _failure_notes(self) -> Iterator[str]:
        for row in self.results.rows:
            if row.failure:
                yield f"{row.name} could not run: {one_line(row.failure)}"
        lines = list(failure_lines(self.results))
        yield from lines[:MAX_LISTED_FAILURES]
        if len(lines) > MAX_LISTED_FAILURES:
            yield f"... and {len(lines) - MAX_LISTED_FAILURES} more failures, all in results.json."


def failure_lines(results: Results) -> Iterator[str]:
    """A line per method, condition and reason of failed images."""
    keys_of: dict[tuple[str, str, str], list[str]] = {}
    for failure in results.failures():
        keys_of.setdefault((failure.method, failure.condition, failure.reason), []).append(failure.key)
    for (method, condition, reason), keys in keys_of.items():
        name = f"{method}, {condition}" if condition else method
        images = f"{len(keys)} of {len(results.keys_of(condition))} images ({join_keys(keys, MAX_LISTED_IMAGES)})"
        yield f"Failed: {name}, {images if len(keys) > 1 else f'image {keys[0]}'}: {one_line(reason)}"


def one_line(text: str) -> str:
    """Text without line breaks, cut if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_REASON else f"{line[: MAX_REASON - 1]}…"
