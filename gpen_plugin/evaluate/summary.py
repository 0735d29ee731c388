"""The content of every table of an evaluation in any format: cells, intervals, and the notes below."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gpen_plugin.evaluate.results import Column, Results, Row
from gpen_plugin.evaluate.stats import (
    Cell,
    CellIndex,
    Cells,
    Difference,
    Interval,
    Spread,
    attempted,
    average_runs,
    bootstrap_ci,
    format_cells,
    is_complete,
    paired_difference_ci,
    run_std,
)

MAX_LISTED_FAILURES = 20
MAX_REASON = 600


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
        table = average_runs(results)
        cells = format_cells(table)
        intervals = bootstrap_ci(table, resamples, seed)
        differences = paired_difference_ci(table, cells, resamples, seed)
        return cls(table, results, cells, intervals, differences, run_std(results, table), resamples, seed)

    @property
    def has_conditions(self) -> bool:
        """Whether each metric has a column per condition, as in Table 3 of the paper."""
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
        return not self.cell(row, head).complete and attempted(self.results, row, head.condition)

    def is_near_best(self, row: Row, head: Head) -> bool:
        """Whether the method is not clearly worse than the best one."""
        cell = self.cell(row, head)
        difference = self.differences.get(CellIndex(row.name, head.condition, head.column.name))
        return cell.complete and cell.mark != "best" and difference is not None and not difference.is_clear

    def images_of(self, row: Row) -> str:
        """The number of restored images, and of all if some are missing, in the only condition."""
        restored, wanted = self.results.restored(row.name, self.results.conditions[0]), len(self.results.keys)
        return str(restored) if restored == wanted else f"{restored}/{wanted}"

    def notes(self) -> list[str]:
        """The notes below a table, as plain text."""
        return [
            f"Protocol: {self.results.fingerprint['line']}",
            *self._general_notes(),
            *self._run_notes(),
            *(f"{column.head}: {note}" for column in self.results.columns if (note := self._note_of(column))),
            *self._unranked_notes(),
            *self._failure_notes(),
            *(one_line(note) for note in self.results.notes),
        ]

    def _note_of(self, column: Column) -> str:
        valued = any(index.column == column.name and cell.images for index, cell in self.cells.items())
        return one_line(column.note) or ("" if valued else "no value on any image.")

    def _general_notes(self) -> Iterator[str]:
        images = len(self.results.keys)
        counted = "1 image" if images == 1 else f"{images} images"
        yield f"{counted}. Best in bold, second underlined. Values that print alike share a mark."
        if any(self.is_near_best(row, head) for row in self.results.rows for head in self.heads):
            how = f"{self.resamples} bootstrap resamples of the images, seed {self.seed}"
            yield f"≈ no clear difference from the best: the 95 % interval of the paired difference contains 0 ({how})."
        if images < 2:
            yield "No intervals: they need two images or more."
            return
        of_sets = [column.label for column in self.results.columns if column.of_sets]
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
                if not is_complete(self.results, row, condition):
                    unrestored.append(self._counted(row, condition, self.results.restored(row.name, condition)))
                    continue
                for head in (Head(column, condition) for column in self.results.columns):
                    if self.is_incomplete(row, head):
                        valueless[head.column.label].append(self._counted(row, condition, self.cell(row, head).images))
        if unrestored:
            yield f"† Not ranked, because it failed on images: {', '.join(unrestored)}."
        for label, methods in valueless.items():
            if methods:
                yield f"† Not ranked by {label}, which has no value on some images: {', '.join(methods)}."

    def _counted(self, row: Row, condition: str, images: int) -> str:
        name = f"{row.name}, {condition}" if condition else row.name
        return f"{name} (n = {images}/{len(self.results.keys)})"

    def _failure_notes(self) -> Iterator[str]:
        for row in self.results.rows:
            if row.failure:
                yield f"{row.name} could not run: {one_line(row.failure)}"
        failures = list(self.results.failures())
        for failure in failures[:MAX_LISTED_FAILURES]:
            name = f"{failure.method}, {failure.condition}" if failure.condition else failure.method
            yield f"Failed: {name}, image {failure.key}: {one_line(failure.reason)}"
        if len(failures) > MAX_LISTED_FAILURES:
            yield f"... and {len(failures) - MAX_LISTED_FAILURES} more failures, all in results.json."


def one_line(text: str) -> str:
    """Text without line breaks, cut if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_REASON else f"{line[: MAX_REASON - 1]}…"
