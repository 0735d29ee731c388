"""``python -m gpen_plugin.evaluate -opt options/evaluate/table1.yml``: restore, measure, compare and report."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpen_plugin.config.yaml_io import read_options
from gpen_plugin.errors import handle_errors


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m gpen_plugin.evaluate",
        description="Compare restoration models under one protocol. A stopped run goes on with the same command.",
    )
    parser.add_argument(
        "-opt", type=Path, nargs="+", default=[], metavar="FILE", help="option files, one after another"
    )
    parser.add_argument(
        "--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="as the host's: protocol:out_size=64"
    )
    parser.add_argument("--weights-dir", help="folder with the weights of metrics (else $GPEN_PLUGIN_WEIGHTS)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: a GPU where there is one, each rank its own")
    parser.add_argument("--restart", action="store_true", help="delete what an earlier run has left")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="DIR", help="put finished evaluations side by side")
    parser.add_argument("-o", "--output", type=Path, help="folder of the merged one")
    parser.add_argument("--other-versions", action="store_true", help="merge what other versions of packages measured")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run evaluations, or merge finished ones.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if every method restored every image, 1 if some failed, which the report lists; 130 if it was
        stopped by hand.
    """
    command = parser()
    arguments = command.parse_args(argv)
    if bool(arguments.opt) == bool(arguments.merge):
        command.error("give -opt FILE, or --merge DIR DIR -o DIR")
    if arguments.merge and (arguments.output is None or len(arguments.merge) < 2):
        command.error("--merge needs two or more folders, and -o DIR")
    try:
        files = [read_options(file, arguments.force_yml) for file in arguments.opt]

        from gpen_plugin.evaluate.command import run  # brings PyTorch

        return run(arguments, files)
    except KeyboardInterrupt:
        how = "The same command without --restart" if arguments.restart else "The same command"
        print(f"\nStopped. {how} goes on where it was.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
