"""Let a method restore every case. One that fails is entered as such, and the others go on."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gpen_plugin.evaluate.methods import Method, build_method
from gpen_plugin.evaluate.preparation import Prepared
from gpen_plugin.evaluate.ranks import Ranks, merged
from gpen_plugin.evaluate.results import Row, delete_file, delete_folder, picture_below, picture_of, write_text
from gpen_plugin.evaluate.runs import Run
from gpen_plugin.evaluate.telling import told
from gpen_plugin.folder_name import folder_of
from gpen_plugin.picture_file import write_picture

IDENTITY_FILE = "method.json"
Place = tuple[str, str]  # condition, key


@dataclass
class Restored:
    """What a method has done.

    Attributes:
        row: for the tables.
        digest: of all that decides its pictures besides the inputs.
        failures: place -> why there is no picture.
    """

    row: Row
    digest: str = ""
    failures: dict[Place, str] = field(default_factory=dict)

    def places(self, prepared: Prepared, condition: str) -> list[str]:
        """Keys of the images that it gave a picture for."""
        if self.row.failure:
            return []
        return [key for key in prepared.keys if (condition, key) not in self.failures]


def restore_all(run: Run, prepared: Prepared, ranks: Ranks) -> Restored:
    """Restore what is not restored yet, each rank its share; every rank has to call this.

    Pictures that the same method made of the same input in an earlier run are kept.
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
            failure = told(error)
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
                delete_file(picture_below(folder, condition, key))
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
    """Of what decides a picture besides the input."""
    content = [method.identity, prepared.size, prepared.fingerprint.versions]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _restore_share(method: Method, row: Row, prepared: Prepared, ranks: Ranks) -> dict[Place, str]:
    failures: dict[Place, str] = {}
    share = ranks.share(prepared.places)
    for condition, key in tqdm(share, row.name, unit="face", disable=not ranks.leads):
        path = picture_of(prepared.root, row, condition, key)
        if path.exists():
            continue
        try:
            picture = method(prepared.case(key, condition))
            _check(picture, prepared.size)
        except (Exception, SystemExit) as error:  # whatever it is, it is entered, and the other images go on
            failures[condition, key] = told(error)
            continue
        write_picture(path, picture)
    return failures


def _check(picture: object, size: int) -> None:
    if not isinstance(picture, np.ndarray):
        raise ValueError(f"gave {type(picture).__name__} instead of a picture")
    if picture.shape != (size, size, 3) or picture.dtype != np.uint8:
        raise ValueError(f"gave {picture.shape} {picture.dtype} instead of ({size}, {size}, 3) uint8")
