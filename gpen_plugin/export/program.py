"""A GPEN as an exported program of PyTorch's: its graph and weights, without this package."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.export.checking import Network
from gpen_plugin.export.quietly import suppress_warnings

FACTS = "gpen.json"  # in the file, beside the program
_EXAMPLE = 2  # images: with one, PyTorch takes the number for a constant


def write(path: Path, net: GPEN, batch: int | None, facts: Mapping[str, str]) -> None:
    """Write a network, for the device that it is on.

    Args:
        path: of the file.
        net: on its device, evaluating.
        batch: how many images it takes at once; None if any number.
        facts: what the file is to say about itself, by name.
    Raises:
        OSError: the file cannot be written.
    """
    size = net.in_size
    example = torch.zeros(batch or _EXAMPLE, 3, size, size, device=net.decoder.constant.device)
    shapes = ({0: torch.export.Dim("batch")},) if batch is None else None
    with suppress_warnings(), torch.no_grad(), open(path, "wb") as stream:
        program = torch.export.export(net, (example,), dynamic_shapes=shapes, strict=False)
        torch.export.save(program, stream, extra_files={FACTS: json.dumps(dict(facts), indent=1)})


def open_for_check(path: Path, device: torch.device) -> Network:
    """What `write` wrote, read again: (N, 3, S, S) -> (N, 3, T, T) on the CPU.

    Reading runs what a file says, so that it is for files of one's own alone.
    """
    with suppress_warnings(), open(path, "rb") as stream:
        network = torch.export.load(stream).module()
    return lambda images: network(images.to(device)).cpu()
