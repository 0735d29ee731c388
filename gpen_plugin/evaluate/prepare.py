"""Prepare the inputs of a protocol once, and restore every case by a method."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from gpen_plugin.data.image_source import decode_image
from gpen_plugin.errors import DataError
from gpen_plugin.evaluate.case import Case
from gpen_plugin.evaluate.distributed import Ranks, merged
from gpen_plugin.evaluate.methods import Method, build_method
from gpen_plugin.evaluate.protocols import Protocol
from gpen_plugin.evaluate.protocols.fingerprint import FEW, Fingerprint, take_fingerprint
from gpen_plugin.evaluate.protocols.image_list import listed
from gpen_plugin.evaluate.repeats import Run
from gpen_plugin.evaluate.results import (
    Row,
    delete_file,
    delete_folder,
    image_below,
    image_of,
    input_of,
    truth_of,
    write_text,
)
from gpen_plugin.evaluate.telling import format_error
from gpen_plugin.folder_name import folder_of
from gpen_plugin.images.files import write_image

PROTOCOL_FILE = "protocol.json"
FOLDERS = ("inputs", "truth", "methods", "sheets")


@dataclass(frozen=True)
class Prepared:
    """The inputs of an evaluation on disk.

    Attributes:
        root: folder of the evaluation.
        size: side of the results.
        keys: images that could be read.
        conditions: of the protocol.
        has_truth: whether there is ground truth.
        fingerprint: of these very images.
        notes: on the protocol, and on images that could not be read.
    """

    root: Path
    size: int
    keys: list[str]
    conditions: list[str]
    has_truth: bool
    fingerprint: Fingerprint
    notes: list[str]

    def case(self, key: str, condition: str) -> Case:
        """One case, read back: all methods, runs and ranks are given the same bytes."""
        return read_case(self.root, key, condition, self.size, self.has_truth)

    @property
    def places(self) -> list[tuple[str, str]]:
        """(condition, key) of every case."""
        return [(condition, key) for condition in self.conditions for key in self.keys]


def prepare(protocol: Protocol, root: Path, ranks: Ranks) -> Prepared:
    """Write the inputs that are not there yet or were made of other images, and take the fingerprint of all.

    Every rank has to call this.

    Raises:
        DataError: `root` holds an evaluation under another protocol or cannot be written, or no image can be read.
    """
    _claim_inputs(root, protocol, ranks)
    unreadable = merged(ranks.gather(_write(protocol, root, ranks)))
    keys = [key for key in protocol.keys if key not in unreadable]
    if not keys:
        raise DataError("protocol", f"none of {len(protocol.keys)} images can be read", "at least one")
    notes = [*protocol.notes, *(f"left out: {why}" for _, why in sorted(unreadable.items()))]
    readable = _Readable(protocol, keys)
    fingerprint = take_fingerprint(readable, _cases(root, readable)) if ranks.leads else None
    fingerprint = ranks.gather(fingerprint)[0]
    return Prepared(root, protocol.size, keys, protocol.conditions, protocol.has_truth, fingerprint, notes)


def read_case(root: Path, key: str, condition: str, size: int, has_truth: bool) -> Case:
    """Read one case of an evaluation from its folder."""
    return next(_read_cases(root, key, [condition], size, has_truth))


class _Readable:
    """A protocol without the images that could not be read."""

    def __init__(self, protocol: Protocol, keys: Sequence[str]):
        self._protocol, self.keys = protocol, list(keys)

    def __getattr__(self, name: str) -> object:
        return getattr(self._protocol, name)


def _claim_inputs(root: Path, protocol: Protocol, ranks: Ranks) -> None:
    """Refuse a folder whose inputs another protocol made, and one that holds something else under our names.

    More images of the same protocol are welcome: each is degraded, restored and measured apart from the others.
    """
    wanted = json.loads(json.dumps({"kind": protocol.kind, "options": protocol.options(), "keys": protocol.keys}))
    path = root / PROTOCOL_FILE
    if path.is_file():
        _check_held(root, _json(path), wanted)
    else:
        _check_free(root)
    if ranks.leads:
        write_text(path, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
    ranks.wait()


def _check_held(root: Path, held: Mapping, wanted: Mapping) -> None:
    differing = [name for name in ("kind", "options") if held.get(name) != wanted[name]]
    lost = sorted(set(held.get("keys", ())) - set(wanted["keys"]))
    if differing:
        got = f"was made under another protocol (its {' and '.join(differing)} differ)"
    elif lost:
        number = f"{len(lost)} image" + "s" * (len(lost) != 1)
        got = f"holds {number} that the protocol does not have now: {listed(lost, FEW)}"
    else:
        return
    hint = "Name another output, or give --restart, which deletes what is there."
    raise DataError(str(root), got, "an empty folder, or one of this protocol", hint)


def _check_free(root: Path) -> None:
    there = [name for name in FOLDERS if (root / name).exists()]
    if there:
        got = f"holds {', '.join(there)}, and no evaluation wrote them"
        hint = "Name another output. What --merge wrote is deleted by --restart."
        raise DataError(str(root), got, "an empty folder, or an evaluation", hint)


def _write(protocol: Protocol, root: Path, ranks: Ranks) -> dict[str, str]:
    """Write this rank's share of the inputs; which images cannot be read, and why."""
    unreadable = {}
    for key in tqdm(ranks.share(protocol.keys), "inputs", unit="image", disable=not ranks.leads):
        try:
            cases = [protocol.case(key, condition) for condition in _to_make(protocol, root, key)]
        except DataError as error:
            logging.getLogger("basicsr").warning(f"left out: {error}")
            unreadable[key] = format_error(
                DataError(key, error.got, error.expected, error.hint) if error.got else error
            )
            continue
        for case in cases:
            write_image(input_of(root, case.condition, key), case.lq)
        if cases and protocol.has_truth:  # last, as it tells what the inputs were made of
            write_image(truth_of(root, key), cases[0].gt)
    return unreadable


def _to_make(protocol: Protocol, root: Path, key: str) -> list[str]:
    """Conditions whose inputs are not there; all, if those that are there were made of another image."""
    missing = [condition for condition in protocol.conditions if not input_of(root, condition, key).exists()]
    if missing == protocol.conditions:
        return missing
    truth, degraded = protocol.originals(key)
    there = [
        (input_of(root, condition, key), degraded) for condition in protocol.conditions if condition not in missing
    ]
    there.append((truth_of(root, key), truth))
    as_found = all(image is None or holds_image(path, image) for path, image in there)
    return missing if as_found else protocol.conditions


def holds_image(path: Path, image: np.ndarray) -> bool:
    """Whether a file is there and holds this very image, pixel for pixel."""
    try:
        return np.array_equal(decode_image(path.read_bytes(), str(path)), image)
    except (OSError, DataError):
        return False


def _cases(root: Path, protocol: Protocol) -> Iterator[Case]:
    total = len(protocol.keys) * len(protocol.conditions)
    with tqdm(total=total, desc="fingerprint", unit="image") as progress:
        for key in protocol.keys:
            for case in _read_cases(root, key, protocol.conditions, protocol.size, protocol.has_truth):
                yield case
                progress.update()


def _read_cases(root: Path, key: str, conditions: Sequence[str], size: int, has_truth: bool) -> Iterator[Case]:
    truth = _read(truth_of(root, key)) if has_truth else None
    for condition in conditions:
        yield Case(key, condition, _read(input_of(root, condition, key)), truth, size)


def _read(path: Path):
    try:
        return decode_image(path.read_bytes(), str(path))
    except OSError as error:
        hint = "Give --restart to make the inputs anew."
        raise DataError(str(path), f"cannot be read ({error.strerror})", "an input of the evaluation", hint) from error


def _json(path: Path) -> Mapping:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"holds a {type(content).__name__}")
        return content
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"is damaged ({error})", "JSON", "Give --restart to begin anew.") from error


def enlarged(case: Case):
    """The degraded image at the size of the result, bilinearly: (size, size, 3) BGR uint8."""
    return cv2.resize(case.lq, (case.size, case.size), interpolation=cv2.INTER_LINEAR)


IDENTITY_FILE = "method.json"
Place = tuple[str, str]  # condition, key


@dataclass
class Restored:
    """What a method has done.

    Attributes:
        row: for the tables.
        digest: of all that decides its images besides the inputs.
        failures: place -> why there is no image.
    """

    row: Row
    digest: str = ""
    failures: dict[Place, str] = field(default_factory=dict)

    def places(self, prepared: Prepared, condition: str) -> list[str]:
        """Keys of the images that it gave an image for."""
        if self.row.failure:
            return []
        return [key for key in prepared.keys if (condition, key) not in self.failures]


def restore_all(run: Run, prepared: Prepared, ranks: Ranks) -> Restored:
    """Restore what is not restored yet, each rank its share; every rank has to call this.

    Images that the same method made of the same input in an earlier run are kept.
    """
    folder = prepared.root / "methods" / folder_of(run.name)
    method, failure = _build(run, folder, ranks)
    failure = next(filter(None, ranks.gather(failure)), "")
    row = Row(run.name, folder_of(run.name), method.description if method else "", failure, run.run_of)
    if failure:
        logging.getLogger("basicsr").warning(f"{run.name}: {failure}")
        return Restored(row)
    digest = _digest(method, prepared)
    if ranks.leads:
        _claim(folder, digest, method, prepared)
    ranks.wait()
    failures = _restore_share(method, row, prepared, ranks)
    return Restored(row, digest, merged(ranks.gather(failures)))


def _build(run: Run, folder: Path, ranks: Ranks) -> tuple[Method | None, str]:
    """The method, or why there is none. Rank 0 builds first: it may train, and keep what the others then load."""
    method, failure = None, ""
    for _ in ranks.leader_first():
        try:
            method = build_method(run.entry, f"methods:{run.method}", ranks.device, folder)
        except (Exception, SystemExit) as error:  # a network that is not ours may do anything
            failure = format_error(error)
    return method, failure


def _claim(folder: Path, digest: str, method: Method, prepared: Prepared) -> None:
    """Clear away what another method of this name has left, and what this one made of other inputs."""
    path, inputs = folder / IDENTITY_FILE, prepared.fingerprint.inputs
    held, restored_of = _held(path)
    if held != digest:
        delete_folder(folder / "restored")
        for old in folder.glob("values.*.jsonl"):
            delete_file(old)
    else:
        for key in (key for key, made_of in restored_of.items() if inputs.get(key) != made_of):
            for condition in prepared.conditions:
                delete_file(image_below(folder, condition, key))
    content = {"digest": digest, "identity": method.identity, "inputs": dict(inputs)}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def _held(path: Path) -> tuple[str, Mapping[str, str]]:
    """Which method was here before, and the hashes of the inputs that it was given, by key."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["digest"], dict(content["inputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", {}


def _digest(method: Method, prepared: Prepared) -> str:
    """Of what decides an image besides the input."""
    content = [method.identity, prepared.size, prepared.fingerprint.versions]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _restore_share(method: Method, row: Row, prepared: Prepared, ranks: Ranks) -> dict[Place, str]:
    failures: dict[Place, str] = {}
    share = ranks.share(prepared.places)
    for condition, key in tqdm(share, row.name, unit="face", disable=not ranks.leads):
        path = image_of(prepared.root, row, condition, key)
        if path.exists():
            continue
        try:
            image = method(prepared.case(key, condition))
            _check(image, prepared.size)
        except (Exception, SystemExit) as error:  # whatever it is, it is entered, and the other images go on
            failures[condition, key] = format_error(error)
            continue
        write_image(path, image)
    return failures


def _check(image: object, size: int) -> None:
    if not isinstance(image, np.ndarray):
        raise ValueError(f"gave {type(image).__name__} instead of an image")
    if image.shape != (size, size, 3) or image.dtype != np.uint8:
        raise ValueError(f"gave {image.shape} {image.dtype} instead of ({size}, {size}, 3) uint8")
