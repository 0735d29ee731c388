"""``python -m gpen_plugin.sweep -opt options/evidence/sweep_64.yml``: train variants of one option file, by seeds.

Experiments are made below the current folder, as by ``gpen-train``; what each training prints goes to
``sweeps/<option file>/<experiment>.txt``.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from gpen_plugin.config.yaml_io import read_options
from gpen_plugin.errors import handle_errors
from gpen_plugin.sweep.checking import check_trainings
from gpen_plugin.sweep.options import SweepOptions
from gpen_plugin.sweep.plan import Training, plan
from gpen_plugin.sweep.running import Place, run_all

OUTPUT = Path("sweeps")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m gpen_plugin.sweep",
        description="Train variants of one option file, by seeds. A stopped sweep goes on with the same command.",
    )
    parser.add_argument("-opt", type=Path, required=True, metavar="FILE", help="option file of the sweep, YAML")
    parser.add_argument("--only", nargs="+", default=[], metavar="VARIANT", help="these variants")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="instead of the file's")
    parser.add_argument("--processes", type=int, metavar="N", help="trainings side by side, instead of the file's")
    parser.add_argument("--devices", type=int, nargs="+", metavar="N", help="GPUs to share out, instead of the file's")
    parser.add_argument("--dry-run", action="store_true", help="check, print what would run, and start nothing")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run a sweep.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if every training is finished, 1 if some failed; 130 if it was stopped by hand.
    """
    arguments = parser().parse_args(argv)
    instead = {key: getattr(arguments, key) for key in ("seeds", "processes", "devices")}
    given = read_options(arguments.opt) | {key: value for key, value in instead.items() if value is not None}
    options = SweepOptions.from_mapping(given)
    trainings = plan(options, arguments.only)
    place = Place(options.side_by_side, options.devices)
    try:
        return _sweep(trainings, place, OUTPUT / arguments.opt.stem, arguments.dry_run)
    except KeyboardInterrupt:
        print("\nStopped, and the trainings with it. The same command goes on where they were.", file=sys.stderr)
        return 130


def _sweep(trainings: Sequence[Training], place: Place, folder: Path, dry_run: bool) -> int:
    finished = [training for training in trainings if training.is_finished()]
    left = [training for training in trainings if training not in finished]
    print(f"{len(trainings)} trainings, {len(finished)} finished; {place.processes} at a time.", flush=True)
    if dry_run:
        for training in trainings:
            print(_planned(training, training in finished))
    check_trainings(left, place.environment(place.least_busy([])))
    if dry_run or not left:
        return 0
    print(f"What they print: {folder}/", flush=True)
    failed = run_all(left, place, folder)
    if failed:
        names = ", ".join(training.name for training in failed)
        print(f"gpen_plugin: {len(failed)} of {len(left)} failed: {names}", file=sys.stderr)
        print("What is mended goes on with the same command.", file=sys.stderr)
    return 1 if failed else 0


def _planned(training: Training, is_finished: bool) -> str:
    if is_finished:
        return f"finished: {training.name}"
    start = f"from iteration {training.resumes_at:,}" if training.resumes_at else "from the start"
    return f"{start}: {training.name}\n    python -m gpen_plugin.train {shlex.join(training.words)}"


if __name__ == "__main__":
    sys.exit(main())
