"""Put the results of several evaluations side by side, if they were made under one protocol."""

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.metric_columns import settings_clash
from gpen_plugin.evaluate.pooling import check_kinds
from gpen_plugin.evaluate.prepare import PROTOCOL_FILE
from gpen_plugin.evaluate.protocols.fingerprint import Fingerprint, differences
from gpen_plugin.evaluate.results import Results, Row, read_results, write_results


def merge(roots: Sequence[Path], output: Path, other_versions: bool = False) -> Results:
    """Merge evaluations: their methods in one table. The runs of a method may lie in several folders.

    Args:
        roots: folders of evaluations.
        output: folder of the merged one; images are linked there where the disk allows, else copied.
        other_versions: whether the same inputs may have been restored and measured under other versions of the
            packages; a note then says so.
    Returns:
        The merged results, which are written too.
    Raises:
        DataError: the protocols differ; it says in what.
        OptionError: two methods share a name, or a metric was measured in two ways.
    """
    if output.resolve() in {root.resolve() for root in roots}:
        raise OptionError("-o", f"got {output}, which is merged", "a folder of its own")
    if (output / PROTOCOL_FILE).exists():
        raise OptionError("-o", f"got {output}, which is an evaluation of its own", "another folder")
    parts = [read_results(root) for root in roots]
    total = dataclasses.replace(parts[0], columns=[], rows=[], images={}, sets={}, notes=[])
    for root, part in zip(roots, parts, strict=True):
        _check_protocol(total, roots[0], part, root, other_versions)
        _add(total, part, root)
    for root, part in zip(roots, parts, strict=True):
        for row in part.rows:
            _bring(root / "methods" / row.folder / "restored", output / "methods" / row.folder / "restored")
    for folder in ("inputs", "truth"):
        _bring(roots[0] / folder, output / folder)
    write_results(output, total)
    return total


def _check_protocol(total: Results, first: Path, part: Results, root: Path, other_versions: bool) -> None:
    if part.fingerprint["digest"] == total.fingerprint["digest"]:
        return
    for fingerprint in (total.fingerprint, part.fingerprint):
        Fingerprint.from_dict(fingerprint)  # refuses one that was changed by hand
    found = differences(total.fingerprint, part.fingerprint)
    only_versions = all(
        total.fingerprint[name] == part.fingerprint[name] for name in ("kind", "options", "images", "inputs")
    )
    if not (only_versions and other_versions):
        hint = "Evaluate both under one protocol."
        if only_versions:
            hint = "Give --other-versions to put them side by side all the same, with a note."
        raise DataError(str(root), f"differs from {first}: {'; '.join(found)}", "one protocol", hint)
    total.notes.append(f"{', '.join(row.name for row in part.rows)}: made under other versions ({'; '.join(found)})")


def _add(total: Results, part: Results, root: Path) -> None:
    taken = {row.folder for row in total.rows}
    twins = [row for row in part.rows if _same_row(total, part, row)]  # a baseline that both have measured
    for row in part.rows:
        if row.folder in taken and row not in twins:
            got = f"holds another '{row.name}' than the folders before it"
            raise OptionError(str(root), got, "names of their own", "Rename the method in one of the option files.")
    check_kinds([*total.rows, *part.rows], str(root))
    held = {column.name: column for column in total.columns}
    for column in part.columns:
        clash = column.name in held and settings_clash(held[column.name], column)
        if clash:
            raise clash
        if column.name not in held:
            total.columns.append(column)
        elif column.note and column.note not in held[column.name].note:
            note = "; ".join(filter(None, (held[column.name].note, column.note)))
            total.columns[total.columns.index(held[column.name])] = dataclasses.replace(column, note=note)
    total.rows.extend(row for row in part.rows if row not in twins)
    total.images.update(part.images)
    total.sets.update(part.sets)
    total.notes.extend(note for note in part.notes if note not in total.notes)


def _same_row(total: Results, part: Results, row: Row) -> bool:
    """Whether `total` has this very row: one method with the same value of every image and set."""
    values = [
        json.dumps([found.images.get(row.name), found.sets.get(row.name)], sort_keys=True) for found in (total, part)
    ]
    return row in total.rows and values[0] == values[1]


def _bring(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link_or_copy, dirs_exist_ok=True)


def _link_or_copy(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
