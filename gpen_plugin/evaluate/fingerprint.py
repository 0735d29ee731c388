"""The fingerprint of a protocol: tables may stand side by side only if theirs are equal."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

import cv2
import numpy as np

from gpen_plugin.baselines.method import Sample
from gpen_plugin.errors import DataError
from gpen_plugin.evaluate.protocols import Protocol, join_keys
from gpen_plugin.version import __version__

PACKAGES = ("basicsr", "torch", "numpy", "scipy", "lpips")  # they affect images or values of metrics
IMAGE_DIGITS, DIGEST_DIGITS, PART_DIGITS = 12, 12, 6
MAX_KEYS = 5  # keys in a sentence


@dataclass(frozen=True)
class Fingerprint:
    """A protocol and its images, as a digest that another lab can compare.

    It depends on no path, file format or machine. The digest is computed from the other values, so it cannot disagree
    with them.
    """

    kind: str  # of the protocol
    size: int  # side of the results, in pixels
    options: Mapping  # of the protocol
    # key of an image -> hash of the pixels of its degraded images, its ground truth and its reference
    inputs: Mapping[str, str]
    versions: Mapping[str, str]  # package -> version

    @property
    def digest(self) -> str:
        """The digest of all, 12 hex digits."""
        return _digest([self.kind, self.size, self._parts()])[:DIGEST_DIGITS]

    @property
    def parts(self) -> dict[str, str]:
        """The digests of ``options``, ``images`` (their names), ``inputs`` (their pixels) and ``versions``."""
        return {name: _digest(part)[:PART_DIGITS] for name, part in self._parts().items()}

    def to_dict(self) -> dict:
        """Plain values for JSON: the input of `from_dict` and `differences`, plus the digests and ``line`` to read."""
        return {
            "digest": self.digest,
            "line": str(self),
            "kind": self.kind,
            "size": self.size,
            **self._parts(),
            "versions": dict(self.versions),
        }

    @classmethod
    def from_dict(cls, given: Mapping) -> "Fingerprint":
        """Invert `to_dict`; DataError if it is no fingerprint, or was changed by hand."""
        try:
            inputs = dict(zip(given["images"], given["inputs"], strict=True))
            found = cls(given["kind"], given["size"], given["options"], inputs, given["versions"])
            same = found.digest == given["digest"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError("fingerprint", f"cannot be read ({error!r})", "that of an evaluation") from error
        if not same:
            got = f"is {given['digest']}, and its parts give {found.digest}"
            raise DataError(
                "fingerprint", got, "equal digests", "The file was changed by hand. Run the evaluation again."
            )
        return found

    def __str__(self) -> str:
        parts = " ".join(f"{name} {digest}" for name, digest in self.parts.items())
        return f"{self.kind} {self.digest} · {len(self.inputs)} images · {self.size} px · {parts}"

    def _parts(self) -> dict[str, object]:
        return {
            "options": _plain(self.options),
            "images": list(self.inputs),
            "inputs": list(self.inputs.values()),
            "versions": dict(self.versions),
        }


def compute_fingerprint(protocol: Protocol, samples: Iterable[Sample]) -> Fingerprint:
    """Hash the samples of a protocol, in any order; images without a sample are not in the fingerprint."""
    hashes = defaultdict(list)
    for sample in samples:
        hashes[sample.key].append([sample.condition, _hash_pixels(sample)])
    inputs = {key: _digest(sorted(hashes[key]))[:IMAGE_DIGITS] for key in sorted(hashes)}
    return Fingerprint(protocol.kind, protocol.size, _plain(protocol.options()), inputs, versions())


def versions() -> dict[str, str]:
    """Versions of this package and of those that affect an image or a metric, without build tags like ``+cpu``."""
    found = {"gpen_plugin": __version__, "opencv": cv2.__version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


def differences(one: Mapping, other: Mapping) -> list[str]:
    """How two fingerprints (see `Fingerprint.to_dict`) differ: one phrase each, e.g. ``torch 2.13.0 and 2.14.1``."""
    return [
        *_different_protocols(one, other),
        *_different_images(one, other),
        *_different_versions(one["versions"], other["versions"]),
    ]


def _different_protocols(one: Mapping, other: Mapping) -> Iterator[str]:
    if one["kind"] != other["kind"]:
        yield f"protocols {one['kind']} and {other['kind']}"
    mine, theirs = (dict(_flat(side["options"])) for side in (one, other))
    for path in sorted(mine.keys() & theirs.keys()):
        if mine[path] != theirs[path]:
            yield f"other {path} ({_shown(mine[path])} and {_shown(theirs[path])})"
    if one["kind"] == other["kind"]:
        yield from (f"{path} in one of them only" for path in sorted(mine.keys() ^ theirs.keys()))


def _different_images(one: Mapping, other: Mapping) -> Iterator[str]:
    mine, theirs = (dict(zip(side["images"], side["inputs"], strict=True)) for side in (one, other))
    for side, keys in (("first", mine.keys() - theirs.keys()), ("second", theirs.keys() - mine.keys())):
        if keys:
            yield f"{_count(keys)} only in the {side}: {join_keys(sorted(keys), MAX_KEYS)}"
    changed = sorted(key for key in mine.keys() & theirs.keys() if mine[key] != theirs[key])
    if changed:
        same = one["kind"] == other["kind"] and one["options"] == other["options"]
        although = " although the options agree" if same else ""
        yield f"inputs of {_count(changed)} differ{although}: {join_keys(changed, MAX_KEYS)}"


def _different_versions(one: Mapping, other: Mapping) -> Iterator[str]:
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            yield f"{name} {one.get(name, 'not there')} and {other.get(name, 'not there')}"


def _count(keys: Iterable[str]) -> str:
    number = len(list(keys))
    return f"{number} image" + "s" * (number != 1)


def _flat(options: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Options by key path."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}:")
        else:
            yield f"{prefix}{key}", value


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _hash_pixels(sample: Sample) -> str:
    """A hash of the images of a sample: shapes, dtypes and values."""
    hasher = hashlib.sha256()
    for image in (sample.lq, sample.gt, *([] if sample.ref is None else [sample.ref])):
        if image is None:
            hasher.update(b"none")
        else:
            hasher.update(f"{image.shape} {image.dtype.str} ".encode())
            hasher.update(np.ascontiguousarray(image))
    return hasher.hexdigest()


def _digest(content: object) -> str:
    text = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _plain(content: object) -> object:
    """The value after a round trip through JSON, with whole floats as integers: 10 and 10.0 are one option."""
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return int(content) if isinstance(content, float) and content.is_integer() else content
