"""The option file of an evaluation, checked: what is restored, by whom, and how it is measured."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpen_plugin.config.schema import check
from gpen_plugin.errors import GPENError, OptionError, join_errors
from gpen_plugin.evaluate.methods import read_entry
from gpen_plugin.evaluate.metric_columns import MetricColumn, metric_columns
from gpen_plugin.evaluate.repeats import Run, runs_of
from gpen_plugin.evaluate.report.options import ReportOptions, check_reference
from gpen_plugin.folder_name import folder_of


@dataclass(frozen=True)
class EvaluationOptions:
    """The top level of an option file.

    Args:
        name: of the evaluation; a folder is named after it.
        protocol: see `gpen_plugin.evaluate.protocols`.
        methods: name in the tables -> entry, see `gpen_plugin.evaluate.methods` and, for ``runs``, `runs_of`.
        metrics: the host's form of ``val: metrics:``, see `metric_columns`.
        title: for the heads of tables and pages; the name if left out.
        output: folder; ``results/evaluate/<name>`` if left out.
        report: see `ReportOptions`.
    """

    name: str
    protocol: Mapping
    methods: Mapping
    metrics: Mapping = field(default_factory=dict)
    title: str = ""
    output: str | None = None
    report: Mapping = field(default_factory=dict)

    @classmethod
    def from_mapping(cls, given: Mapping) -> "EvaluationOptions":
        """Check all that can be checked before anything is opened.

        Raises:
            OptionError: lists every problem by key path.
        """
        check(cls, given)
        options = cls(**given)
        problems = _caught(lambda: ReportOptions.from_options(options.report))
        problems += _caught(lambda: metric_columns(options.metrics))
        if not options.methods:
            problems.append(OptionError("methods", "got none", "a mapping of names to entries"))
        runs: list[Run] = []
        for name, entry in options.methods.items():
            if not isinstance(entry, Mapping) or "type" not in entry:
                problems.append(OptionError(f"methods:{name}", f"got {entry!r}", "a mapping with a type"))
            else:
                problems += _caught(lambda entry=entry, name=name: runs.extend(_checked_runs(str(name), entry)))
        problems += _shared_folders(runs)
        problems += _caught(lambda: check_reference(options.report.get("against"), [*map(str, options.methods)]))
        problems += _read_where_written(options)
        if problems:
            raise join_errors(problems)
        return options

    @property
    def root(self) -> Path:
        """The folder that the evaluation writes to."""
        return Path(self.output or Path("results") / "evaluate" / self.name).expanduser()

    @property
    def runs(self) -> list[Run]:
        """What is restored: the methods in the order of the file, each with its runs."""
        return [run for name, entry in self.methods.items() for run in runs_of(str(name), entry)]

    @property
    def columns(self) -> list[MetricColumn]:
        """The metrics, in the order of the file."""
        return metric_columns(self.metrics)


def _checked_runs(method: str, entry: Mapping) -> list[Run]:
    """The runs of an entry, whose other keys are right too: runs differ in nothing but the file of weights."""
    runs = runs_of(method, entry)
    read_entry(runs[0].entry, f"methods:{method}")
    return runs


def _shared_folders(runs: Sequence[Run]) -> Iterator[OptionError]:
    """Names that would be one folder."""
    names: dict[str, str] = {}
    for run in runs:
        folder = folder_of(run.name)
        if folder in names:
            got = f"would share the folder {folder} with '{names[folder]}'"
            yield OptionError(f"methods:{run.method}", got, "names that differ in letters and digits")
        names.setdefault(folder, run.name)


def _read_where_written(options: EvaluationOptions) -> Iterator[OptionError]:
    """Folders of images that lie in the output, where they would be deleted, or around it, where it would grow."""
    read = {f"protocol:{key}": path for key, path in options.protocol.items() if str(key).startswith("dataroot_")}
    for name, entry in options.methods.items():
        if isinstance(entry, Mapping) and entry.get("type") == "folder":
            read[f"methods:{name}:path"] = entry.get("path")
    root = options.root.resolve()
    for where, path in read.items():
        place = Path(path).expanduser().resolve() if isinstance(path, str) else None
        if place and (place.is_relative_to(root) or root.is_relative_to(place)):
            got = f"got {path}, and the output is {options.root}"
            yield OptionError(where, got, "folders that lie apart", "Name another output.")


def _caught(check: Callable[[], object]) -> list[GPENError]:
    """What `check` raises, in a list: empty if it raises nothing."""
    try:
        check()
    except GPENError as error:
        return [error]
    return []
