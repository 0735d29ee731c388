"""The work behind ``gpen-evaluate``, once its command line and option files could be read."""

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpen_plugin.checkpoints.download import add_search_dir
from gpen_plugin.evaluate.distributed import Ranks
from gpen_plugin.evaluate.merging import merge
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.report import ReportOptions, write_report
from gpen_plugin.evaluate.results import Results
from gpen_plugin.evaluate.run import evaluate


def run(arguments: argparse.Namespace, files: Sequence[Mapping]) -> int:
    """Run the evaluations that option files describe, or merge finished ones; the command's exit status."""
    if arguments.merge:
        results = merge(arguments.merge, arguments.output, arguments.other_versions)
        write_report(arguments.output, results, ReportOptions())
        return _told(arguments.output, results)
    if arguments.weights_dir:
        add_search_dir(arguments.weights_dir)
    everything = [EvaluationOptions.from_mapping(file) for file in files]
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
