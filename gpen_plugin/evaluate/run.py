"""One evaluation: prepare the inputs, restore them, measure, and write the report."""

import dataclasses
import hashlib
import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gpen_plugin.baselines.method import Method, Sample
from gpen_plugin.data.image_source import decode_image
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.cost import cost_columns, cost_note, measure_cost
from gpen_plugin.evaluate.distributed import Ranks, merge_dicts
from gpen_plugin.evaluate.fingerprint import MAX_KEYS, compute_fingerprint
from gpen_plugin.evaluate.measure import WHOLE_SET, MetricRunner, MetricValues
from gpen_plugin.evaluate.methods import build_method
from gpen_plugin.evaluate.ntire import add_score
from gpen_plugin.evaluate.options import EvaluationOptions, ReportOptions, Run
from gpen_plugin.evaluate.protocols import Ntire, Protocol, build_protocol, join_keys
from gpen_plugin.evaluate.report import OPTIONAL_FILES, check_report, write_report
from gpen_plugin.evaluate.results import (
    FILE,
    FOLDERS,
    NO_REFERENCE,
    PROTOCOL_FILE,
    Prepared,
    Restored,
    Results,
    Row,
    SampleId,
    delete_file,
    delete_folder,
    format_error,
    input_path,
    read_samples,
    reference_path,
    restored_path,
    restored_path_in,
    slugify,
    truth_path,
    with_unique_labels,
    write_results,
    write_text,
)
from gpen_plugin.evaluate.stats import failure_lines
from gpen_plugin.images.files import write_image

IDENTITY_FILE = "method.json"


def evaluate(
    options: EvaluationOptions,
    ranks: Ranks,  # share the work; their folders are on one disk
    restart: bool = False,  # delete the results of an earlier run
) -> Results:
    """Restore, measure and report; resume an earlier run. Every rank must call this, and gets the results.

    GPENError: the protocol's data or the report's labels are missing, or the folder belongs to another protocol.
    """
    report = ReportOptions.from_options(options.report)
    check_report(report)
    protocol = build_protocol(options.protocol)
    if restart and ranks.is_main:
        _clear(options)
    ranks.barrier()
    prepared = prepare(protocol, options.root, ranks)
    metrics = MetricRunner(options.columns, prepared, ranks)
    all_restored = [restore_all(run, prepared, ranks, options.cost) for run in options.runs]
    metrics.digests = {restored.row.name: restored.digest for restored in all_restored}
    values = [{} if restored.row.failure else metrics.measure(restored) for restored in all_restored]
    results = _to_results(options, prepared, metrics, list(zip(all_restored, values, strict=True)))
    if ranks.is_main:
        write_results(options.root, results)
        write_report(options.root, results, report)
    ranks.barrier()
    return results


def _clear(options: EvaluationOptions) -> None:
    """Delete what an evaluation wrote, and nothing else in the folder."""
    marks = (FILE, PROTOCOL_FILE)  # without either, the folder is not recognized as an evaluation
    if not any((options.root / file).exists() for file in marks):
        return
    for folder in FOLDERS:
        delete_folder(options.root / folder)
    for file in (*OPTIONAL_FILES, *marks):  # the marks last, in case this is interrupted
        delete_file(options.root / file)


def prepare(protocol: Protocol, root: Path, ranks: Ranks) -> Prepared:
    """Write the inputs that are missing or outdated, and compute the fingerprint; every rank must call this.

    DataError: `root` holds an evaluation under another protocol or is not writable, or no image can be read.
    """
    _check_folder(root, protocol, ranks)
    unreadable = merge_dicts(ranks.gather(_write(protocol, root, ranks)))
    keys = [key for key in protocol.keys if key not in unreadable]
    if not keys:
        raise DataError("protocol", f"none of {len(protocol.keys)} images can be read", "at least one")
    notes = [*protocol.notes, *(f"left out: {why}" for _, why in sorted(unreadable.items()))]
    if protocol.has_references:
        lacking = [key for key in keys if not reference_path(root, key).exists()]
        how = "of the same identity" if protocol.options()["references"] == "identity" else "of the same name"
        notes.append(
            f"The reference of a face is another image {how}. {len(keys) - len(lacking)} of {len(keys)} images have one"
            + (f"; none has {join_keys(lacking, MAX_KEYS)}" if lacking else "")
        )
    readable = _ReadableProtocol(protocol, keys)
    fingerprint = compute_fingerprint(readable, _read_all_samples(root, readable)) if ranks.is_main else None
    fingerprint = ranks.gather(fingerprint)[0]
    with_truth = frozenset(filter(protocol.has_truth_of, keys))
    there = set(keys)
    test_sets = {name: [key for key in held if key in there] for name, held in protocol.test_sets.items()}
    return Prepared(
        root,
        protocol.size,
        keys,
        protocol.conditions,
        with_truth,
        protocol.has_references,
        fingerprint,
        notes,
        {name: held for name, held in test_sets.items() if held},
        {key: points for key in keys if (points := protocol.landmarks(key)) is not None},
    )


class _ReadableProtocol:
    """A protocol without the images that could not be read."""

    def __init__(self, protocol: Protocol, keys: Sequence[str]):
        self._protocol, self.keys = protocol, list(keys)

    def __getattr__(self, name: str) -> object:
        return getattr(self._protocol, name)


def _check_folder(root: Path, protocol: Protocol, ranks: Ranks) -> None:
    """Refuse a folder with inputs of another protocol, or with other files under our names."""
    # Images may be added to the same protocol: each is degraded, restored and measured independently.
    wanted = json.loads(json.dumps({"kind": protocol.kind, "options": protocol.options(), "keys": protocol.keys}))
    path = root / PROTOCOL_FILE
    if path.is_file():
        _check_same_protocol(root, _json(path), wanted)
    else:
        _check_empty(root)
    if ranks.is_main:
        write_text(path, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
    ranks.barrier()


def _check_same_protocol(root: Path, held: Mapping, wanted: Mapping) -> None:
    differing = [name for name in ("kind", "options") if held.get(name) != wanted[name]]
    lost = sorted(set(held.get("keys", ())) - set(wanted["keys"]))
    if differing:
        got = f"was made under another protocol (its {' and '.join(differing)} differ)"
    elif lost:
        number = f"{len(lost)} image" + "s" * (len(lost) != 1)
        got = f"contains {number} that the protocol does not have now: {join_keys(lost, MAX_KEYS)}"
    else:
        return
    hint = "Choose another output, or give --restart to delete this one."
    raise DataError(str(root), got, "an empty folder, or one of this protocol", hint)


def _check_empty(root: Path) -> None:
    there = [name for name in FOLDERS if (root / name).exists()]
    if there:
        got = f"contains {', '.join(there)}, and no evaluation wrote them"
        hint = "Choose another output. --restart deletes a merged evaluation."
        raise DataError(str(root), got, "an empty folder, or an evaluation", hint)


def _write(protocol: Protocol, root: Path, ranks: Ranks) -> dict[str, str]:
    """Write this rank's part of the inputs; return the unreadable images with the reason."""
    unreadable = {}
    for key in tqdm(ranks.shard(protocol.keys), "inputs", unit="image", disable=not ranks.is_main):
        try:
            samples = [protocol.sample(key, condition) for condition in _conditions_to_write(protocol, root, key)]
            reference = protocol.reference(key)
        except DataError as error:
            logging.getLogger("basicsr").warning(f"left out: {error}")
            unreadable[key] = format_error(
                DataError(key, error.got, error.expected, error.hint) if error.got else error
            )
            continue
        for sample in samples:
            write_image(input_path(root, sample.condition, key), sample.lq)
        if reference is None:
            delete_file(reference_path(root, key))  # of an earlier run
        elif not file_holds(reference_path(root, key), reference):
            write_image(reference_path(root, key), reference)
        if samples and samples[0].gt is not None:  # last, because it shows from which images the inputs were made
            write_image(truth_path(root, key), samples[0].gt)
    return unreadable


def _conditions_to_write(protocol: Protocol, root: Path, key: str) -> list[str]:
    """Conditions whose inputs are missing; all, if the existing ones were made from another image."""
    missing = [condition for condition in protocol.conditions if not input_path(root, condition, key).exists()]
    if missing == protocol.conditions:
        return missing
    truth, degraded = protocol.originals(key)
    there = [
        (input_path(root, condition, key), degraded) for condition in protocol.conditions if condition not in missing
    ]
    there.append((truth_path(root, key), truth))
    as_found = all(image is None or file_holds(path, image) for path, image in there)
    return missing if as_found else protocol.conditions


def file_holds(path: Path, image: np.ndarray) -> bool:
    """Whether a file exists and holds this image, pixel for pixel."""
    try:
        return np.array_equal(decode_image(path.read_bytes(), str(path)), image)
    except (OSError, DataError):
        return False


def _read_all_samples(root: Path, protocol: Protocol) -> Iterator[Sample]:
    total = len(protocol.keys) * len(protocol.conditions)
    with tqdm(total=total, desc="fingerprint", unit="image") as progress:
        for key in protocol.keys:
            has = protocol.has_truth_of(key), protocol.has_references
            for sample in read_samples(root, key, protocol.conditions, protocol.size, *has):
                yield sample
                progress.update()


def _json(path: Path) -> Mapping:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"holds a {type(content).__name__}")
        return content
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"is damaged ({error})", "JSON", "Give --restart to start again.") from error


def restore_all(run: Run, prepared: Prepared, ranks: Ranks, cost: Sequence[str] = ()) -> Restored:
    """Restore what is not restored yet, each rank its part, and measure the `cost`; every rank must call this."""
    # Images of an earlier run are kept if method and input are the same.
    folder = prepared.root / "methods" / slugify(run.name)
    method, failure = _build(run, folder, ranks)
    if method is not None and _needs_reference(method) and not prepared.has_references:
        got, hint = (
            "needs reference faces, and the protocol has none",
            "Set protocol:references, see docs/EVALUATION.md.",
        )
        failure = str(OptionError(f"methods:{run.method}", got, hint=hint))
    failure = next(filter(None, ranks.gather(failure)), "")
    row = Row(run.name, slugify(run.name), method.description if method else "", failure, run.run_of)
    if failure:
        logging.getLogger("basicsr").warning(f"{run.name}: {failure}")
        return Restored(row)
    digest = _digest(method, prepared)
    if ranks.is_main:
        _claim(folder, digest, method, prepared)
    ranks.barrier()
    failures, skipped = (
        merge_dicts(parts) for parts in zip(*ranks.gather(_restore_share(method, row, prepared, ranks)), strict=True)
    )
    # all ranks have restored, so that none computes while the method is timed
    found = _measure_cost(method, row, prepared, ranks, cost, digest) if ranks.is_main and cost else {}
    return Restored(row, digest, failures, skipped, ranks.gather(found)[0])


def _measure_cost(
    method: Method, row: Row, prepared: Prepared, ranks: Ranks, names: Sequence[str], digest: str
) -> dict[str, float]:
    """The cost of a method; empty, with a line in the log, if it fails on the faces that it is measured on."""
    condition = prepared.conditions[0]
    keys = [key for key in prepared.keys if restored_path(prepared.root, row, condition, key).exists()]
    if not keys:
        return {}
    faces = (prepared.sample(key, condition) for key in itertools.cycle(keys))
    folder, digest = prepared.root / "methods" / row.folder, f"{digest} {prepared.fingerprint.digest}"
    try:
        return measure_cost(method, lambda: next(faces), names, ranks.device, folder, digest)
    except Exception as error:  # a foreign network may raise anything
        logging.getLogger("basicsr").warning(f"{row.name}: the cost is not measured. {format_error(error)}")
        return {}


def _needs_reference(method: Method) -> bool:
    return getattr(method, "needs_reference", False)


def _build(run: Run, folder: Path, ranks: Ranks) -> tuple[Method | None, str]:
    """Build the method, or return why it failed. Rank 0 builds first: it may train and save what the others load."""
    method, failure = None, ""
    for _ in ranks.main_first():
        try:
            method = build_method(run.entry, f"methods:{run.method}", ranks.device, folder)
        except (Exception, SystemExit) as error:  # a foreign network may raise anything
            failure = format_error(error)
    return method, failure


def _claim(folder: Path, digest: str, method: Method, prepared: Prepared) -> None:
    """Delete the images of another method of this name, and those made from other inputs."""
    path, inputs = folder / IDENTITY_FILE, prepared.fingerprint.inputs
    held, restored_of = _read_identity(path)
    if held != digest:
        delete_folder(folder / "restored")
        for old in folder.glob("values.*.jsonl"):
            delete_file(old)
    else:
        for key in (key for key, made_of in restored_of.items() if inputs.get(key) != made_of):
            for condition in prepared.conditions:
                delete_file(restored_path_in(folder, condition, key))
    content = {"digest": digest, "identity": method.identity, "inputs": dict(inputs)}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def _read_identity(path: Path) -> tuple[str, Mapping[str, str]]:
    """The digest of the method of an earlier run, and the hashes of its inputs by key."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["digest"], dict(content["inputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", {}


def _digest(method: Method, prepared: Prepared) -> str:
    """Digest of everything that determines a restored image besides the input."""
    content = [method.identity, prepared.size, prepared.fingerprint.versions]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _restore_share(
    method: Method, row: Row, prepared: Prepared, ranks: Ranks
) -> tuple[dict[SampleId, str], dict[SampleId, str]]:
    """Restore this rank's part. Return why the method failed on images, and why it was not called for others."""
    failures: dict[SampleId, str] = {}
    skipped: dict[SampleId, str] = {}
    shard = ranks.shard(prepared.sample_ids)
    for condition, key in tqdm(shard, row.name, unit="face", disable=not ranks.is_main):
        path = restored_path(prepared.root, row, condition, key)
        if _needs_reference(method) and not reference_path(prepared.root, key).exists():
            skipped[condition, key] = NO_REFERENCE
            continue
        if path.exists():
            continue
        try:
            image = method(prepared.sample(key, condition))
            _check(image, prepared.size)
        except (Exception, SystemExit) as error:  # is recorded; the other images continue
            failures[condition, key] = format_error(error)
            continue
        write_image(path, image)
    return failures, skipped


def _check(image: object, size: int) -> None:
    if not isinstance(image, np.ndarray):
        raise ValueError(f"gave {type(image).__name__} instead of an image")
    if image.shape != (size, size, 3) or image.dtype != np.uint8:
        raise ValueError(f"gave {image.shape} {image.dtype} instead of ({size}, {size}, 3) uint8")


def in_order(values: MetricValues, results: Results) -> MetricValues:
    """Sort values by condition, image and column, independent of the ranks."""
    orders = (
        [*results.conditions, *results.test_sets],
        [WHOLE_SET, *results.keys],
        [column.name for column in results.columns],
    )
    positions = [{name: position for position, name in enumerate(order)} for order in orders]
    return dict(
        sorted(values.items(), key=lambda item: [of[name] for of, name in zip(positions, item[0], strict=True)])
    )


def _cost_notes(
    options: EvaluationOptions, prepared: Prepared, metrics: MetricRunner, found: Sequence[Restored]
) -> list[str]:
    names = [restored.row.name for restored in found if restored.cost]
    condition = prepared.conditions[0] if len(prepared.conditions) > 1 else ""
    return [cost_note(options.cost, names, metrics.ranks.device, condition)] if names else []


def _to_results(
    options: EvaluationOptions, prepared: Prepared, metrics: MetricRunner, found: list[tuple[Restored, MetricValues]]
) -> Results:
    results = Results(
        name=options.name,
        title=options.title or options.name,
        fingerprint=prepared.fingerprint.to_dict(),
        size=prepared.size,
        keys=prepared.keys,
        conditions=prepared.conditions,
        columns=with_unique_labels(
            [dataclasses.replace(column.column, note=metrics.note(column)) for column in options.columns]
            + cost_columns(options.cost)
        ),
        rows=[restored.row for restored, _ in found],
        test_sets=prepared.test_sets,
        notes=prepared.notes + _cost_notes(options, prepared, metrics, [restored for restored, _ in found]),
    )
    for restored, values in found:
        name = restored.row.name
        if not restored.row.failure:
            results.images[name] = {c: {} for c in prepared.conditions}
            for condition, key in prepared.sample_ids:
                missing = {"failure": restored.failures, "skipped": restored.skipped}
                results.images[name][condition][key] = {
                    word: reasons[condition, key] for word, reasons in missing.items() if (condition, key) in reasons
                }
        for (condition, key, column), value in in_order(values, results).items():
            sets = results.sets.setdefault(name, {}).setdefault(condition, {})
            (sets if key == WHOLE_SET else results.images[name][condition][key])[column] = value
        if restored.cost:
            results.sets.setdefault(name, {}).setdefault(prepared.conditions[0], {}).update(restored.cost)
    if prepared.fingerprint.kind == Ntire.kind:
        add_score(results)
    for line in failure_lines(results):
        logging.getLogger("basicsr").warning(line)
    return results
