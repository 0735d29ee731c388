"""``python -m gpen_plugin.evaluate -opt options/evaluate/table1.yml``: restore, measure, compare and report."""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from gpen_plugin.errors import told_plainly
from gpen_plugin.evaluate.merging import merge
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.ranks import Ranks
from gpen_plugin.evaluate.report import ReportOptions, write_report
from gpen_plugin.evaluate.results import Results
from gpen_plugin.evaluate.runner import evaluate
from gpen_plugin.fetch import use_folder
from gpen_plugin.option_file import read_options


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


@told_plainly
def main(argv: Sequence[str] | None = None) -> int:
    """Run evaluations, or merge finished ones.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if every method restored every image, 1 if some failed, which the report lists; 130 if it was
        stopped by hand.
    """
    arguments = parser().parse_args(argv)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        how = "The same command without --restart" if arguments.restart else "The same command"
        print(f"\nStopped. {how} goes on where it was.", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    if bool(arguments.opt) == bool(arguments.merge):
        parser().error("give -opt FILE, or --merge DIR DIR -o DIR")
    if arguments.merge:
        if arguments.output is None or len(arguments.merge) < 2:
            parser().error("--merge needs two or more folders, and -o DIR")
        results = merge(arguments.merge, arguments.output, arguments.other_versions)
        write_report(arguments.output, results, ReportOptions())
        return _told(arguments.output, results)
    if arguments.weights_dir:
        use_folder(arguments.weights_dir)
    everything = [EvaluationOptions.from_mapping(read_options(file, arguments.force_yml)) for file in arguments.opt]
    ranks = Ranks.of_this_process(arguments.device)
    status = 0
    for options in everything:
        results = evaluate(options, ranks, arguments.restart)
        if ranks.leads:
            status = max(status, _told(options.root, results))
    ranks.leave()
    return status


def _told(root: Path, results: Results) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a table has arrows, which not every terminal can show
    print((root / "table.md").read_text(encoding="utf-8"))
    print(f"Written: {root / 'report.html'}, table.md, .tex, .csv and .json, per_image.csv, results.json")
    failed = any(row.failure for row in results.rows) or next(results.failures(), None) is not None
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
