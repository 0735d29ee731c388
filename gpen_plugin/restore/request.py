"""What a command line of ``gpen-restore`` asks for, as far as it can be checked before PyTorch is imported."""

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpen_plugin.errors import OptionError
from gpen_plugin.restore.inputs import Inputs, Job, expand


@dataclass(frozen=True)
class Request:
    """Inputs that are there, and options that go together.

    Attributes:
        inputs: the files to restore.
        folder: where results go.
        endings: what is put behind the names of further results.
    """

    inputs: Inputs
    folder: Path
    endings: Sequence[str]

    @classmethod
    def of(cls, arguments: Namespace) -> "Request":
        """Read the parsed command line.

        Raises:
            OptionError: options that do not go together, or an output among the inputs.
            DataError: inputs that are not there, or hold nothing to restore.
        """
        if arguments.report and arguments.report.suffix.lower() != ".json":  # which might be a photograph
            raise OptionError("--report", f"got {arguments.report}", "a name that ends in .json")
        if arguments.report and not arguments.overwrite and os.path.lexists(arguments.report):
            hint = "Pass --overwrite to replace it, or name another file."
            raise OptionError("--report", f"{arguments.report} is there already", "a new file", hint)
        endings = _endings(arguments)
        inputs = expand(arguments.inputs, arguments.output, arguments.suffix, endings=endings)
        _check_videos(arguments, inputs.jobs)
        _check_aligned(arguments)
        output = arguments.output.expanduser()
        is_file = any(output == job.target for job in inputs.jobs)
        return cls(inputs, output.parent if is_file else output, endings)


def _endings(arguments: Namespace) -> list[str]:
    if arguments.variants < 0:
        raise OptionError("--variants", f"got {arguments.variants}", "a number from 0")
    number = arguments.variants or (1 if arguments.reference else 0)
    for name in ("variant_layers", "variant_strength"):
        if getattr(arguments, name) is not None and not number:
            raise OptionError(f"--{name.replace('_', '-')}", "got it without --variants", "both", "Add --variants 3.")
    return [f"_{number}" for number in range(1, number + 1)]


def _check_videos(arguments: Namespace, jobs: Sequence[Job]) -> None:
    """Refuse options that only photographs have where there is none; else each video gets a note, see `Runner`."""
    given = [name for name in ("aligned", "save_faces", "variants", "reference") if getattr(arguments, name)]
    if given and all(job.kind == "video" for job in jobs):
        where, got = f"--{given[0].replace('_', '-')}", f"got it for the video {jobs[0].source}"
        raise OptionError(where, got, "photographs", "Leave it out.")


def _check_aligned(arguments: Namespace) -> None:
    """Refuse options that only whole photographs have."""
    given = [name for name in ("background", "upscale") if getattr(arguments, name) not in (None, 1)]
    if arguments.aligned and given:
        got = "got it with --aligned, whose results have the network's own size"
        raise OptionError(f"--{given[0]}", got, "whole photographs", "Leave one of the two out.")
