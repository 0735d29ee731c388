"""The option file of a sweep, checked."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from gpen_plugin.config.schema import check
from gpen_plugin.errors import GPENError, OptionError, join_errors
from gpen_plugin.folder_name import folder_of

OF_THE_SWEEP = ("name", "manual_seed")  # keys of a training that no variant sets


@dataclass(frozen=True)
class SweepOptions:
    """The top level of an option file.

    Args:
        base: option file of a training.
        name: of the experiments; ``{variant}`` stands for the variant's name as a folder, ``{seed}`` for the seed.
        variants: name in tables -> what differs from the base: ``section:key`` -> value, as ``--force_yml`` takes them.
        seeds: each becomes ``manual_seed``.
        processes: trainings side by side; if left out, as many as `devices`, or one.
        devices: numbers of the GPUs that running trainings share out; if left out, each sees all GPUs.
    """

    base: str
    name: str
    variants: Mapping
    seeds: Sequence[int] = (0,)
    processes: int | None = None
    devices: Sequence[int] = ()

    @classmethod
    def from_mapping(cls, given: Mapping) -> "SweepOptions":
        """Check all that can be checked without the base.

        Raises:
            OptionError: lists every problem by key path.
        """
        check(cls, given)
        options = cls(**given)
        problems = [*options._problems()]
        if problems:
            raise join_errors(problems)
        return options

    @property
    def side_by_side(self) -> int:
        """How many trainings run at a time."""
        return self.processes or len(self.devices) or 1

    def experiment(self, variant: str, seed: int) -> str:
        """The name of the experiment that trains this variant from this seed."""
        return self.name.format(variant=folder_of(str(variant)), seed=seed)

    def _problems(self) -> Iterator[GPENError]:
        if self.processes is not None and self.processes < 1:
            yield OptionError("processes", f"got {self.processes}", "1 or more", "Leave it out for one at a time.")
        for key, lowest in (("seeds", 1), ("devices", 0)):
            numbers = getattr(self, key)
            if len(numbers) < lowest or len(set(numbers)) < len(numbers) or any(number < 0 for number in numbers):
                yield OptionError(key, f"got {[*numbers]}", "different numbers from 0", "Mend the list.")
        if not self.variants:
            yield OptionError("variants", "got none", "a mapping of names to what differs", "Add 'GPEN: {}'.")
        for variant, changes in self.variants.items():
            yield from _problems_of_changes(f"variants:{variant}", changes)
        problem = self._problem_of_names()
        if problem:
            yield problem

    def _problem_of_names(self) -> GPENError | None:
        owners: dict[str, str] = {}
        for variant, seed in itertools.product(self.variants, self.seeds):
            try:
                name = self.experiment(variant, seed)
            except (KeyError, IndexError, ValueError, AttributeError):
                return OptionError("name", f"got {self.name}", "in braces only {variant} and {seed}", "Mend it.")
            owner, made = f"'{variant}' of seed {seed}", f"makes the folder {name!r}"
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name):
                return OptionError("name", made, "a letter, then letters, digits and _ . -", "Mend it.")
            if "debug" in name:
                expected = "a name without 'debug', of which the host makes a short run"
                return OptionError("name", made, expected, "Choose another.")
            if name in owners:
                got = f"{owner} and {owners[name]} would share the folder {name}"
                hint = "Write {variant} and {seed} into the name; variants have to differ in letters or digits."
                return OptionError("name", got, "a folder for each training", hint)
            owners[name] = owner
        return None


def _problems_of_changes(where: str, changes: object) -> Iterator[GPENError]:
    if not isinstance(changes, Mapping):
        yield OptionError(where, f"got {changes!r}", "a mapping of section:key to value", "Write {} for the base.")
        return
    for key, value in changes.items():
        if not isinstance(key, str) or not all(part.isidentifier() for part in key.split(":")):
            yield OptionError(f"{where}:{key}", "no key", "section:key, as --force_yml takes it", "Mend the key.")
        elif key in OF_THE_SWEEP:
            yield OptionError(f"{where}:{key}", f"got {value!r}", f"{key} from the sweep alone", "Remove the key.")


def forced(key: str, value: object) -> str:
    """A change as a word of ``--force_yml``: text as it is; lists in Python, which the host evaluates; else YAML.

    Args:
        key: ``section:key``.
        value: as it came out of YAML.
    """
    if isinstance(value, (str, list)):
        return f"{key}={value}"
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return f"{key}={text.strip().removesuffix('...').strip()}"
