"""The metrics of an option file, and their values for the restored images."""

import hashlib
import inspect
import json
import logging
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
from tqdm import tqdm

from gpen_plugin.baselines.method import Sample
from gpen_plugin.config.imports import code_digest
from gpen_plugin.config.schema import unknown_name, validate
from gpen_plugin.data.image_source import decode_image
from gpen_plugin.errors import CheckpointError, DataError, GPENError, MissingFileError, join_errors
from gpen_plugin.evaluate.distributed import Ranks, merge_dicts
from gpen_plugin.evaluate.results import (
    Column,
    Prepared,
    Restored,
    format_error,
    restored_path,
    restored_path_in,
    slugify,
    upsample_input,
    with_unique_labels,
)
from gpen_plugin.host import is_our_own, registered, resolve
from gpen_plugin.metrics.base import LOWER_IS_BETTER, NIQE_MIN_SIDE, SetAccumulator, check_metric_keys
from gpen_plugin.nets.face_templates import FFHQ, FFHQ_SIDE

COLUMN_KEYS = ("type", "label", "decimals", "against", "better")

# Labels of the usual metrics, and the decimals that papers print.
TABLE_LABELS: dict[str, tuple[str, int]] = {
    "calculate_psnr": ("PSNR", 2),
    "calculate_ssim": ("SSIM", 4),
    "calculate_niqe": ("NIQE", 3),
    "calculate_lpips": ("LPIPS", 4),
    "calculate_fid": ("FID", 2),
    "calculate_kid": ("KID ×10³", 2),
    "calculate_swd": ("SWD ×10³", 1),
    "calculate_identity": ("Identity", 3),
    "calculate_lmd": ("LMD", 2),
    "calculate_rmse": ("RMSE", 2),
    "calculate_precision": ("Precision", 3),
    "calculate_recall": ("Recall", 3),
}
IQA_LABELS = {"clipiqa": "CLIP-IQA", "clipiqa+": "CLIP-IQA+", "qalign": "Q-Align"}  # of pyiqa; others in capitals
WHOLE_SET = ""  # key of the values of sets


@dataclass(frozen=True)
class ColumnOptions:
    """The keys of an entry of ``metrics:``, besides the metric's own arguments."""

    type: str  # a registered metric
    label: str = ""  # title of the column; the usual one by default
    decimals: int | None = None  # number of decimals printed
    # ``gt``, or ``input``: the degraded image, enlarged bilinearly, in place of the ground truth; or the name of
    # another method: its restored image
    against: str = "gt"
    better: Literal["lower", "higher"] | None = None  # ``lower`` or ``higher``; the metric's own by default


@dataclass(frozen=True)
class MetricColumn:
    """A metric, ready to be called."""

    name: str  # as the option file calls it
    function: Callable  # it raises where a file is missing
    arguments: Mapping  # from the option file
    against: str  # see `ColumnOptions`
    of_sets: bool  # whether it answers with a `SetAccumulator`
    accepts_reference: bool
    needs_reference: bool
    column: Column  # for the tables


def metric_columns(metrics: Mapping) -> list[MetricColumn]:
    """Look up and check the metrics of an option file; OptionError lists unknown names and keys, and wrong values."""
    problems: list[GPENError] = []
    columns = []
    for name, entry in metrics.items():
        where = f"metrics:{name}"
        kind = entry.get("type") if isinstance(entry, Mapping) else entry
        function = resolve("metric", kind)
        if function is None or not isinstance(entry, Mapping):
            problems.append(unknown_name(kind, list(registered("metric")), f"{where}:type"))
            continue
        found = validate(ColumnOptions, {k: v for k, v in entry.items() if k in COLUMN_KEYS}, where)
        of_the_metric = {key: value for key, value in entry.items() if key not in ("label", "decimals", "against")}
        found += check_metric_keys(function, of_the_metric, where)
        problems += found
        if not found:
            columns.append(_column(str(name), function, entry))
    if problems:
        raise join_errors(problems)
    labeled = with_unique_labels([each.column for each in columns])
    return [replace(each, column=column) for each, column in zip(columns, labeled, strict=True)]


def _column(name: str, function: Callable, entry: Mapping) -> MetricColumn:
    options = ColumnOptions(**{key: value for key, value in entry.items() if key in COLUMN_KEYS})
    raising = inspect.unwrap(function)
    parameters = inspect.signature(raising).parameters
    arguments = {key: value for key, value in entry.items() if key not in COLUMN_KEYS}
    if "better" in entry and "better" in parameters:
        arguments["better"] = entry["better"]
    of_sets = _returns_sets(raising)
    takes = "img2" in parameters and not arguments.get("statistics")
    label, decimals = TABLE_LABELS.get(options.type, (name, 3))
    if options.type == "calculate_iqa":
        label = IQA_LABELS.get(entry["name"], str(entry["name"]).upper())
    column = Column(
        name=name,
        label=options.label or _label(label, options, arguments, takes and of_sets),
        lower_is_better=_better(options, raising, arguments) == "lower",
        of_sets=of_sets,
        decimals=decimals if options.decimals is None else options.decimals,
        settings=_settings(options, arguments),
    )
    needs = (takes and parameters["img2"].default is inspect.Parameter.empty) or (takes and of_sets)
    return MetricColumn(name, raising, arguments, options.against, of_sets, takes, needs, column)


def _returns_sets(function: Callable) -> bool:
    """Whether the return annotation is a `SetAccumulator`; metrics of other packages return numbers."""
    answer = typing.get_type_hints(function).get("return") if function.__module__.startswith("gpen_plugin.") else None
    return inspect.isclass(answer) and issubclass(answer, SetAccumulator)


def _better(options: ColumnOptions, function: Callable, arguments: Mapping) -> str:
    if options.better:
        return options.better
    default = inspect.signature(function).parameters.get("better")
    if arguments.get("unit") == "degrees":
        return "lower"
    if default is not None and isinstance(default.default, str):
        return default.default
    return "lower" if options.type in LOWER_IS_BETTER else "higher"


def _label(label: str, options: ColumnOptions, arguments: Mapping, of_pairs_of_sets: bool) -> str:
    """The label of a distance between sets names the reference: values against other sets are not comparable."""
    if arguments.get("statistics"):
        return f"{label} ({Path(arguments['statistics']).stem})"
    if options.against != "gt":
        return f"{label} ({options.against})"
    if arguments.get("unit") == "degrees":
        return f"{label}, degrees"
    return f"{label} (GT)" if of_pairs_of_sets else label


def _settings(options: ColumnOptions, arguments: Mapping) -> str:
    """The settings of a column; a file counts by its name and contents, not by its folder."""
    plain = {key: _file_digest(value) for key, value in arguments.items()}
    return json.dumps({"type": options.type, "against": options.against, **plain}, sort_keys=True, default=str)


def _file_digest(value: object) -> object:
    path = Path(value) if isinstance(value, str) else None
    if path is None or not path.is_file():
        return value
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


MetricValues = dict[tuple[str, str, str], float]  # (condition, key, column) -> value


class MetricCache:
    """Values of one method on disk, one line each, never rewritten; a stopped run resumes from them."""

    def __init__(
        self,
        folder: Path,  # of the method
        # digest of all that determines the value of a key and a column; None for an unknown column
        stamp_of: Callable[[str, str], str | None],
        rank: int,  # of this process, which writes a file of its own
    ):
        self._path, self._stamp_of = folder / f"values.{rank}.jsonl", stamp_of
        self._known: MetricValues = dict(self._read(folder))

    def value(self, condition: str, key: str, column: str) -> float | None:
        """The value that was measured before, or None."""
        return self._known.get((condition, key, column))

    def add(self, file: TextIO, condition: str, key: str, column: str, value: float) -> None:
        """Write a value to disk at once; it may be NaN or infinite. DataError if the disk is full."""
        try:
            file.write(json.dumps([condition, key, column, self._stamp_of(key, column), value]) + "\n")
            file.flush()
        except OSError as error:
            raise self._not_written(error) from error
        self._known[condition, key, column] = value

    def open(self) -> TextIO:
        """Open the file of this rank to append, and end a line that a kill cut short. DataError if not writable."""
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
    """Calls the metrics on the images, and records what went wrong."""

    def __init__(self, columns: Sequence[MetricColumn], prepared: Prepared, ranks: Ranks):
        self.columns, self.prepared, self.ranks = columns, prepared, ranks
        # column -> why it has no values at all
        self.missing = {c.name: reason for c in columns if (reason := _unavailable_reason(c, prepared))}
        self.missing |= self._try()
        self.troubles: dict[str, list[str]] = {c.name: [] for c in columns}  # column -> errors by image
        self.digests: dict[str, str] = {}  # of the methods, by name: a column may compare with one
        # column -> images with an infinite value, which has no mean (the PSNR of identical images)
        self.infinite: dict[str, list[str]] = {c.name: [] for c in columns}

    def _try(self) -> dict[str, str]:
        """Call each metric on an image of noise: a missing package or file is reported now, not after the restoring."""
        found = {}
        image = np.random.default_rng(0).integers(0, 256, (self.prepared.size, self.prepared.size, 3), np.uint8)
        points = FFHQ * (self.prepared.size / FFHQ_SIDE)
        for _ in self.ranks.main_first():  # which downloads what the others read
            for column in self.columns:
                if column.name in self.missing or not is_our_own(column.function):
                    continue
                try:
                    self._call(column, image, Sample("", "", image, image, self.prepared.size, landmarks=points), image)
                except (MissingFileError, CheckpointError) as error:
                    found[column.name] = format_error(error)
                    if self.ranks.is_main:
                        logging.getLogger("basicsr").warning(f"metrics:{column.name} will have no values. {error}")
                except (Exception, SystemExit):  # of an image of noise; a real one shows whether it is an error
                    continue
        return found

    def measure(self, restored: Restored) -> MetricValues:
        """All values of one method, on every rank; every rank must call this."""
        folder = self.prepared.root / "methods" / restored.row.folder
        cache = MetricCache(folder, lambda key, column: self._stamp(column, restored, key), self.ranks.rank)
        found: MetricValues = {}
        with cache.open() as file:
            for condition, key, columns in self._tasks(restored):
                found |= self._measure_task(cache, file, restored, condition, key, columns)
        self.missing = merge_dicts(reversed(self.ranks.gather(self.missing)))
        self.troubles, self.infinite = self._gather_lists(self.troubles), self._gather_lists(self.infinite)
        return merge_dicts(self.ranks.gather(found))

    def note(self, column: MetricColumn) -> str:
        """The note of a column for the reader, or nothing."""
        notes = [self.missing[column.name]] if column.name in self.missing else []
        if not notes and not self._is_defined(column, self.prepared.keys):
            notes.append("only of the test sets with ground truth")
        for found_in, what in ((self.troubles, "without a value"), (self.infinite, "are infinite")):
            images = found_in[column.name]
            notes += [f"{len(images)} {what}, the first {images[0]}"] if images else []
        return "; ".join(notes)

    def _gather_lists(self, lists: dict[str, list[str]]) -> dict[str, list[str]]:
        parts = self.ranks.gather(lists)
        return {name: sorted({text for part in parts for text in part[name]}) for name in lists}

    def _tasks(self, restored: Restored) -> Iterator[tuple[str, str, list[MetricColumn]]]:
        """This rank's part: single images with all their metrics, and whole sets metric by metric."""
        # a method is not compared with itself
        others = [column for column in self.columns if column.against != restored.row.name]
        each = [column for column in others if not column.of_sets]
        tasks = []
        for condition in self.prepared.conditions:
            for key in restored.restored_keys(self.prepared, condition):
                columns = [column for column in each if self._is_defined(column, [key])]
                tasks += [(condition, key, columns)] if columns else []
        for condition in self.prepared.table_conditions:
            keys = restored.restored_keys(self.prepared, condition)
            columns = [column for column in others if column.of_sets and self._is_defined(column, keys)]
            tasks += [(condition, WHOLE_SET, [column]) for column in columns if keys]
        yield from tqdm(
            self.ranks.shard(tasks), f"{restored.row.name}: metrics", unit="task", disable=not self.ranks.is_main
        )

    def _is_defined(self, column: MetricColumn, keys: Sequence[str]) -> bool:
        """Whether the images have the ground truth that a metric needs; True of one that is missing."""
        needs = column.needs_reference and column.against == "gt" and column.name not in self.missing
        return not needs or all(key in self.prepared.with_truth for key in keys)

    def _measure_task(self, cache, file, restored, condition, key, columns) -> MetricValues:
        found, images = {}, None
        for column in columns:
            value = cache.value(condition, key, column.name)
            image = " ".join(filter(None, (restored.row.name, condition, key)))
            if value is None and column.name in self.missing:
                continue
            if value is None:
                try:
                    if key == WHOLE_SET:
                        value = self._set_value(column, restored, condition)
                    else:
                        images = images or self._images(restored, condition, key)
                        value = float(self._call(column, *images, self._other(column, condition, key)))
                except (MissingFileError, CheckpointError) as error:
                    self.missing[column.name] = format_error(error)
                    continue
                except (Exception, SystemExit) as error:  # of this metric on this image; the others continue
                    self.troubles[column.name].append(f"{image}: {format_error(error)}")
                    continue
                cache.add(file, condition, key, column.name, value)
            if math.isinf(value):
                self.infinite[column.name].append(image)
                value = math.nan
            found[condition, key, column.name] = value
        return found

    def _set_value(self, column: MetricColumn, restored: Restored, condition: str) -> float:
        keys = restored.restored_keys(self.prepared, condition)
        degraded = "" if condition in self.prepared.test_sets else condition
        total = 0
        for key in tqdm(
            keys,
            f"{restored.row.name}: {column.column.label} {condition}",
            unit="face",
            leave=False,
            disable=not self.ranks.is_main,
        ):
            images = self._images(restored, degraded, key)
            total += self._call(column, *images, self._other(column, degraded, key))
        return float(total / len(keys))

    def _images(self, restored: Restored, condition: str, key: str):
        path = restored_path(self.prepared.root, restored.row, condition, key)
        return decode_image(path.read_bytes(), str(path)), self.prepared.sample(key, condition)

    def _other(self, column: MetricColumn, condition: str, key: str):
        """The restored image of the method that a column compares with; None if it compares with none."""
        if column.against in ("gt", "input") or not column.accepts_reference:
            return None
        path = self.prepared.root / "methods" / slugify(column.against)
        path = restored_path_in(path, condition, key)
        if not path.exists():
            raise DataError(key, f"{column.against} has no image of it", "restored images of both methods")
        return decode_image(path.read_bytes(), str(path))

    def _call(self, column: MetricColumn, image, sample: Sample, other=None):
        given = {}
        if column.accepts_reference:
            of_input = column.against == "input" or sample.gt is None
            given["img2"] = other if other is not None else upsample_input(sample) if of_input else sample.gt
        if "landmarks" in inspect.signature(column.function).parameters:
            given["landmarks"] = sample.landmarks
        return column.function(img=image, **given, **column.arguments)

    def _stamp(self, name: str, restored: Restored, key: str) -> str | None:
        """Digest of the method, arguments and input that a value belongs to; for sets, of all restored inputs."""
        column = next((column for column in self.columns if column.name == name), None)
        if column is None:
            return None
        inputs = self.prepared.fingerprint.inputs
        input_hashes = inputs.get(key)
        if column.of_sets:
            conditions = self.prepared.table_conditions
            by_condition = [restored.restored_keys(self.prepared, condition) for condition in conditions]
            input_hashes = [{key: inputs[key] for key in keys} for keys in by_condition]
        content = [column.column.settings, restored.digest, input_hashes]
        if code := code_digest(column.function):
            content.append({"code": code})
        if column.against not in ("gt", "input"):
            content.append(self.digests.get(column.against))
        text = json.dumps(content)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unavailable_reason(column: MetricColumn, prepared: Prepared) -> str:
    """Why a metric cannot have a value under this protocol, or nothing."""
    if column.needs_reference and column.against == "gt" and not prepared.with_truth:
        return "needs ground truth, which this protocol has not; against: input compares with the input"
    if column.function.__name__ == "calculate_niqe" and prepared.size < NIQE_MIN_SIDE:
        return f"needs images of {NIQE_MIN_SIDE} px and more, and these have {prepared.size}"
    return ""
