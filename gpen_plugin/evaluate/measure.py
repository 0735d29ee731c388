"""Measure the restored images. What was measured is kept, so that a stopped evaluation goes on where it was."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from gpen_plugin.data.image_source import decode_image
from gpen_plugin.errors import CheckpointError, DataError, MissingFileError
from gpen_plugin.evaluate.distributed import Ranks, merged
from gpen_plugin.evaluate.metric_columns import MetricColumn
from gpen_plugin.evaluate.prepare import Prepared, Restored, enlarged
from gpen_plugin.evaluate.results import image_of
from gpen_plugin.evaluate.telling import format_error
from gpen_plugin.metrics.keys import NIQE_SMALLEST

Measured = dict[tuple[str, str, str], float]  # (condition, key, column) -> value; key is empty for metrics of sets
WHOLE_SET = ""


class MetricCache:
    """Values of one method that were measured before, and those that come: one line each, never rewritten.

    Args:
        folder: of the method.
        stamp_of: digest of all that decides the value of a key and a column; None where there is no such column.
        rank: of this process, which writes a file of its own.
    """

    def __init__(self, folder: Path, stamp_of: Callable[[str, str], str | None], rank: int):
        self._path, self._stamp_of = folder / f"values.{rank}.jsonl", stamp_of
        self._known: Measured = dict(self._read(folder))

    def value(self, condition: str, key: str, column: str) -> float | None:
        """What was measured before, or None."""
        return self._known.get((condition, key, column))

    def enter(self, file: TextIO, condition: str, key: str, column: str, value: float) -> None:
        """Add a value, at once on disk. It may be NaN or infinite.

        Raises:
            DataError: the disk is full.
        """
        try:
            file.write(json.dumps([condition, key, column, self._stamp_of(key, column), value]) + "\n")
            file.flush()
        except OSError as error:
            raise self._not_written(error) from error
        self._known[condition, key, column] = value

    def open(self) -> TextIO:
        """The file of this rank, to be added to. A line that a kill tore is ended first.

        Raises:
            DataError: the folder cannot be written to.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._not_written(error) from error
        if file.tell():
            file.write("\n")
        return file

    def _not_written(self, error: OSError) -> DataError:
        return DataError(str(self._path), f"cannot be written ({error})", "a writable folder with space left")

    def _read(self, folder: Path) -> Iterator[tuple[tuple[str, str, str], float]]:
        for path in sorted(folder.glob("values.*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    condition, key, column, stamp, value = json.loads(line)
                except ValueError:  # empty, or torn by a kill
                    continue
                if self._stamp_of(key, column) == stamp:
                    yield (condition, key, column), value


class MetricRunner:
    """Calls metrics on images, and remembers what was wrong with them.

    Args:
        columns: the metrics.
        prepared: the inputs.
        ranks: who shares the work.

    Attributes:
        missing: column -> why it has no values at all.
        troubles: column -> what was raised, image by image.
        infinite: column -> where the value is infinite, which no mean can hold: a PSNR of the truth itself.
    """

    def __init__(self, columns: Sequence[MetricColumn], prepared: Prepared, ranks: Ranks):
        self.columns, self.prepared, self.ranks = columns, prepared, ranks
        self.missing = {c.name: reason for c in columns if (reason := _not_possible(c, prepared))}
        self.troubles: dict[str, list[str]] = {c.name: [] for c in columns}
        self.infinite: dict[str, list[str]] = {c.name: [] for c in columns}

    def measure(self, restored: Restored) -> Measured:
        """Every value of one method, on every rank; every rank has to call this."""
        folder = self.prepared.root / "methods" / restored.row.folder
        ledger = MetricCache(folder, lambda key, column: self._stamp(column, restored, key), self.ranks.rank)
        found: Measured = {}
        with ledger.open() as file:
            for condition, key, columns in self._tasks(restored):
                found |= self._measured(ledger, file, restored, condition, key, columns)
        self.missing = merged(reversed(self.ranks.gather(self.missing)))
        self.troubles, self.infinite = self._of_all_ranks(self.troubles), self._of_all_ranks(self.infinite)
        return merged(self.ranks.gather(found))

    def note(self, column: MetricColumn) -> str:
        """What a reader has to know of a column, or nothing."""
        said = [self.missing[column.name]] if column.name in self.missing else []
        for places, what in ((self.troubles, "without a value"), (self.infinite, "are infinite")):
            found = places[column.name]
            said += [f"{len(found)} {what}, the first {found[0]}"] if found else []
        return "; ".join(said)

    def _of_all_ranks(self, places: dict[str, list[str]]) -> dict[str, list[str]]:
        parts = self.ranks.gather(places)
        return {name: sorted({place for part in parts for place in part[name]}) for name in places}

    def _tasks(self, restored: Restored) -> Iterator[tuple[str, str, list[MetricColumn]]]:
        """This rank's share: single images with all their metrics, and whole sets metric by metric."""
        each = [column for column in self.columns if not column.of_sets]
        tasks = [
            (condition, key, each)
            for condition in self.prepared.conditions
            for key in restored.places(self.prepared, condition)
            if each
        ]
        tasks += [
            (condition, WHOLE_SET, [column])
            for condition in self.prepared.conditions
            for column in self.columns
            if column.of_sets and restored.places(self.prepared, condition)
        ]
        yield from tqdm(
            self.ranks.share(tasks), f"{restored.row.name}: metrics", unit="task", disable=not self.ranks.leads
        )

    def _measured(self, ledger, file, restored, condition, key, columns) -> Measured:
        found, images = {}, None
        for column in columns:
            value = ledger.value(condition, key, column.name)
            place = " ".join(filter(None, (restored.row.name, condition, key)))
            if value is None and column.name in self.missing:
                continue
            if value is None:
                try:
                    if key == WHOLE_SET:
                        value = self._of_set(column, restored, condition)
                    else:
                        images = images or self._images(restored, condition, key)
                        value = float(self._call(column, *images))
                except (MissingFileError, CheckpointError) as error:
                    self.missing[column.name] = format_error(error)
                    continue
                except (Exception, SystemExit) as error:  # of a metric for this image; the others go on
                    self.troubles[column.name].append(f"{place}: {format_error(error)}")
                    continue
                ledger.enter(file, condition, key, column.name, value)
            if math.isinf(value):
                self.infinite[column.name].append(place)
                value = math.nan
            found[condition, key, column.name] = value
        return found

    def _of_set(self, column: MetricColumn, restored: Restored, condition: str) -> float:
        keys = restored.places(self.prepared, condition)
        total = 0
        for key in tqdm(
            keys,
            f"{restored.row.name}: {column.column.label} {condition}",
            unit="face",
            leave=False,
            disable=not self.ranks.leads,
        ):
            total += self._call(column, *self._images(restored, condition, key))
        return float(total / len(keys))

    def _images(self, restored: Restored, condition: str, key: str):
        path = image_of(self.prepared.root, restored.row, condition, key)
        return decode_image(path.read_bytes(), str(path)), self.prepared.case(key, condition)

    def _call(self, column: MetricColumn, image, case):
        partner = {}
        if column.takes_a_partner:
            partner = {"img2": enlarged(case) if column.against == "input" or case.gt is None else case.gt}
        return column.function(img=image, **partner, **column.arguments)

    def _stamp(self, name: str, restored: Restored, key: str) -> str | None:
        """Values hold for this method, these arguments and this input; those of sets for all inputs restored."""
        column = next((column for column in self.columns if column.name == name), None)
        if column is None:
            return None
        inputs = self.prepared.fingerprint.inputs
        made_of = inputs.get(key)
        if column.of_sets:
            by_condition = [restored.places(self.prepared, condition) for condition in self.prepared.conditions]
            made_of = [{key: inputs[key] for key in keys} for keys in by_condition]
        text = json.dumps([column.column.settings, restored.digest, made_of])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _not_possible(column: MetricColumn, prepared: Prepared) -> str:
    """Why a metric can have no value under this protocol, or nothing."""
    if column.needs_a_partner and column.against == "gt" and not prepared.has_truth:
        return "needs ground truth, which this protocol has not; against: input compares with the input"
    if column.function.__name__ == "calculate_niqe" and prepared.size < NIQE_SMALLEST:
        return f"needs images of {NIQE_SMALLEST} px and more, and these have {prepared.size}"
    return ""
