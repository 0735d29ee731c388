"""The option file of an evaluation: its dataclasses and checks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gpen_plugin.config.schema import build, check, matches_type
from gpen_plugin.errors import GPENError, OptionError, join_errors
from gpen_plugin.evaluate.cost import cost_columns
from gpen_plugin.evaluate.measure import MetricColumn, metric_columns
from gpen_plugin.evaluate.methods import read_entry
from gpen_plugin.evaluate.ntire import BELOW, SCORE, check_metrics
from gpen_plugin.evaluate.protocols import Ntire
from gpen_plugin.evaluate.results import slugify

RUN = "{run}"
VECTOR_FORMATS = ("pdf", "svg")


@dataclass(frozen=True)
class ReportOptions:
    """The section ``report:``."""

    # rows of the comparison sheets: how many, from the best to the worst, or a list of image keys.
    sheet_images: int | Sequence[str] = 6
    sheet_tile: int = 256  # side of a sheet's tiles, pixels
    # number of images inside report.html; the page loads the others from the files beside it. An image counts once per
    # condition.
    embedded_images: int = 60
    embedded_size: int = 512  # images inside the page are reduced to this side, pixels
    embedded_megabytes: float = 40.0  # largest size of all images inside the page
    bootstrap_resamples: int = 10_000  # number of resamples of the 95 % intervals
    bootstrap_seed: int = 0  # seed of the resamples
    curves: bool = True  # whether to plot the metrics if there are several conditions
    vector_figures: Sequence[str] = ("pdf", "svg")  # formats of sheets and curves besides PNG: `pdf`, `svg`
    # a CSV file of labels, by which the means are grouped: a head line, then an image per line, its key or file name
    # first; ~ for no groups.
    labels: str | None = None
    label_columns: Sequence[str] | None = None  # the columns of the file to use, in this order; ~ for all but the first
    against: str | None = None  # a method that all others are compared with, in a table of its own; ~ for none

    def __post_init__(self):
        least = {"sheet_tile": 16, "embedded_size": 16, "bootstrap_resamples": 100}
        for name in ("embedded_images", "embedded_megabytes", "bootstrap_seed", *least):
            if getattr(self, name) < least.get(name, 0):
                raise OptionError(name, f"got {getattr(self, name)}", f"{least.get(name, 0)} or more")
        if isinstance(self.sheet_images, int) and self.sheet_images < 1:
            raise OptionError("sheet_images", f"got {self.sheet_images}", "1 or more, or a list of image keys")
        if not isinstance(self.sheet_images, int):
            object.__setattr__(self, "sheet_images", tuple(self.sheet_images))  # YAML brings lists
            if not self.sheet_images:
                raise OptionError("sheet_images", "got an empty list", "a number from 1, or a list of image keys")

        unknown = sorted({*self.vector_figures} - {*VECTOR_FORMATS})
        if unknown:
            raise OptionError("vector_figures", f"got {', '.join(unknown)}", "some of " + ", ".join(VECTOR_FORMATS))
        if self.label_columns is not None:
            self._check_label_columns(list(self.label_columns))

    def _check_label_columns(self, columns: list[str]) -> None:
        if self.labels is None:
            raise OptionError("label_columns", "given without labels", "the file that has them", "Add labels: FILE.csv")
        if not columns or len(set(columns)) < len(columns):
            raise OptionError("label_columns", f"got {columns}", "names of columns, each once, or ~ for all")

    @classmethod
    def from_options(cls, given: Mapping, where: str = "report") -> "ReportOptions":
        """Build the options from YAML; `where` is the key path for errors."""
        return build(cls, given, where)


def check_reference(name: object, methods: Sequence[str]) -> None:
    """Raise an `OptionError` unless ``against`` is None or names one of the methods."""
    if name is not None and name not in methods:
        hint = "Name a method, or write ~ for no such table."
        raise OptionError("report:against", f"got '{name}'", f"one of {', '.join(methods)}", hint)


class Run(NamedTuple):
    """One training of a method, which is restored and measured on its own."""

    name: str  # of its row in the results
    method: str  # its name in the option file; the same as `name` for a method without ``runs``
    entry: Mapping  # of the method, with the weights of this run

    @property
    def run_of(self) -> str:
        """The method that it is a run of; empty for a method without ``runs``."""
        return self.method if self.name != self.method else ""


def runs_of(method: str, entry: Mapping) -> list[Run]:
    """One `Run` for each of an entry's ``runs``, which replaces ``{run}`` in ``weights``.

    OptionError: ``runs`` without ``{run}`` or the other way round, or not a list of different names.
    """
    where, weights = f"methods:{method}", entry.get("weights")
    has_placeholder = isinstance(weights, str) and RUN in weights
    if "runs" not in entry:
        if has_placeholder:
            got, hint = f"got {weights}, and no runs", "Add e.g. runs: [0, 1, 2], or name one file."
            raise OptionError(f"{where}:weights", got, f"runs, which {RUN} stands for", hint)
        return [Run(method, method, entry)]
    runs = entry["runs"]
    _check_list(runs, f"{where}:runs")
    if not has_placeholder:
        got, hint = (
            f"given, and weights has no {RUN}",
            f"Write {RUN} into weights, or remove runs.",
        )
        raise OptionError(f"{where}:runs", got, f"weights with {RUN}, a file for each run", hint)
    rest = {key: value for key, value in entry.items() if key != "runs"}
    return [Run(f"{method}, run {run}", method, {**rest, "weights": weights.replace(RUN, str(run))}) for run in runs]


def _check_list(runs: object, where: str) -> None:
    if not matches_type(runs, list[int | str]) or not runs:
        raise OptionError(where, f"got {runs!r}", "a list of numbers or names, such as [0, 1, 2]")
    doubles = sorted({str(run) for run in runs if [str(other) for other in runs].count(str(run)) > 1})
    if doubles:
        raise OptionError(where, f"got {', '.join(doubles)} more than once", "each run once")


@dataclass(frozen=True)
class EvaluationOptions:
    """The top level of an option file."""

    name: str  # of the evaluation and of its folder
    protocol: Mapping  # the faces and their degradation, see `gpen_plugin.evaluate.protocols`
    # name in the tables -> entry, see `gpen_plugin.evaluate.methods`. A method that was trained several times lists its
    # ``runs``.
    methods: Mapping
    # in the host's form of ``val: metrics:``, with the keys of `ColumnOptions`.
    metrics: Mapping = field(default_factory=dict)
    # columns that say what a method costs, besides the metrics: `parameters` (millions), `multiply_adds` (billions) and
    # `seconds` (per face, on this machine)
    cost: Sequence[str] = ()
    # the user's modules, whose classes the file names: names of modules, or paths from the folder of the file
    imports: Sequence[str] | None = None
    title: str = ""  # of tables and pages; the name by default
    output: str | None = None  # folder; ``results/evaluate/<name>`` by default
    report: Mapping = field(default_factory=dict)  # see `ReportOptions`

    @classmethod
    def from_mapping(cls, given: Mapping) -> "EvaluationOptions":
        """Check all that can be checked without opening a file; OptionError lists every problem by key path."""
        check(cls, given)
        options = cls(**given)
        problems = _errors_of(lambda: ReportOptions.from_options(options.report))
        problems += _errors_of(lambda: metric_columns(options.metrics))
        problems += _errors_of(lambda: cost_columns(options.cost))
        if not options.methods:
            problems.append(OptionError("methods", "got none", "a mapping of names to entries"))
        runs: list[Run] = []
        for name, entry in options.methods.items():
            if not isinstance(entry, Mapping) or "type" not in entry:
                problems.append(OptionError(f"methods:{name}", f"got {entry!r}", "a mapping with a type"))
            else:
                problems += _errors_of(lambda entry=entry, name=name: runs.extend(_check_entry(str(name), entry)))
        problems += _check_folders(runs)
        problems += _check_names(options)
        problems += _check_compared(options, [run.name for run in runs])
        problems += _errors_of(lambda: check_reference(options.report.get("against"), [*map(str, options.methods)]))
        problems += _check_inputs_outside_output(options)
        if options.protocol.get("type") == Ntire.kind:
            problems += _errors_of(lambda: check_metrics(options.metrics))
        if problems:
            raise join_errors(problems)
        return options

    @property
    def root(self) -> Path:
        """The folder that the evaluation writes to."""
        return Path(self.output or Path("results") / "evaluate" / self.name).expanduser()

    @property
    def runs(self) -> list[Run]:
        """The methods in the order of the file, each with its runs."""
        return [run for name, entry in self.methods.items() for run in runs_of(str(name), entry)]

    @property
    def columns(self) -> list[MetricColumn]:
        """The metrics, in the order of the file."""
        return metric_columns(self.metrics)


def _check_entry(method: str, entry: Mapping) -> list[Run]:
    """The runs of an entry, with its keys checked once: runs differ in the weights only."""
    runs = runs_of(method, entry)
    read_entry(runs[0].entry, f"methods:{method}")
    return runs


def _check_folders(runs: Sequence[Run]) -> Iterator[OptionError]:
    """Names that would share a folder."""
    names: dict[str, str] = {}
    for run in runs:
        folder = slugify(run.name)
        if folder in names:
            got = f"would share the folder {folder} with '{names[folder]}'"
            yield OptionError(f"methods:{run.method}", got, "names that differ in letters and digits")
        names.setdefault(folder, run.name)


def _check_names(options: EvaluationOptions) -> Iterator[OptionError]:
    """Metrics under the name of a column that the evaluation adds."""
    added = [*options.cost, *((BELOW.name, SCORE.name) if options.protocol.get("type") == Ntire.kind else ())]
    for name in added:
        if name in options.metrics:
            yield OptionError(f"metrics:{name}", "is the name of another column", "a name of its own", "Rename it.")


def _check_compared(options: EvaluationOptions, methods: Sequence[str]) -> Iterator[OptionError]:
    """Metrics ``against`` something else than the ground truth, the input, or one of the methods."""
    for name, entry in options.metrics.items():
        against = entry.get("against", "gt") if isinstance(entry, Mapping) else "gt"
        if against not in ("gt", "input", *methods):
            expected = f"gt, input, or a method without runs: {', '.join(methods)}"
            yield OptionError(f"metrics:{name}:against", f"got '{against}'", expected)


def _check_inputs_outside_output(options: EvaluationOptions) -> Iterator[OptionError]:
    """Inputs inside the output, where they would be deleted, or around it, where they would grow."""
    read = dict(_roots(options.protocol, "protocol"))
    for name, entry in options.methods.items():
        if isinstance(entry, Mapping) and entry.get("type") == "folder":
            read[f"methods:{name}:path"] = entry.get("path")
    root = options.root.resolve()
    for where, path in read.items():
        place = Path(path).expanduser().resolve() if isinstance(path, str) else None
        if place and (place.is_relative_to(root) or root.is_relative_to(place)):
            got = f"got {path}, and the output is {options.root}"
            yield OptionError(where, got, "folders that lie apart", "Name another output.")


def _roots(section: Mapping, where: str) -> Iterator[tuple[str, object]]:
    """The paths of a protocol and of the sections inside it, by key path."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _roots(value, f"{where}:{key}")
        elif str(key).startswith("dataroot"):
            yield f"{where}:{key}", value


def _errors_of(check: Callable[[], object]) -> list[GPENError]:
    """The error that `check` raises, in a list; empty if none."""
    try:
        check()
    except GPENError as error:
        return [error]
    return []
