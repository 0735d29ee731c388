"""Networks that only measure: weights read safely and loaded whole, never trained, on the GPU where there is one."""

import os
from collections.abc import Mapping

import torch
from torch import nn

from gpen_plugin.archs.key_maps import without_wrapper_prefixes
from gpen_plugin.checkpoints.download import read_weights
from gpen_plugin.errors import CheckpointError, OptionError

ENTRIES = ("params_ema", "params", "state_dict")  # where nested files keep a network, the first that is there
FEW = 4  # so many tensors are named in a message


def load_tensors(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The weights of the network that a file holds, without the prefixes of wrappers.

    Args:
        path: a file of torch.save's: flat, or with the weights under one of `ENTRIES`.
    Raises:
        CheckpointError: it cannot be read safely, or holds no weights.
    """
    content = read_weights(path)
    entry = next((content[name] for name in ENTRIES if isinstance(content.get(name), Mapping)), content)
    if not entry or not all(isinstance(value, torch.Tensor) for value in entry.values()):
        raise CheckpointError(str(path), "holds no weights", "tensors by name", "Name the right file.")
    return without_wrapper_prefixes(entry)


def load_frozen(network: nn.Module, tensors: Mapping[str, torch.Tensor], place: str, device: torch.device) -> nn.Module:
    """Give a network its weights, all of them, and make it one that only measures.

    Args:
        network: may lie on the meta device.
        tensors: exactly those of ``network.state_dict()``.
        place: where they are from, for the error.
        device: where it is to work.
    Returns:
        `network`, in float32 and evaluation mode, without gradients.
    Raises:
        CheckpointError: tensors are missing, too many or misshapen.
    """
    problems = _differences(tensors, network.state_dict())
    if problems:
        more = f" and {len(problems) - FEW} more" if len(problems) > FEW else ""
        got = f"its tensors are not those of {type(network).__name__} ({'; '.join(problems[:FEW])}{more})"
        raise CheckpointError(place, got, "all tensors of this network and no others", "Name the right file.")
    network.load_state_dict(tensors, assign=True)
    return network.float().eval().requires_grad_(False).to(device)


def select_device(device: str) -> torch.device:
    """The device that an option names; ``auto`` is the GPU where there is one.

    Raises:
        OptionError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        got = f"got {device!r}, which PyTorch does not have here"
        raise OptionError("device", got, "auto, cpu or cuda", "Leave the key out.") from error


def _differences(given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    """Old files do not count the batches of their normalisations, which only training reads; PyTorch fills that in."""
    missing = [f"{name} is missing" for name in own if name not in given and not name.endswith("num_batches_tracked")]
    surplus = [f"{name} is not of it" for name in given if name not in own]
    shapes = [(name, tuple(given[name].shape), tuple(own[name].shape)) for name in own if name in given]
    return missing + surplus + [f"{name} is {one}, not {other}" for name, one, other in shapes if one != other]
