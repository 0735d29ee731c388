"""Which trainings a sweep consists of, and which of them are finished."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpen_plugin.config.yaml_io import read_options
from gpen_plugin.errors import OptionError
from gpen_plugin.sweep.options import SweepOptions, forced

EXPERIMENTS = Path("experiments")  # of the host, below the current folder


@dataclass(frozen=True)
class Training:
    """One training of a sweep.

    Attributes:
        variant: its name in tables.
        name: of the experiment.
        words: command line of ``python -m gpen_plugin.train``.
        base: the option file.
        total_iter: iterations that it is to make.
    """

    variant: str
    name: str
    words: tuple[str, ...]
    base: Path
    total_iter: int

    @property
    def weights(self) -> Path:
        """The networks of the end of the training."""
        return EXPERIMENTS / self.name / "models" / "net_g_latest.pth"

    @property
    def resumes_at(self) -> int:
        """Iteration of the newest training state; 0 where there is none."""
        states = (EXPERIMENTS / self.name / "training_states").glob("*.state")
        return max((int(path.stem) for path in states if path.stem.isdigit()), default=0)

    def is_finished(self) -> bool:
        """Whether the last run came to its end, and was asked for as many iterations as are wanted now.

        The host writes the last networks at the end only, but those of an earlier end stay when a training goes on to a
        raised ``total_iter``. At each start it copies the option file: what is older than the copy is not of that run.
        Without training states, as where networks alone were brought here, there is nothing to go on from.
        """
        if not self.weights.is_file():
            return False
        copy = EXPERIMENTS / self.name / self.base.name
        asked = _total_iter_asked(copy) if copy.is_file() else None
        if not self.resumes_at:
            return asked in (None, self.total_iter)
        return asked == self.total_iter and self.weights.stat().st_mtime >= copy.stat().st_mtime


def plan(options: SweepOptions, only: Sequence[str] = ()) -> list[Training]:
    """The trainings in the order in which they are made: all variants of the first seed, then of the next.

    Args:
        options: of the sweep.
        only: names of variants; empty for all.
    Raises:
        OptionError: the base cannot be read or lacks ``train:total_iter``, or a change does not fit into it.
    """
    names = [str(name) for name in options.variants]
    for name in only:
        if name not in names:
            raise OptionError("--only", f"got {name}", "some of " + ", ".join(names))
    read_options(options.base, where="base")
    chosen = [name for name in options.variants if not only or str(name) in only]
    return [_training(options, name, seed) for seed in options.seeds for name in chosen]


def _training(options: SweepOptions, variant: str, seed: int) -> Training:
    name = options.experiment(variant, seed)
    changes = {"name": name, "manual_seed": seed, **options.variants[variant]}
    entries = [forced(key, value) for key, value in changes.items()]
    total_iter = _total_iter(Path(options.base), entries)
    if total_iter is None:
        raise OptionError(f"{options.base}: train:total_iter", "missing", "a whole number", "Add the key.")
    words = ("-opt", options.base, "--auto_resume", "--force_yml", *entries)
    return Training(str(variant), name, words, Path(options.base), total_iter)


def _total_iter(file: Path, entries: Sequence[str]) -> int | None:
    """The iterations that an option file asks for; None where it does not tell."""
    train = read_options(file, entries).get("train")
    number = train.get("total_iter") if isinstance(train, Mapping) else None
    return number if isinstance(number, int) else None


def _total_iter_asked(copy: Path) -> int | None:
    """The iterations that a run was asked for, by the host's copy of its option file; the third line is the command."""
    command = "".join(copy.read_text(encoding="utf-8").splitlines()[2:3])
    with suppress(OptionError):  # cut short, by a kill
        return _total_iter(copy, re.findall(r"\s(train:total_iter=\S+)", command))
    return None
