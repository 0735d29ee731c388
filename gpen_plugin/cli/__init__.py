"""The command line of the host's train.py and test.py, read before the host is imported, which takes seconds."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec

from gpen_plugin.errors import INSTALL_HOST, MissingFileError, OptionError


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """The host's options. It has its own parser for them, which reads the same words once more."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("-opt", required=True, metavar="FILE", help="option file, YAML")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none", help="of several processes")
    parser.add_argument("--auto_resume", action="store_true", help="go on from the newest training state")
    parser.add_argument("--debug", action="store_true", help="the host's short run")
    parser.add_argument("--local_rank", type=int, default=0, help="set by launchers")
    parser.add_argument(
        "--force_yml", nargs="+", metavar="KEY=VALUE", help="change the option file: train:ema_decay=0.999"
    )
    return parser


def read_command_line(command: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line and leave it in `sys.argv`, where the host looks for it.

    Args:
        command: from `parser`.
        argv: command line without the program's name; None for `sys.argv`.
    Raises:
        OptionError: the option file cannot be opened.
    """
    if argv is not None:
        sys.argv = [sys.argv[0], *argv]
    given = command.parse_args()
    try:
        with open(given.opt):
            return given
    except OSError as error:
        raise OptionError("-opt", str(error), "an option file", "Check the path.") from error


def host_pipeline(command: str) -> Callable[[str], None]:
    """Import what the host's script runs: ``train_pipeline`` for ``train``, ``test_pipeline`` for ``test``.

    Raises:
        MissingFileError: BasicSR is not installed, or cannot be imported.
    """
    if find_spec("basicsr") is None:
        raise MissingFileError("BasicSR", "is not installed", hint=f"Training needs it. Run: {INSTALL_HOST}")
    try:
        return getattr(import_module(f"basicsr.{command}"), f"{command}_pipeline")
    except Exception as error:  # of any kind: a torchvision for another torch ends in a RuntimeError
        got = f"cannot be loaded ({type(error).__name__}: {error})"
        hint = "Run `python -m gpen_plugin.doctor` to see what to do."
        raise MissingFileError("BasicSR", got, hint=hint) from error
