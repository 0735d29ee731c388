"""A method that was trained several times: one entry of the option file, and a run per file of weights."""

from collections.abc import Mapping
from typing import NamedTuple

from gpen_plugin.config.schema import matches_type
from gpen_plugin.errors import OptionError

PLACE = "{run}"


class Run(NamedTuple):
    """What is restored and measured on its own.

    Attributes:
        name: of its row in the results.
        method: what the option file calls it; the same as `name` where the method has no ``runs``.
        entry: of the method, with the weights of this run.
    """

    name: str
    method: str
    entry: Mapping

    @property
    def run_of(self) -> str:
        """The method whose values it is a part of; empty for a method without ``runs``."""
        return self.method if self.name != self.method else ""


def runs_of(method: str, entry: Mapping) -> list[Run]:
    """The runs that an entry asks for: one for each of ``runs``, which ``{run}`` in ``weights`` stands for.

    Args:
        method: its name.
        entry: from the option file.
    Raises:
        OptionError: ``runs`` without ``{run}`` or the other way round, or it is no list of different names.
    """
    where, weights = f"methods:{method}", entry.get("weights")
    has_place = isinstance(weights, str) and PLACE in weights
    if "runs" not in entry:
        if has_place:
            got, hint = f"got {weights}, and no runs", "Add e.g. runs: [0, 1, 2], or name one file."
            raise OptionError(f"{where}:weights", got, f"runs, which {PLACE} stands for", hint)
        return [Run(method, method, entry)]
    runs = entry["runs"]
    _check_list(runs, f"{where}:runs")
    if not has_place:
        got, hint = f"given, and weights has no {PLACE}", f"Write {PLACE} into weights, or remove runs."
        raise OptionError(f"{where}:runs", got, f"weights with {PLACE}, a file for each run", hint)
    rest = {key: value for key, value in entry.items() if key != "runs"}
    return [Run(f"{method}, run {run}", method, {**rest, "weights": weights.replace(PLACE, str(run))}) for run in runs]


def _check_list(runs: object, where: str) -> None:
    if not matches_type(runs, list[int | str]) or not runs:
        raise OptionError(where, f"got {runs!r}", "a list of numbers or names, such as [0, 1, 2]")
    doubles = sorted({str(run) for run in runs if [str(other) for other in runs].count(str(run)) > 1})
    if doubles:
        raise OptionError(where, f"got {', '.join(doubles)} more than once", "each run once")
