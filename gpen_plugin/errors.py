"""The errors that a user of this package can meet, and the one way in which they are worded.

Every message answers four questions: where, what came, what was expected, and the way out. A mistake that only
we can make is an `assert` instead.
"""

import sys
from collections.abc import Callable, Sequence
from functools import wraps

INSTALL_HOST = 'pip install "gpen_plugin[train]"'  # what training needs: BasicSR, LMDB
INSTALL_FACEXLIB = "pip install facexlib"


class GPENError(Exception):
    """Base of all errors that a user can cause and mend.

    Args:
        where: a YAML key path as the host's ``--force_yml`` writes it (``network_g:out_size``), a file, or an
            argument. Given alone, it is the whole message (how an error comes back from a worker process).
        got: what was found there.
        expected: what would have been right, without a full stop.
        hint: what to do now, a whole sentence.
    """

    def __init__(self, where: str, got: str = "", expected: str = "", hint: str = ""):
        self.where, self.got, self.expected, self.hint = where, got, expected, hint
        parts = [f"{where}: {got}" if got else where]
        if expected:
            parts.append(f"; expected {expected}")
        if expected or (hint and got):
            parts.append(".")
        if hint:
            parts.append(f" {hint}")
        super().__init__("".join(parts))

    def under(self, prefix: str) -> "GPENError":
        """The same error with its key path continued to the left: ``out_size`` -> ``network_g:out_size``."""
        return type(self)(f"{prefix}:{self.where}", self.got, self.expected, self.hint)


class OptionError(GPENError, ValueError):
    """A key or value in an option file, or an argument of a constructor."""


class ShapeError(GPENError, ValueError):
    """A tensor or image whose shape does not fit."""


class CheckpointError(GPENError, RuntimeError):
    """A weight file that cannot be read, is not safe to read, or is of another network."""


class DataError(GPENError, RuntimeError):
    """A data folder, LMDB or image that is missing or damaged."""


class MissingFileError(GPENError, FileNotFoundError):
    """A file or package that something needs beside its options, such as published weights, is not to be had."""


class TrainingError(GPENError, RuntimeError):
    """A training that cannot go on."""


class RegistryClashError(GPENError, KeyError):
    """Two modules claim one name in a registry of BasicSR."""

    __str__ = Exception.__str__  # KeyError would print the repr, quotes and all


def join_errors(problems: list[GPENError]) -> GPENError:
    """One error that tells all `problems`, so that a user mends an option file in one go."""
    if len(problems) == 1:
        return problems[0]
    return type(problems[0])(f"{len(problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in problems))


def plain_message(error: GPENError) -> str:
    """The message alone, where a loader worker's whole traceback came with it."""
    return str(error).rpartition(f"{type(error).__module__}.{type(error).__qualname__}: ")[2].strip()


def handle_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Decorator of a command's ``main``: our errors end it with their message and status 1, without a traceback."""

    @wraps(main)
    def wrapper(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except GPENError as error:
            print(f"gpen_plugin: error: {plain_message(error)}", file=sys.stderr, flush=True)
            return 1

    return wrapper
