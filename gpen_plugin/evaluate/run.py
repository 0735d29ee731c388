"""One evaluation from its options to its report."""

import dataclasses
import logging

from gpen_plugin.evaluate.distributed import Ranks
from gpen_plugin.evaluate.measure import WHOLE_SET, Measured, MetricRunner
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.prepare import FOLDERS, PROTOCOL_FILE, Prepared, Restored, prepare, restore_all
from gpen_plugin.evaluate.protocols import build_protocol
from gpen_plugin.evaluate.report import SOMETIMES, ReportOptions, check_report, write_report
from gpen_plugin.evaluate.results import FILE, Results, delete_file, delete_folder, write_results


def evaluate(options: EvaluationOptions, ranks: Ranks, restart: bool = False) -> Results:
    """Restore, measure and report. What an earlier run has done is kept; every rank has to call this.

    Args:
        options: of the evaluation.
        ranks: who shares the work; their folders are on one disk.
        restart: whether to delete what an earlier run has left.
    Returns:
        The results, on every rank.
    Raises:
        GPENError: the protocol's data or the report's labels are not there, or the folder belongs to another protocol.
    """
    report = ReportOptions.from_options(options.report)
    check_report(report)
    protocol = build_protocol(options.protocol)
    if restart and ranks.leads:
        _clear(options)
    ranks.wait()
    prepared = prepare(protocol, options.root, ranks)
    everything = [restore_all(run, prepared, ranks) for run in options.runs]
    measurer = MetricRunner(options.columns, prepared, ranks)
    measured = [{} if restored.row.failure else measurer.measure(restored) for restored in everything]
    results = _results(options, prepared, measurer, list(zip(everything, measured, strict=True)))
    if ranks.leads:
        write_results(options.root, results)
        write_report(options.root, results, report)
    ranks.wait()
    return results


def _clear(options: EvaluationOptions) -> None:
    """Delete what an evaluation wrote, and nothing else that may lie in the folder."""
    marks = (FILE, PROTOCOL_FILE)
    if not any((options.root / file).exists() for file in marks):
        return
    for folder in FOLDERS:
        delete_folder(options.root / folder)
    for file in (*SOMETIMES, *marks):  # the marks last: what is stopped in between is still known as ours
        delete_file(options.root / file)


def in_order(measured: Measured, results: Results) -> Measured:
    """Values by condition, image and column as the results list them, whichever rank found which."""
    orders = (results.conditions, [WHOLE_SET, *results.keys], [column.name for column in results.columns])
    rank_of = [{name: rank for rank, name in enumerate(order)} for order in orders]
    return dict(sorted(measured.items(), key=lambda item: [rank[n] for rank, n in zip(rank_of, item[0], strict=True)]))


def _results(
    options: EvaluationOptions, prepared: Prepared, measurer: MetricRunner, found: list[tuple[Restored, Measured]]
) -> Results:
    results = Results(
        name=options.name,
        title=options.title or options.name,
        fingerprint=prepared.fingerprint.to_dict(),
        size=prepared.size,
        keys=prepared.keys,
        conditions=prepared.conditions,
        columns=[dataclasses.replace(column.column, note=measurer.note(column)) for column in options.columns],
        rows=[restored.row for restored, _ in found],
        notes=prepared.notes,
    )
    for restored, measured in found:
        name = restored.row.name
        if not restored.row.failure:
            results.images[name] = {c: {} for c in prepared.conditions}
            for condition, key in prepared.places:
                failure = restored.failures.get((condition, key))
                results.images[name][condition][key] = {"failure": failure} if failure else {}
        for (condition, key, column), value in in_order(measured, results).items():
            place = results.sets.setdefault(name, {}).setdefault(condition, {})
            (place if key == WHOLE_SET else results.images[name][condition][key])[column] = value
    for failure in results.failures():
        place = " ".join(filter(None, (failure.condition, failure.key)))
        logging.getLogger("basicsr").warning(f"{failure.method} failed on {place}: {failure.reason}")
    return results
