"""The errors that a user can cause. Every message has four parts: where, got, expected, hint.

Mistakes of our own are an `assert` instead.
"""

import sys
from collections.abc import Callable, Sequence
from functools import wraps

INSTALL_HOST = 'pip install "gpen_plugin[train]"'  # what training needs: BasicSR, LMDB
INSTALL_FACEXLIB = "pip install facexlib"


class GPENError(Exception):
    """Base of all errors that a user can cause.

    Args:
        where: a YAML key path as in BasicSR's ``--force_yml`` (``network_g:out_size``), a file, or an
            argument. Alone, it is the whole message (an error that a worker process sends back).
        got: what was found there.
        expected: what is valid, without a full stop.
        hint: what to do, a whole sentence.
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
    """A missing file or package, such as published weights."""


class TrainingError(GPENError, RuntimeError):
    """A training that cannot continue."""


class RegistryClashError(GPENError, KeyError):
    """Two modules claim one name in a registry of BasicSR."""

    __str__ = Exception.__str__  # KeyError would print the repr, with quotes


def join_errors(problems: Sequence[GPENError]) -> GPENError:
    """One error that lists all `problems`, so that a user can correct them at once."""
    if len(problems) == 1:
        return problems[0]
    return type(problems[0])(f"{len(problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in problems))


def plain_message(error: GPENError) -> str:
    """The message without the traceback that a loader worker adds."""
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
