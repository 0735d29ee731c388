"""The inputs of an evaluation, written once: what every method is given and every metric looks at."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
from tqdm import tqdm

from gpen_plugin.data.image_source import decode_picture
from gpen_plugin.errors import DataError
from gpen_plugin.evaluate.case import Case
from gpen_plugin.evaluate.protocols import Protocol
from gpen_plugin.evaluate.protocols.fingerprint import Fingerprint, take_fingerprint
from gpen_plugin.evaluate.ranks import Ranks, merged
from gpen_plugin.evaluate.results import input_of, truth_of, write_text
from gpen_plugin.picture_file import write_picture

PROTOCOL_FILE = "protocol.json"


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
    """Write the inputs that are not there yet, and take the fingerprint of all.

    Every rank has to call this.

    Raises:
        DataError: `root` holds an evaluation under another protocol, or no image can be read.
    """
    _claim(root, protocol, ranks)
    unreadable = merged(ranks.gather(_write(protocol, root, ranks)))
    keys = [key for key in protocol.keys if key not in unreadable]
    if not keys:
        raise DataError("protocol", f"none of {len(protocol.keys)} images can be read", "at least one")
    notes = [*protocol.notes, *(f"left out: {reason}" for _, reason in sorted(unreadable.items()))]
    readable = _Readable(protocol, keys)
    fingerprint = take_fingerprint(readable, _cases(root, readable)) if ranks.leads else None
    fingerprint = ranks.gather(fingerprint)[0]
    return Prepared(root, protocol.size, keys, protocol.conditions, protocol.has_truth, fingerprint, notes)


def read_case(root: Path, key: str, condition: str, size: int, has_truth: bool) -> Case:
    """Read one case of an evaluation from its folder."""
    truth = _read(truth_of(root, key)) if has_truth else None
    return Case(key, condition, _read(input_of(root, condition, key)), truth, size)


class _Readable:
    """A protocol without the images that could not be read."""

    def __init__(self, protocol: Protocol, keys: Sequence[str]):
        self._protocol, self.keys = protocol, list(keys)

    def __getattr__(self, name: str) -> object:
        return getattr(self._protocol, name)


def _claim(root: Path, protocol: Protocol, ranks: Ranks) -> None:
    """Refuse a folder whose inputs another protocol made."""
    wanted = json.loads(json.dumps({"kind": protocol.kind, "options": protocol.options(), "keys": protocol.keys}))
    path = root / PROTOCOL_FILE
    if path.is_file():
        held = _json(path)
        if held != wanted:
            differing = [name for name in wanted if held.get(name) != wanted[name]]
            came = f"was made under another protocol (its {' and '.join(differing)} differ)"
            way_out = "Name another output, or give --restart, which deletes what is there."
            raise DataError(str(root), came, "an empty folder, or one of this protocol", way_out)
    elif ranks.leads:
        write_text(path, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
    ranks.wait()


def _write(protocol: Protocol, root: Path, ranks: Ranks) -> dict[str, str]:
    """Write this rank's share of the inputs; which images cannot be read, and why."""
    unreadable = {}
    for key in tqdm(ranks.share(protocol.keys), "inputs", unit="image", disable=not ranks.leads):
        try:
            for condition in protocol.conditions:
                target = input_of(root, condition, key)
                truth_there = not protocol.has_truth or truth_of(root, key).exists()
                if truth_there and target.exists():
                    continue
                case = protocol.case(key, condition)
                if case.gt is not None:
                    write_picture(truth_of(root, key), case.gt)
                write_picture(target, case.lq)
        except DataError as error:
            unreadable[key] = str(error)
    return unreadable


def _cases(root: Path, protocol: Protocol) -> Iterator[Case]:
    total = len(protocol.keys) * len(protocol.conditions)
    with tqdm(total=total, desc="fingerprint", unit="image") as progress:
        for key in protocol.keys:
            for condition in protocol.conditions:
                yield read_case(root, key, condition, protocol.size, protocol.has_truth)
                progress.update()


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
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(str(path), f"is damaged ({error})", "JSON", "Give --restart to begin anew.") from error


def enlarged(case: Case):
    """The degraded picture at the size of the result, bilinearly: (size, size, 3) BGR uint8."""
    return cv2.resize(case.lq, (case.size, case.size), interpolation=cv2.INTER_LINEAR)
