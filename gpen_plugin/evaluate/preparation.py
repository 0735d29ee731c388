"""The inputs of an evaluation, written once: what every method is given and every metric looks at."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from gpen_plugin.data.image_source import decode_picture
from gpen_plugin.errors import DataError
from gpen_plugin.evaluate.case import Case
from gpen_plugin.evaluate.protocols import Protocol
from gpen_plugin.evaluate.protocols.fingerprint import FEW, Fingerprint, take_fingerprint
from gpen_plugin.evaluate.protocols.image_list import listed
from gpen_plugin.evaluate.ranks import Ranks, merged
from gpen_plugin.evaluate.results import input_of, truth_of, write_text
from gpen_plugin.evaluate.telling import told
from gpen_plugin.picture_file import write_picture

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
        fingerprint: of these very pictures.
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
    """Write the inputs that are not there yet or were made of other pictures, and take the fingerprint of all.

    Every rank has to call this.

    Raises:
        DataError: `root` holds an evaluation under another protocol or cannot be written, or no image can be read.
    """
    _claim(root, protocol, ranks)
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


def _claim(root: Path, protocol: Protocol, ranks: Ranks) -> None:
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
        came = f"was made under another protocol (its {' and '.join(differing)} differ)"
    elif lost:
        number = f"{len(lost)} image" + "s" * (len(lost) != 1)
        came = f"holds {number} that the protocol does not have now: {listed(lost, FEW)}"
    else:
        return
    way_out = "Name another output, or give --restart, which deletes what is there."
    raise DataError(str(root), came, "an empty folder, or one of this protocol", way_out)


def _check_free(root: Path) -> None:
    there = [name for name in FOLDERS if (root / name).exists()]
    if there:
        came = f"holds {', '.join(there)}, and no evaluation wrote them"
        way_out = "Name another output. What --merge wrote is deleted by --restart."
        raise DataError(str(root), came, "an empty folder, or an evaluation", way_out)


def _write(protocol: Protocol, root: Path, ranks: Ranks) -> dict[str, str]:
    """Write this rank's share of the inputs; which images cannot be read, and why."""
    unreadable = {}
    for key in tqdm(ranks.share(protocol.keys), "inputs", unit="image", disable=not ranks.leads):
        try:
            cases = [protocol.case(key, condition) for condition in _to_make(protocol, root, key)]
        except DataError as error:
            logging.getLogger("basicsr").warning(f"left out: {error}")
            unreadable[key] = told(DataError(key, error.came, error.expected, error.way_out) if error.came else error)
            continue
        for case in cases:
            write_picture(input_of(root, case.condition, key), case.lq)
        if cases and protocol.has_truth:  # last, as it tells what the inputs were made of
            write_picture(truth_of(root, key), cases[0].gt)
    return unreadable


def _to_make(protocol: Protocol, root: Path, key: str) -> list[str]:
    """Conditions whose inputs are not there; all, if those that are there were made of another picture."""
    missing = [condition for condition in protocol.conditions if not input_of(root, condition, key).exists()]
    if missing == protocol.conditions:
        return missing
    truth, degraded = protocol.originals(key)
    there = [
        (input_of(root, condition, key), degraded) for condition in protocol.conditions if condition not in missing
    ]
    there.append((truth_of(root, key), truth))
    as_found = all(picture is None or holds_picture(path, picture) for path, picture in there)
    return missing if as_found else protocol.conditions


def holds_picture(path: Path, picture: np.ndarray) -> bool:
    """Whether a file is there and holds this very picture, pixel for pixel."""
    try:
        return np.array_equal(decode_picture(path.read_bytes(), str(path)), picture)
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
        return decode_picture(path.read_bytes(), str(path))
    except OSError as error:
        way_out = "Give --restart to make the inputs anew."
        raise DataError(
            str(path), f"cannot be read ({error.strerror})", "an input of the evaluation", way_out
        ) from error


def _json(path: Path) -> Mapping:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"holds a {type(content).__name__}")
        return content
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"is damaged ({error})", "JSON", "Give --restart to begin anew.") from error


def enlarged(case: Case):
    """The degraded picture at the size of the result, bilinearly: (size, size, 3) BGR uint8."""
    return cv2.resize(case.lq, (case.size, case.size), interpolation=cv2.INTER_LINEAR)
