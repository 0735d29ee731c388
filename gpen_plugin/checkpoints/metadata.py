"""What a file says of itself: the one list of the keys, their texts, and the digest of the weights.

A safetensors file has a header of texts by name; so have ONNX files and programs of torch.export. In a file of
torch.save's the same texts are the attribute ``_metadata`` of the outer mapping, where PyTorch keeps the versions of
modules: no program takes them for tensors. ``modelspec.*`` are the keys of Stability AI's ModelSpec 1.0.1.

Metadata of a file are not trusted: no value of theirs names a class that is built, and each is checked when it is read.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any

import torch

from gpen_plugin.checkpoints.download import local_path
from gpen_plugin.errors import CheckpointError
from gpen_plugin.version import __version__

PREFIX, MODELSPEC = "gpen.", "modelspec."
MAX_LENGTH = 10_000  # characters of a text that is parsed
MAX_TAPS = 16  # of a FIR filter
HIDDEN = ("lr_mlp", "resample_kernel", "stddev_group", "value_range")
"""Arguments of our networks of which the shapes of the tensors show nothing. A file's metadata set these alone."""


@dataclass(frozen=True)
class Conventions:
    """Conventions of a network that its tensors do not determine."""

    value_range: tuple[float, float] = (-1, 1)  # lowest and highest value of input and output
    task: str = "restore"  # ``restore``, ``colorize``, ``inpaint`` or ``seg2face``
    template: str = "ffhq"  # default face alignment. Ours are trained on images in FFHQ's framing
    alpha: float = 1.0  # default weight of its result, 0 to 1


@dataclass(frozen=True)
class Metadata:
    """What is stated of a network. Each may be missing."""

    version: str | None = None  # of this package, which wrote the file; None: the file has no metadata of ours
    architecture: str | None = None  # class
    arguments: Mapping[str, object] = field(default_factory=dict)  # of its constructor
    # of a network that restores faces: the fields of `Conventions` that the file states
    conventions: Mapping[str, Any] = field(default_factory=dict)
    title: str | None = None  # name of the model or of its training
    license: str | None = None  # of the weights
    data: str | None = None  # that it was trained on
    weights_sha256: str | None = None  # see `digest`; of the averaged weights if there are two
    precision: str | None = None  # of an exported file

    @property
    def hidden(self) -> dict[str, object]:
        """Checked values of `HIDDEN`."""
        return {name: self.arguments[name] for name in HIDDEN if name in self.arguments}

    def texts(self) -> dict[str, str]:
        """The texts of a file, by key."""
        plain = ("architecture", "title", "license", "data", "weights_sha256", "precision")
        ours = {"version": __version__} | {name: getattr(self, name) for name in plain}
        if self.arguments:
            ours["arguments"] = json.dumps(dict(self.arguments))
        for name, value in self.conventions.items():
            ours[name] = f"{value:g}" if name == "alpha" else list(value) if name == "value_range" else value
        size = self.arguments.get("out_size")
        spec = {
            "sai_model_spec": "1.0.1",
            "architecture": self.architecture,
            "implementation": "gpen_plugin",
            "title": self.title or self.architecture,
            "license": self.license,
            "resolution": f"{size}x{size}" if size else None,
        }
        named = {PREFIX + name: value for name, value in ours.items()}
        named |= {MODELSPEC + name: value for name, value in spec.items()}
        return {key: str(value) for key, value in named.items() if value is not None}


def parse(texts: Mapping[str, str], where: str) -> Metadata:
    """The metadata in texts by key; foreign keys are ignored. `where` is the file, for the error.

    Raises CheckpointError: a value of ours is malformed or out of range.
    """
    own = {key.removeprefix(PREFIX): text for key, text in texts.items() if key.startswith(PREFIX)}
    conventions = {key: own[key] for key in ("task", "template") if key in own}
    if "alpha" in own:
        conventions["alpha"] = _alpha(own["alpha"], f"{where}: gpen.alpha")
    if "value_range" in own:
        conventions["value_range"] = _value_range(own["value_range"], f"{where}: gpen.value_range")
    arguments = _arguments(own["arguments"], f"{where}: gpen.arguments") if "arguments" in own else {}
    plain = ("version", "architecture", "title", "license", "data", "weights_sha256", "precision")
    return Metadata(arguments=arguments, conventions=conventions, **{name: own.get(name) for name in plain})


def read(path: str | PathLike) -> Metadata:
    """The metadata of a weight file, without its tensors. A file that cannot be read has none: see `checkpoint.read`.

    Raises CheckpointError: a value of ours is malformed or out of range.
    """
    path = local_path(path)
    texts = _header(path) if str(path).endswith(".safetensors") else _attribute(path)
    return parse({key: text for key, text in texts.items() if isinstance(text, str)}, str(path))


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of tensors by name, in any order: of each the name, dtype, shape and bytes. 64 hex digits."""
    result = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        kind = str(tensor.dtype).removeprefix("torch.")
        result.update(f"{name} {kind} {list(tensor.shape)}\n".encode())
        result.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()


def stated(conventions: Conventions) -> dict[str, object]:
    """All fields, as a file states them."""
    return asdict(conventions)


def with_header(
    serialized: bytes,  # a safetensors file
    texts: Mapping[str, str],
) -> bytes:
    """The file with these texts and ``modelspec.hash_sha256``, of its tensors' bytes."""
    length = int.from_bytes(serialized[:8], "little")
    header, data = json.loads(serialized[8 : 8 + length]), memoryview(serialized)[8 + length :]
    hashed = {f"{MODELSPEC}hash_sha256": f"0x{hashlib.sha256(data).hexdigest()}"}
    text = json.dumps({"__metadata__": {"format": "pt"} | dict(texts) | hashed} | header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, data))


def _header(path: str | PathLike) -> Mapping:
    import safetensors

    try:
        with safetensors.safe_open(path, "pt") as file:
            return file.metadata() or {}
    except Exception:  # what cannot be read is reported where the tensors are read
        return {}


def _attribute(path: str | PathLike) -> Mapping:
    if not str(path).endswith((".pth", ".pt")):
        return {}
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # as above; and files of other code bases, and of PyTorch before 1.6, have no metadata of ours
        return {}
    found = getattr(content, "_metadata", {})
    return found if isinstance(found, Mapping) else {}


def _alpha(text: str, where: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise CheckpointError(where, f"got {text}", "a number from 0 to 1")
    return alpha


def _value_range(text: str, where: str) -> tuple[float, float]:
    found = _json(text)
    if not _is_range(found):
        raise CheckpointError(where, f"got {text[:40]}", "two numbers such as [-1, 1]")
    return tuple(found)


def _arguments(text: str, where: str) -> dict[str, object]:
    found = _json(text)
    if not isinstance(found, dict):
        raise CheckpointError(where, f"got {text[:40]}", "arguments of a network by name, as JSON")
    checks = {
        "lr_mlp": (lambda value: _is_number(value) and value > 0, "a number above 0"),
        "resample_kernel": (_is_taps, "the taps of a filter such as [1, 3, 3, 1]"),
        "stddev_group": (lambda value: type(value) is int and value > 0, "a whole number above 0"),
        "value_range": (_is_range, "two numbers such as [-1, 1]"),
    }
    for name, (fits, expected) in checks.items():
        if name in found and not fits(found[name]):
            raise CheckpointError(f"{where}: {name}", f"got {str(found[name])[:40]}", expected)
    return found


def _json(text: str) -> object:
    try:
        return json.loads(text) if len(text) <= MAX_LENGTH else None
    except (ValueError, RecursionError):
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(map(_is_number, value))


def _is_range(value: object) -> bool:
    return _are_numbers(value) and len(value) == 2 and value[0] < value[1]


def _is_taps(value: object) -> bool:
    return _are_numbers(value) and 2 <= len(value) <= MAX_TAPS and sum(value) > 0
