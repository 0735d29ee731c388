"""``python -m gpen_plugin.evaluate -opt options/evaluate/table1.yml``: restore, measure, compare and report."""

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpen_plugin.config.schema import read_options
from gpen_plugin.errors import handle_errors

if TYPE_CHECKING:
    from gpen_plugin.evaluate.results import Results


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m gpen_plugin.evaluate",
        description="Compare restoration models under one protocol. To resume a stopped run, give the same command.",
    )
    parser.add_argument("-opt", type=Path, nargs="+", default=[], metavar="FILE", help="option files, run in order")
    parser.add_argument(
        "--force_yml",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change the option files, as in BasicSR: protocol:out_size=64",
    )
    parser.add_argument("--weights-dir", help="folder with the weights of the metrics (default: $GPEN_PLUGIN_WEIGHTS)")
    parser.add_argument("--device", help="cpu, cuda or cuda:1 (default: a GPU if there is one, one per rank)")
    parser.add_argument("--restart", action="store_true", help="delete the results of an earlier run first")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="DIR", help="merge finished evaluations into one")
    parser.add_argument("-o", "--output", type=Path, help="folder of the merged evaluation")
    parser.add_argument(
        "--other-versions", action="store_true", help="merge evaluations of different package versions too"
    )
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run evaluations, or merge finished ones.

    Returns:
        Exit status: 0 if every method restored every image, 1 if some failed, 130 after Ctrl-C.
    """
    command = parser()
    arguments = command.parse_args(argv)
    if bool(arguments.opt) == bool(arguments.merge):
        command.error("give -opt FILE, or --merge DIR DIR -o DIR")
    if arguments.merge and (arguments.output is None or len(arguments.merge) < 2):
        command.error("--merge needs two or more folders, and -o DIR")
    try:
        files = [read_options(file, arguments.force_yml) for file in arguments.opt]
        return _merge(arguments) if arguments.merge else _evaluate(arguments, files)
    except KeyboardInterrupt:
        how = "the same command without --restart" if arguments.restart else "the same command"
        print(f"\nStopped. To resume, run {how}.", file=sys.stderr)
        return 130


def _merge(arguments: argparse.Namespace) -> int:
    from gpen_plugin.evaluate.options import ReportOptions
    from gpen_plugin.evaluate.report import write_report
    from gpen_plugin.evaluate.results import merge_results

    results = merge_results(arguments.merge, arguments.output, arguments.other_versions)
    write_report(arguments.output, results, ReportOptions())
    return _print_table(arguments.output, results)


def _evaluate(arguments: argparse.Namespace, files: Sequence[Mapping]) -> int:
    from gpen_plugin.checkpoints.download import add_search_dir
    from gpen_plugin.evaluate.distributed import Ranks
    from gpen_plugin.evaluate.options import EvaluationOptions
    from gpen_plugin.evaluate.run import evaluate
    from gpen_plugin.ops.memory import keep_freed_memory

    keep_freed_memory()
    if arguments.weights_dir:
        add_search_dir(arguments.weights_dir)
    all_options = [EvaluationOptions.from_mapping(file) for file in files]
    ranks = Ranks.of_this_process(arguments.device)
    status = 0
    for options in all_options:
        results = evaluate(options, ranks, arguments.restart)
        if ranks.is_main:
            status = max(status, _print_table(options.root, results))
    ranks.close()
    return status


def _print_table(root: Path, results: "Results") -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # tables hold arrows, which not every terminal can show
    print((root / "table.md").read_text(encoding="utf-8"))
    print(f"Written: {root / 'report.html'}, table.md, .tex, .csv and .json, per_image.csv, results.json")
    failed = any(row.failure for row in results.rows) or next(results.failures(), None) is not None
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
