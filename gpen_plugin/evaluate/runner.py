"""One evaluation from its options to its report."""

import dataclasses
import logging
import shutil

from gpen_plugin.evaluate.measuring import WHOLE_SET, Measured, Measurer
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.preparation import PROTOCOL_FILE, Prepared, prepare
from gpen_plugin.evaluate.protocols import build_protocol
from gpen_plugin.evaluate.ranks import Ranks
from gpen_plugin.evaluate.report import ReportOptions, require_packages, write_report
from gpen_plugin.evaluate.restoring import Restored, restore_all
from gpen_plugin.evaluate.results import FILE, Results, write_results


def evaluate(options: EvaluationOptions, ranks: Ranks, restart: bool = False) -> Results:
    """Restore, measure and report. What an earlier run has done is kept; every rank has to call this.

    Args:
        options: of the evaluation.
        ranks: who shares the work; their folders are on one disk.
        restart: whether to delete what an earlier run has left.
    Returns:
        The results, on every rank.
    Raises:
        GPENError: the protocol's data are not there, or the folder belongs to another protocol.
    """
    require_packages()
    protocol = build_protocol(options.protocol)
    if restart and ranks.leads:
        _clear(options)
    ranks.wait()
    prepared = prepare(protocol, options.root, ranks)
    everything = [restore_all(str(name), entry, prepared, ranks) for name, entry in options.methods.items()]
    measurer = Measurer(options.columns, prepared, ranks)
    measured = [{} if restored.row.failure else measurer.measure(restored) for restored in everything]
    results = _results(options, prepared, measurer, list(zip(everything, measured, strict=True)))
    if ranks.leads:
        write_results(options.root, results)
        write_report(options.root, results, ReportOptions.from_options(options.report))
    ranks.wait()
    return results


def _clear(options: EvaluationOptions) -> None:
    """Delete what an evaluation wrote, and nothing else that may lie in the folder."""
    for folder in ("inputs", "truth", "methods", "sheets"):
        shutil.rmtree(options.root / folder, ignore_errors=True)
    for file in (PROTOCOL_FILE, FILE):
        (options.root / file).unlink(missing_ok=True)


def _results(
    options: EvaluationOptions, prepared: Prepared, measurer: Measurer, found: list[tuple[Restored, Measured]]
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
        for (condition, key, column), value in measured.items():
            place = results.sets.setdefault(name, {}).setdefault(condition, {})
            (place if key == WHOLE_SET else results.images[name][condition][key])[column] = value
    for failure in results.failures():
        place = " ".join(filter(None, (failure.condition, failure.key)))
        logging.getLogger("basicsr").warning(f"{failure.method} failed on {place}: {failure.reason}")
    return results
