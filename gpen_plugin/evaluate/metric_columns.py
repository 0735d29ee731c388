"""The metrics of an option file as columns of a table."""

import hashlib
import inspect
import json
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gpen_plugin.config.schema import unknown_name, validate
from gpen_plugin.errors import GPENError, OptionError, join_errors
from gpen_plugin.evaluate.results import Column
from gpen_plugin.host import registered, resolve
from gpen_plugin.metrics.base import SetAccumulator
from gpen_plugin.metrics.keys import LOWER_IS_BETTER, keys_of_metric

Against = Literal["gt", "input"]
OF_A_COLUMN = ("type", "label", "decimals", "against", "better")

# What tables call the usual ones, and how many decimals papers print.
KNOWN: dict[str, tuple[str, int]] = {
    "calculate_psnr": ("PSNR", 2),
    "calculate_ssim": ("SSIM", 4),
    "calculate_niqe": ("NIQE", 3),
    "calculate_lpips": ("LPIPS", 4),
    "calculate_fid": ("FID", 2),
    "calculate_kid": ("KID ×10³", 2),
    "calculate_swd": ("SWD ×10³", 1),
    "calculate_identity": ("Identity", 3),
    "calculate_lmd": ("LMD", 2),
}


@dataclass(frozen=True)
class ColumnOptions:
    """What an entry of ``metrics:`` may hold besides the metric's own arguments.

    Args:
        type: a registered metric.
        label: for the table's head; the usual one if left out.
        decimals: how many are printed.
        against: ``gt``, or ``input``: the degraded image, enlarged bilinearly, stands for the ground truth.
        better: ``lower`` or ``higher``; the metric's own if left out.
    """

    type: str
    label: str = ""
    decimals: int | None = None
    against: Against = "gt"
    better: Literal["lower", "higher"] | None = None


@dataclass(frozen=True)
class MetricColumn:
    """A metric, ready to be called.

    Attributes:
        name: as the option file calls it.
        function: it raises where a file is missing.
        arguments: from the option file.
        against: see `ColumnOptions`.
        of_sets: whether it answers with a `SetAccumulator`.
        takes_a_partner: whether it compares with a second image.
        needs_a_partner: whether it cannot do without.
        column: for the tables.
    """

    name: str
    function: Callable
    arguments: Mapping
    against: Against
    of_sets: bool
    takes_a_partner: bool
    needs_a_partner: bool
    column: Column


def metric_columns(metrics: Mapping) -> list[MetricColumn]:
    """Look up and check the metrics of an option file.

    Raises:
        OptionError: lists every unknown metric, unknown key and wrong value.
    """
    problems: list[GPENError] = []
    columns = []
    for name, entry in metrics.items():
        where = f"metrics:{name}"
        kind = entry.get("type") if isinstance(entry, Mapping) else entry
        function = resolve("metric", kind)
        if function is None or not isinstance(entry, Mapping):
            problems.append(unknown_name(kind, list(registered("metric")), f"{where}:type"))
            continue
        found = validate(ColumnOptions, {k: v for k, v in entry.items() if k in OF_A_COLUMN}, where)
        of_the_metric = {key: value for key, value in entry.items() if key not in ("label", "decimals", "against")}
        found += keys_of_metric(function, of_the_metric, where)
        problems += found
        if not found:
            columns.append(_column(str(name), function, entry))
    if problems:
        raise join_errors(problems)
    return _with_different_heads(columns)


def _with_different_heads(columns: Sequence[MetricColumn]) -> list[MetricColumn]:
    """Columns that would have the same head get the names of the option file behind it."""
    counts = Counter(column.column.label for column in columns)

    def named(column: MetricColumn) -> MetricColumn:
        if counts[column.column.label] == 1:
            return column
        return replace(column, column=replace(column.column, label=f"{column.column.label} ({column.name})"))

    return [named(column) for column in columns]


def _column(name: str, function: Callable, entry: Mapping) -> MetricColumn:
    options = ColumnOptions(**{key: value for key, value in entry.items() if key in OF_A_COLUMN})
    raising = inspect.unwrap(function)
    parameters = inspect.signature(raising).parameters
    arguments = {key: value for key, value in entry.items() if key not in OF_A_COLUMN}
    if "better" in entry and "better" in parameters:
        arguments["better"] = entry["better"]
    of_sets = _answers_with_sets(raising)
    takes = "img2" in parameters and not arguments.get("statistics")
    label, decimals = KNOWN.get(options.type, (name, 3))
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


def _answers_with_sets(function: Callable) -> bool:
    """Told from what it says to return: metrics of other packages answer with numbers."""
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
    """A distance of sets always says to what; numbers against other sets are not to be compared."""
    if arguments.get("statistics"):
        return f"{label} ({Path(arguments['statistics']).stem})"
    if options.against == "input":
        return f"{label} (input)"
    if arguments.get("unit") == "degrees":
        return f"{label}, degrees"
    return f"{label} (GT)" if of_pairs_of_sets else label


def _settings(options: ColumnOptions, arguments: Mapping) -> str:
    """How a column is measured; a file counts by its name and contents, wherever it lies."""
    plain = {key: _told(value) for key, value in arguments.items()}
    return json.dumps({"type": options.type, "against": options.against, **plain}, sort_keys=True, default=str)


def _told(value: object) -> object:
    path = Path(value) if isinstance(value, str) else None
    if path is None or not path.is_file():
        return value
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def settings_clash(one: Column, other: Column) -> OptionError | None:
    """The error of two tables' columns of one name that were measured in two ways; None if they agree."""
    if (one.settings, one.lower_is_better) == (other.settings, other.lower_is_better):
        return None
    got = f"measured as {other.settings} in one and as {one.settings} in another"
    if one.settings == other.settings:
        got = "lower is better in one and higher in another"
    return OptionError(f"metrics:{one.name}", got, "one way of measuring", "Measure both in the same way.")
