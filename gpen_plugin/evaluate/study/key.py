"""The key of a blind study: which opaque name on the page stands for which method."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from gpen_plugin.errors import DataError
from gpen_plugin.evaluate.results import Failure, write_text

FORMAT = 1


@dataclass(frozen=True)
class StudyImage:
    """One step of the page."""

    id: str  # its opaque name
    key: str  # of the image in the evaluation
    methods: dict[str, str]  # opaque name of an image -> method, in random order


@dataclass(frozen=True)
class StudyKey:
    """What the page keeps from the volunteers."""

    study: str  # digest of all that the page shows; every file of votes repeats it
    evaluation: str  # name of the evaluation whose images are shown
    fingerprint: dict  # of its protocol
    condition: str  # of the protocol; empty where there is but one
    seed: int  # the opaque names are a function of it
    allow_ties: bool  # whether two images may share a rank
    methods: list[str]  # in the order of the evaluation
    images: list[StudyImage]  # the steps
    left_out: list[Failure]  # images that were not shown, since a method gave nothing for them


def write_key(path: Path, key: StudyKey) -> None:
    """Write the key file atomically."""
    write_text(path, json.dumps({"format": FORMAT, **dataclasses.asdict(key)}, indent=1, ensure_ascii=False) + "\n")


def read_key(path: Path) -> StudyKey:
    """Read the key file; DataError if it is missing or damaged."""
    hint = "Give the file that was written beside the page: -k study_key.json"
    if not path.is_file():
        raise DataError(str(path), "not there", "the key of a study", hint)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        content["images"] = [StudyImage(**image) for image in content["images"]]
        content["left_out"] = [Failure(**failure) for failure in content["left_out"]]
        key = StudyKey(**content)
        if any(sorted(image.methods.values()) != sorted(key.methods) for image in key.images):
            raise ValueError("an image without each method once")
        return key
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(str(path), f"cannot be read ({error})", "the key of a study", hint) from error
