"""The maker's half of a blind study: which opaque name on the page stands for which method."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from gpen_plugin.errors import DataError
from gpen_plugin.evaluate.results import Failure, write_text

FORMAT = 1


@dataclass(frozen=True)
class StudyImage:
    """One step of the page.

    Attributes:
        id: its opaque name.
        key: of the image in the evaluation.
        methods: opaque name of an image -> method, in an order that says nothing.
    """

    id: str
    key: str
    methods: dict[str, str]


@dataclass(frozen=True)
class StudyKey:
    """What the page keeps from the volunteers.

    Attributes:
        study: digest of all that the page shows; every file of votes repeats it.
        evaluation: name of the evaluation whose images are shown.
        fingerprint: of its protocol.
        condition: of the protocol; empty where there is but one.
        seed: the opaque names are a function of it.
        allow_ties: whether two images may share a rank.
        methods: in the order of the evaluation.
        images: the steps.
        left_out: images that were not shown, since a method gave nothing for them.
    """

    study: str
    evaluation: str
    fingerprint: dict
    condition: str
    seed: int
    allow_ties: bool
    methods: list[str]
    images: list[StudyImage]
    left_out: list[Failure]


def write_key(path: Path, key: StudyKey) -> None:
    """Write the key file, whole or not at all."""
    write_text(path, json.dumps({"format": FORMAT, **dataclasses.asdict(key)}, indent=1, ensure_ascii=False) + "\n")


def read_key(path: Path) -> StudyKey:
    """Read the key file.

    Raises:
        DataError: it is not there, or it is damaged.
    """
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
