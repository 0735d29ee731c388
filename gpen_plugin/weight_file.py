"""What a weight file holds, entry by entry."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import indent

import torch

from gpen_plugin import checkpoint
from gpen_plugin.archs import GPEN, GPENDiscriminator, GPENPrior
from gpen_plugin.archs.authors_keys import recognise, to_ours
from gpen_plugin.archs.layouts import USUAL_TAPS, same_taps, taps_of
from gpen_plugin.archs.network_spec import NetworkSpec
from gpen_plugin.errors import CheckpointError
from gpen_plugin.wrapper_prefixes import without_wrapper_prefixes

_CLASSES = {"GPEN": GPEN, "GPENPrior": GPENPrior, "GPENDiscriminator": GPENDiscriminator}


@dataclass(frozen=True, eq=False)
class Network:
    """One whole network of a file.

    Attributes:
        place: file and entry, for errors and reports.
        entry: its name in the file; ``None`` in a flat one.
        spec: what it is.
        tensors: its weights in our layout.
        taps: of its FIR filters, the smallest 1; ``None`` where the file does not store them.
    """

    place: str
    entry: str | None
    spec: NetworkSpec
    tensors: checkpoint.StateDict
    taps: tuple[float, ...] | None

    @property
    def is_discriminator(self) -> bool:
        """Whether it judges pictures; the others make them."""
        return self.spec.kind == "GPENDiscriminator"

    @property
    def not_finite(self) -> list[str]:
        """Names of the tensors with infinite values or NaN."""
        return [name for name, tensor in self.tensors.items() if not tensor.isfinite().all()]

    def option_lines(self) -> str:
        """The lines of an option file that build this network."""
        arguments = {"type": self.spec.kind} | self.spec.arguments()
        if self.taps and not same_taps(self.taps, USUAL_TAPS):
            arguments["resample_kernel"] = list(self.taps)
        lines = ["network_d:" if self.is_discriminator else "network_g:"]
        return "\n".join(lines + [f"  {name}: {value}" for name, value in arguments.items()])


def build(spec: NetworkSpec) -> GPEN | GPENPrior | GPENDiscriminator:
    """The network that a spec tells of, with fresh weights."""
    return _CLASSES[spec.kind](**spec.arguments())


def entries(path: str | os.PathLike) -> dict[str | None, object]:
    """All that a file holds: its entries by name, or, of a flat file, all its tensors as the entry ``None``.

    Raises:
        CheckpointError: the file cannot be read, or is not safe to read.
    """
    content = checkpoint.read_whole(path)
    nested = any(isinstance(value, Mapping) for value in content.values())
    return dict(content) if nested else {None: content}


def is_network(value: object) -> bool:
    """Whether an entry has the names of one of our networks, whole or not."""
    tensors = isinstance(value, Mapping) and value and all(isinstance(item, torch.Tensor) for item in value.values())
    return bool(tensors) and recognise(without_wrapper_prefixes(value)) is not None


def network_of(path: str | os.PathLike, entry: str | None, value: Mapping[str, torch.Tensor]) -> Network:
    """Take an entry as a network, all of whose tensors must be there.

    Args:
        path: of the file, for errors.
        entry: its name.
        value: its tensors, in any layout.
    Raises:
        CheckpointError: it is of none of our networks, or has tensors too few, too many or misshapen.
    """
    place = str(path) if entry is None else f"{path} [{entry}]"
    plain = without_wrapper_prefixes(value)
    spec, tensors = checkpoint.describe(plain, place), to_ours(plain)
    with torch.device("meta"):
        own = build(spec).state_dict()
    problems = checkpoint.differences(tensors, own)
    if problems:
        came = f"holds {spec}, with other tensors than its own ({checkpoint.shown(problems)})"
        raise CheckpointError(place, came, "all tensors of one network and no others", "Fetch or write it again.")
    return Network(place, entry, spec, tensors, taps_of(plain, place))


def report(path: str | os.PathLike) -> tuple[str, bool]:
    """Say what a file is.

    Returns:
        The text, and whether all is well: at least one network, each whole and with finite values.
    Raises:
        CheckpointError: the file cannot be read, or is not safe to read.
    """
    lines, besides, sound = [str(path)], [], []
    for entry, value in entries(path).items():
        if not is_network(value):
            besides.append(checkpoint.contents(value) if entry is None else f"{entry} ({_shape(value)})")
            continue
        try:
            network = network_of(path, entry, value)
            lines.append(indent(_described(network), "  "))
            sound.append(not network.not_finite)
        except CheckpointError as error:
            lines.append(f"  {error}")
            sound.append(False)
    if not sound:
        lines.append("  no weights of a GPEN, GPENPrior or GPENDiscriminator")
    if besides:
        lines.append(f"  besides: {', '.join(besides)}")
    return "\n".join(lines), bool(sound) and all(sound)


def _described(network: Network) -> str:
    count = sum(tensor.numel() for tensor in network.tensors.values())
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in network.tensors.values()})
    broken = network.not_finite
    values = f"NOT FINITE: {checkpoint.shown(broken)}" if broken else "all finite"
    facts = f"layout {network.spec.layout}; {count:,} parameters; {', '.join(dtypes)}; {values}"
    return f"{network.entry or 'flat'}: {network.spec}\n  {facts}\n{indent(network.option_lines(), '  ')}"


def _shape(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"tensor of {tuple(value.shape)}"
    if isinstance(value, Mapping | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return f"{value}"[:40] if isinstance(value, int | float | str) else type(value).__name__
