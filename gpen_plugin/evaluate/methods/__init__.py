"""The methods that an evaluation compares, by the ``type`` of their entry in the option file."""

import hashlib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from glob import escape, glob
from pathlib import Path

import numpy as np
import torch

from gpen_plugin.config import schema
from gpen_plugin.data.image_source import FolderSource, resize_square
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.case import Case
from gpen_plugin.evaluate.methods.dfdnet import DFDNetOptions, build_dfdnet
from gpen_plugin.evaluate.methods.inversion import (
    MGANPrior,
    MGANPriorOptions,
    PSPMethod,
    PSPOptions,
    Pulse,
    PulseOptions,
)
from gpen_plugin.evaluate.methods.network_entries import ArchOptions, GPENOptions, build_arch, build_gpen
from gpen_plugin.evaluate.methods.sizes import Interpolation, as_bytes, resized


class Method(typing.Protocol):
    """Restores one face at a time, the same at every run.

    Attributes:
        description: what runs: network, weights and their hash, sizes, iterations.
        identity: what decides its images, as JSON has it: options, and digests of the files that they name.
    """

    description: str
    identity: dict

    def __call__(self, case: Case) -> np.ndarray:
        """The restored face, (case.size, case.size, 3) BGR uint8."""


@dataclass(frozen=True)
class NoOptions:
    """The keys of methods of type ``bilinear`` and ``bicubic``: none."""


class Enlargement:
    """The degraded image, enlarged: what every method has to beat.

    Args:
        how: the interpolation.
    """

    def __init__(self, how: Interpolation):
        self._how = how
        self.description = f"the degraded image, enlarged by {how} interpolation"
        self.identity = {"type": how}

    def __call__(self, case: Case) -> np.ndarray:
        """See `Method`."""
        return as_bytes(resized(case.lq, case.size, self._how))


@dataclass(frozen=True)
class FolderOptions:
    """The keys of a method of type ``folder``: images that another program restored.

    Args:
        path: a folder. ``{condition}`` in it stands for the condition, where the protocol has several.
        suffix: what the program has added to the names, e.g. _00.
    """

    path: str
    suffix: str = ""


class RestoredElsewhere:
    """Images from a folder, by the key of the image.

    Args:
        options: of the entry.
        where: its key path.
    Raises:
        DataError: there is no such folder, or no image in it.
    """

    def __init__(self, options: FolderOptions, where: str):
        self._options = options
        self._sources = {folder: FolderSource(folder, f"{where}:path") for folder in self._folders(f"{where}:path")}
        count = sum(len(source.keys) for source in self._sources.values())
        digest = self._digest()
        self.description = (
            f"{count} images of another program (sha256 {digest[:12]}); resized where they are of another size"
        )
        self.identity = {"type": "folder", "suffix": options.suffix, "images": digest}

    def __call__(self, case: Case) -> np.ndarray:
        """See `Method`. DataError where there is no image for the case."""
        by_condition = "{condition}" in self._options.path
        if case.condition and not by_condition:
            got = f"{self._options.path} is one folder, and the protocol has several conditions ({case.condition}, ...)"
            raise OptionError("path", got, "a folder per condition", "Write {condition} in the path.")
        folder, name = self._options.path.replace("{condition}", case.condition), case.key + self._options.suffix
        source = self._sources.get(str(Path(folder)))
        if source is None or name not in source.keys:
            raise DataError(f"{folder}/{name}", "is not there", "a restored image of this name")
        return resize_square(source.read(name), case.size)

    def _folders(self, where: str) -> list[str]:
        if "{condition}" not in self._options.path:
            return [str(Path(self._options.path))]
        pattern = "*".join(map(escape, self._options.path.split("{condition}")))
        found = sorted(str(Path(folder)) for folder in glob(pattern) if Path(folder).is_dir())
        if not found:
            raise DataError(
                where, f"no folder is like {self._options.path}", "a folder per condition", "Check the path."
            )
        return found

    def _digest(self) -> str:
        """Of the files' names below the folder and of their bytes."""
        digest = hashlib.sha256()
        for folder, source in self._sources.items():
            for key in source.keys:
                content = hashlib.sha256(Path(source.name(key)).read_bytes()).hexdigest()
                condition = folder if len(self._sources) > 1 else ""
                digest.update(f"{Path(condition).name}/{key}\0{content}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def build_method(entry: Mapping, where: str, device: torch.device, folder: Path) -> Method:
    """Build a method.

    Args:
        entry: ``type`` and the keys of that type.
        where: key path of the entry, e.g. ``methods:GPEN``.
        device: where networks compute.
        folder: the method's own, for what it has to keep.
    Raises:
        GPENError: a key is wrong, or a file that it names is missing or of another network.
    """
    options, build = read_entry(entry, where)
    return build(options, where, device, folder)


def read_entry(entry: Mapping, where: str) -> "tuple[typing.Any, Builder]":
    """Check an entry without opening anything.

    Returns:
        Its options, an instance of the class that stands for its type, and what builds the method from them.
    Raises:
        OptionError: names the key path of each problem.
    """
    kind = entry.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        raise schema.unknown_name(kind, list(TYPES), f"{where}:type")
    options_class, build = TYPES[kind]
    return schema.build(options_class, {key: value for key, value in entry.items() if key != "type"}, where), build


Builder = Callable[[typing.Any, str, torch.device, Path], Method]
TYPES: dict[str, tuple[type, Builder]] = {
    "bilinear": (NoOptions, lambda options, where, device, folder: Enlargement("bilinear")),
    "bicubic": (NoOptions, lambda options, where, device, folder: Enlargement("bicubic")),
    "gpen": (GPENOptions, lambda options, where, device, folder: build_gpen(options, where, device)),
    "arch": (ArchOptions, lambda options, where, device, folder: build_arch(options, where, device)),
    "dfdnet": (DFDNetOptions, lambda options, where, device, folder: build_dfdnet(options, where, device)),
    "folder": (FolderOptions, lambda options, where, device, folder: RestoredElsewhere(options, where)),
    "pulse": (PulseOptions, lambda options, where, device, folder: Pulse(options, where, device)),
    "mganprior": (MGANPriorOptions, lambda options, where, device, folder: MGANPrior(options, where, device)),
    "psp": (PSPOptions, PSPMethod),
}
