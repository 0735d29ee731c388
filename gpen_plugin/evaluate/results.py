"""Results of an evaluation: the folder layout, results.json, and merging several evaluations."""

import dataclasses
import itertools
import json
import math
import os
import re
import shutil
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from gpen_plugin.baselines.method import Sample
from gpen_plugin.data.image_source import decode_image
from gpen_plugin.errors import DataError, GPENError, OptionError
from gpen_plugin.evaluate.fingerprint import Fingerprint, differences
from gpen_plugin.evaluate.protocols import ALL_SETS
from gpen_plugin.images.files import write_whole

MAX_MESSAGE = 200
NO_IMAGE = "no image"
NO_REFERENCE = "has no reference face"
FILE = "results.json"
FORMAT = 2  # of results.json, see results.schema.json
PROTOCOL_FILE = "protocol.json"
FOLDERS = ("inputs", "truth", "references", "methods", "sheets")


def slugify(name: str) -> str:
    """A name as a folder: ``GPEN-w/o-ft`` becomes ``gpen_w_o_ft``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "_"


def format_error(error: BaseException) -> str:
    """An error for tables and pages, without the user's home folder."""
    # Our own errors are kept whole; others become one line that a reader can search for: type, message and position.
    return redact_home(str(error) if isinstance(error, GPENError) else _searchable(error))


def redact_home(text: str) -> str:
    """`text` with ``~`` for the user's home folder."""
    try:
        home = str(Path.home())
    except RuntimeError:  # there is none
        return text
    if home == Path(home).anchor:
        return text
    return re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])", "~", text)


def _searchable(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0][:MAX_MESSAGE]
    frames = traceback.extract_tb(error.__traceback__)
    position = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{position}"


@dataclass(frozen=True)
class Column:
    """A metric."""

    name: str  # as the option file calls it, e.g. ``psnr``
    label: str  # for a table's head, e.g. ``FID (GT)``; it names the reference of a distance
    lower_is_better: bool  # which way is better
    of_sets: bool = False  # whether it has one value per set of images, and none per image
    decimals: int = 2  # how many are printed
    note: str = ""  # what a reader has to know, e.g. the file that is missing where there are no values; or empty
    settings: str = ""  # how it was measured, as JSON; columns whose settings differ cannot stand side by side
    ranked: bool = True  # False for the cost of a method, which is no quality

    @property
    def head(self) -> str:
        """The label with an arrow: ↓ if lower is better; none if the column is not ranked."""
        return f"{self.label} {'↓' if self.lower_is_better else '↑'}" if self.ranked else self.label


def with_unique_labels(columns: Sequence["Column"]) -> list["Column"]:
    """Columns of one label, with their names behind it, so that no two of a table share a head."""
    counts = Counter(column.label for column in columns)
    labeled: list[Column] = []
    for column in columns:
        label = column.label if counts[column.label] == 1 else f"{column.label} ({column.name})"
        taken = {*counts, *(each.label for each in labeled)} - {column.label}
        numbered = (f"{label}, {number}" for number in itertools.count(2))
        unique = label if label not in taken else next(each for each in numbered if each not in taken)
        labeled.append(dataclasses.replace(column, label=unique))
    return labeled


@dataclass(frozen=True)
class Row:
    """A method, or a run of it."""

    name: str  # for tables
    folder: str  # its images are below ``methods/<folder>``
    description: str = ""  # what ran: network, weights and their hash, sizes, iteration counts
    failure: str = ""  # why it could not run at all, or empty
    run_of: str = ""  # the method of several runs that this is one of; empty for a method that ran once


@dataclass(frozen=True)
class Failure:
    """An image that a method failed on."""

    method: str
    condition: str
    key: str
    reason: str


@dataclass
class Results:
    """Everything that was measured under one protocol."""

    name: str  # of the evaluation
    title: str  # one line for tables and pages
    fingerprint: dict  # of the protocol, see `Fingerprint.to_dict`: at least ``digest`` and ``kind``
    size: int  # side of the results in pixels
    keys: list[str]  # the images
    conditions: list[str]  # e.g. ``8x``, ``16x``; one empty text if there is only one
    columns: list[Column]  # metrics, in the order of the option file
    rows: list[Row]  # methods; one row per run of a method that was trained several times (see `average_runs`)
    # row name -> condition -> key -> {column name -> value}, or {"failure": reason}, or {"skipped": reason} where the
    # method was not called. A value is NaN if the metric has none for this image (e.g. no face was found)
    images: dict[str, dict[str, dict[str, dict]]] = field(default_factory=dict)
    # row name -> condition -> {column name -> value} of metrics of whole sets
    sets: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # for the reader, e.g. conditions that the size does not allow
    # name -> keys, of an evaluation of several test sets; else empty. `sets` then has their values besides those of all
    # images, and the tables have a column per test set (see `split_test_sets`)
    test_sets: dict[str, list[str]] = field(default_factory=dict)

    @property
    def has_truth(self) -> bool:
        """Whether there is ground truth to show."""
        return any(map(self.has_truth_of, self.keys))

    def has_truth_of(self, key: str) -> bool:
        """Whether an image has a ground truth."""
        of_sets = self.fingerprint.get("options", {}).get("sets", {}) if self.test_sets else {}
        kind = of_sets[key.partition("/")[0]]["type"] if of_sets else self.fingerprint["kind"]
        return kind != "wild"

    def keys_of(self, condition: str) -> list[str]:
        """The images of a condition: all, or those of the test set of this name."""
        return self.test_sets.get(condition, self.keys)

    def image_values(self, row: str, condition: str, column: str) -> np.ndarray:
        """The metric of each image in the order of `keys_of(condition)`, (N,) float64; NaN if there is none."""
        found = self.images.get(row, {}).get(condition, {})
        values = [found.get(key, {}).get(column, math.nan) for key in self.keys_of(condition)]
        values = np.array(values, dtype=np.float64)
        return np.where(np.isfinite(values), values, math.nan)

    def value(self, row: str, condition: str, column: Column) -> float:
        """A cell of the table: the value of the set, or the mean over the images that have one. NaN if none has."""
        if column.of_sets:
            return self.sets.get(row, {}).get(condition, {}).get(column.name, math.nan)
        values = self.image_values(row, condition, column.name)
        return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan

    def has_image(self, row: str, condition: str, key: str) -> bool:
        """Whether the method restored the image."""
        return not self.missing_reason(row, condition, key)

    def missing_reason(self, row: str, condition: str, key: str) -> str:
        """Why there is no restored image; empty if there is one."""
        entry = self.images.get(row, {}).get(condition, {}).get(key, {"failure": NO_IMAGE})
        return entry.get("failure", entry.get("skipped", ""))

    def restored(self, row: str, condition: str) -> int:
        """The number of images that the method restored."""
        return sum(self.has_image(row, condition, key) for key in self.keys_of(condition))

    def skipped(self, row: str, condition: str) -> int:
        """The number of images that the method was not called for."""
        found = self.images.get(row, {}).get(condition, {})
        return sum("skipped" in found.get(key, {}) for key in self.keys_of(condition))

    def failures(self) -> Iterator[Failure]:
        """Each image that a method failed on."""
        for row in self.rows:
            for condition in self.conditions:
                if condition == ALL_SETS and self.test_sets:
                    continue  # counted in its test set
                found = self.images.get(row.name, {}).get(condition, {})
                for key in self.keys_of(condition):
                    if "failure" in found.get(key, {}):
                        yield Failure(row.name, condition, key, found[key]["failure"])


def restored_path(root: Path, row: Row, condition: str, key: str) -> Path:
    """Path of a restored image."""
    return restored_path_in(root / "methods" / row.folder, condition, key)


def restored_path_in(folder: Path, condition: str, key: str) -> Path:
    """Path of a restored image in the folder of its method."""
    return folder / "restored" / condition / f"{key}.png"


def input_path(root: Path, condition: str, key: str) -> Path:
    """Path of a degraded image, at its own size."""
    return root / "inputs" / condition / f"{key}.png"


def truth_path(root: Path, key: str) -> Path:
    """Path of a ground truth."""
    return root / "truth" / f"{key}.png"


def reference_path(root: Path, key: str) -> Path:
    """Path of the reference of a face."""
    return root / "references" / f"{key}.png"


def write_results(root: Path, results: Results) -> None:
    """Write ``results.json`` atomically."""
    content = {"format": FORMAT, **dataclasses.asdict(results)}
    text = json.dumps(_without_nan(content), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(root / FILE, text + "\n")


def read_results(root: Path) -> Results:
    """Read the results of an evaluation; DataError if they are missing or damaged."""
    path = root / FILE
    hint = "Run: python -m gpen_plugin.evaluate -opt FILE"
    if not path.is_file():
        raise DataError(str(path), "not there", "the results of an evaluation", hint)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        written = content.pop("format")
        if written != FORMAT:
            raise ValueError(f"it has format {written}, and this version reads format {FORMAT}")
        content["columns"] = [Column(**column) for column in content["columns"]]
        content["rows"] = [Row(**row) for row in content["rows"]]
        content["images"] = _with_nan(content["images"])
        content["sets"] = _with_nan(content["sets"])
        return Results(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(str(path), f"cannot be read ({error})", "the results of an evaluation", hint) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_whole(path, text.encode())


def delete_file(path: Path) -> None:
    """Delete a file of an evaluation, if it exists; DataError if it cannot be deleted."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _not_deleted(path, error) from error


def delete_folder(folder: Path) -> None:
    """Delete a folder of an evaluation, if it exists; DataError if a part of it would remain."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise _not_deleted(folder, error) from error


def _not_deleted(path: Path, error: OSError) -> DataError:
    got = f"cannot be deleted ({error.strerror or error})"
    return DataError(str(path), got, "a writable folder", "Delete it by hand.")


def _without_nan(content: object) -> object:
    """Replace NaN by None, because JSON has no NaN."""
    if isinstance(content, Mapping):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _with_nan(content: object) -> object:
    if isinstance(content, Mapping):
        return {key: _with_nan(value) for key, value in content.items()}
    return math.nan if content is None else content


def settings_clash(one: Column, other: Column) -> OptionError | None:
    """The error if two columns of one name were measured differently; None if they agree."""
    if (one.settings, one.lower_is_better) == (other.settings, other.lower_is_better):
        return None
    got = f"measured as {other.settings} in one and as {one.settings} in another"
    if one.settings == other.settings:
        got = "lower is better in one and higher in another"
    return OptionError(f"metrics:{one.name}", got, "one way of measuring", "Measure both in the same way.")


def group_by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each method: itself, or its runs, in the order of the first rows."""
    methods: dict[str, list[Row]] = {}
    for row in rows:
        methods.setdefault(row.run_of or row.name, []).append(row)
    return methods


def check_run_kinds(rows: Sequence[Row], where: str) -> None:
    """Raise an `OptionError` if a method occurs both as one row and as runs."""
    for name, members in group_by_method(rows).items():
        if len({bool(row.run_of) for row in members}) > 1:
            got = f"'{name}' is one row in one folder, and runs in another"
            raise OptionError(where, got, "names of their own", "Rename the method in one of the option files.")


@dataclass(frozen=True)
class Prepared:
    """The inputs of an evaluation on disk."""

    root: Path  # folder of the evaluation
    size: int  # side of the results
    keys: list[str]  # images that could be read
    conditions: list[str]  # of the protocol
    with_truth: Set[str]  # keys of the images that have a ground truth
    has_references: bool  # whether faces may have a reference
    fingerprint: Fingerprint  # of these very images
    notes: list[str]  # on the protocol, and on images that could not be read
    test_sets: dict[str, list[str]] = field(default_factory=dict)  # see `Results`
    landmarks: Mapping[str, np.ndarray] = field(default_factory=dict)  # of the faces, by key; see `Sample`

    def sample(self, key: str, condition: str) -> Sample:
        """One sample, read from disk: all methods, runs and ranks get the same bytes."""
        sample = read_sample(self.root, key, condition, self.size, key in self.with_truth, self.has_references)
        return dataclasses.replace(sample, landmarks=self.landmarks.get(key))

    def keys_of(self, condition: str) -> list[str]:
        """As `Results.keys_of`."""
        return self.test_sets.get(condition, self.keys)

    @property
    def table_conditions(self) -> list[str]:
        """The conditions, and the names of the test sets: a metric of sets has a value for each."""
        return [*self.conditions, *self.test_sets]

    @property
    def sample_ids(self) -> list[tuple[str, str]]:
        """(condition, key) of every sample."""
        return [(condition, key) for condition in self.conditions for key in self.keys]


def read_sample(
    root: Path, key: str, condition: str, size: int, has_truth: bool, has_references: bool = False
) -> Sample:
    """Read one sample of an evaluation from its folder."""
    return next(read_samples(root, key, [condition], size, has_truth, has_references))


def read_samples(
    root: Path, key: str, conditions: Sequence[str], size: int, has_truth: bool, has_references: bool = False
) -> Iterator[Sample]:
    truth = _read(truth_path(root, key)) if has_truth else None
    reference = reference_path(root, key)
    ref = _read(reference) if has_references and reference.exists() else None
    for condition in conditions:
        yield Sample(key, condition, _read(input_path(root, condition, key)), truth, size, ref)


def _read(path: Path):
    try:
        return decode_image(path.read_bytes(), str(path))
    except OSError as error:
        hint = "Give --restart to make the inputs again."
        raise DataError(str(path), f"cannot be read ({error.strerror})", "an input of the evaluation", hint) from error


def upsample_input(sample: Sample):
    """The degraded image at the size of the result, bilinearly: (size, size, 3) BGR uint8."""
    return cv2.resize(sample.lq, (sample.size, sample.size), interpolation=cv2.INTER_LINEAR)


SampleId = tuple[str, str]  # condition, key


@dataclass
class Restored:
    """What a method has done."""

    row: Row  # for the tables
    digest: str = ""  # of all that decides its images besides the inputs
    failures: dict[SampleId, str] = field(default_factory=dict)  # why there is no image
    skipped: dict[SampleId, str] = field(default_factory=dict)  # why the method was not called
    cost: dict[str, float] = field(default_factory=dict)  # by column, see `gpen_plugin.evaluate.cost`

    def restored_keys(self, prepared: Prepared, condition: str) -> list[str]:
        """Keys of the images that were restored in a condition, or of a test set."""
        if self.row.failure:
            return []
        missing = self.failures.keys() | self.skipped.keys()
        degraded = "" if condition in prepared.test_sets else condition
        return [key for key in prepared.keys_of(condition) if (degraded, key) not in missing]


def merge_results(
    roots: Sequence[Path],  # folders of evaluations
    output: Path,  # folder of the merged one; images are hard links if the disk allows, else copies
    other_versions: bool = False,  # accept the same inputs under other package versions, with a note
) -> Results:
    """Merge evaluations: their methods in one table. The runs of a method may lie in several folders.

    Return the merged results, which are written too. DataError: the protocols differ; it names the differences.
    OptionError: two methods share a name, or a metric was measured in two ways.
    """
    if output.resolve() in {root.resolve() for root in roots}:
        raise OptionError("-o", f"got {output}, which is merged", "a folder of its own")
    if (output / PROTOCOL_FILE).exists():
        raise OptionError("-o", f"got {output}, which is an evaluation of its own", "another folder")
    parts = [read_results(root) for root in roots]
    total = dataclasses.replace(parts[0], columns=[], rows=[], images={}, sets={}, notes=[])
    for root, part in zip(roots, parts, strict=True):
        _check_protocol(total, roots[0], part, root, other_versions)
        _append(total, part, root)
    total.columns = with_unique_labels(total.columns)
    for root, part in zip(roots, parts, strict=True):
        for row in part.rows:
            _link_tree(root / "methods" / row.folder / "restored", output / "methods" / row.folder / "restored")
    for folder in ("inputs", "truth", "references"):
        _link_tree(roots[0] / folder, output / folder)
    write_results(output, total)
    return total


def _check_protocol(total: Results, first: Path, part: Results, root: Path, other_versions: bool) -> None:
    if part.fingerprint["digest"] == total.fingerprint["digest"]:
        return
    for fingerprint in (total.fingerprint, part.fingerprint):
        Fingerprint.from_dict(fingerprint)  # refuses one that was changed by hand
    found = differences(total.fingerprint, part.fingerprint)
    only_versions = all(
        total.fingerprint[name] == part.fingerprint[name] for name in ("kind", "options", "images", "inputs")
    )
    if not (only_versions and other_versions):
        hint = "Evaluate both under one protocol."
        if only_versions:
            hint = "Give --other-versions to put them side by side all the same, with a note."
        raise DataError(str(root), f"differs from {first}: {'; '.join(found)}", "one protocol", hint)
    total.notes.append(f"{', '.join(row.name for row in part.rows)}: made under other versions ({'; '.join(found)})")


def _append(total: Results, part: Results, root: Path) -> None:
    held = {column.name: column for column in total.columns}
    for column in part.columns:
        clash = column.name in held and settings_clash(held[column.name], column)
        if clash:
            raise clash
    taken = {row.folder for row in total.rows}
    twins = [row for row in part.rows if _same_row(total, part, row)]  # a baseline that both have measured
    for row in part.rows:
        if row.folder in taken and row not in twins:
            got = f"holds another '{row.name}' than the folders before it"
            raise OptionError(str(root), got, "names of their own", "Rename the method in one of the option files.")
    check_run_kinds([*total.rows, *part.rows], str(root))
    for column in part.columns:
        if column.name not in held:
            total.columns.append(column)
        elif column.note and column.note not in held[column.name].note:
            note = "; ".join(filter(None, (held[column.name].note, column.note)))
            total.columns[total.columns.index(held[column.name])] = dataclasses.replace(column, note=note)
    total.rows.extend(row for row in part.rows if row not in twins)
    for row in part.rows:
        for mine, theirs in ((total.images, part.images), (total.sets, part.sets)):
            if row.name in theirs:
                mine[row.name] = _merged(mine.get(row.name, {}), theirs[row.name])
    total.notes.extend(note for note in part.notes if note not in total.notes)


def _same_row(total: Results, part: Results, row: Row) -> bool:
    """Whether `total` has this row already: one method with equal values of the metrics that both have measured."""
    if row not in total.rows:
        return False
    both = {column.name for column in total.columns if column.ranked} & {column.name for column in part.columns}
    both |= {"failure", "skipped"}
    values = [
        json.dumps([_only(both, found.images.get(row.name)), _only(both, found.sets.get(row.name))], sort_keys=True)
        for found in (total, part)
    ]
    return values[0] == values[1]


def _only(names: Set[str], content: object) -> object:
    """Nested values, without those of other names; a mapping of values has no mappings in it."""
    if not isinstance(content, Mapping):
        return content
    if any(isinstance(value, Mapping) for value in content.values()):
        return {key: _only(names, value) for key, value in content.items()}
    return {key: value for key, value in content.items() if key in names}


def _merged(one: Mapping, other: Mapping) -> dict:
    """Nested values of both; `one` has the first word."""
    both = {key: _merged(one[key], other[key]) for key in one.keys() & other.keys() if isinstance(one[key], Mapping)}
    return {**one, **{key: value for key, value in other.items() if key not in one}, **both}


def _link_tree(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link_or_copy, dirs_exist_ok=True)


def _link_or_copy(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
