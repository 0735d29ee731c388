"""Write a network's tensors under the names of any layout that can hold it."""

from collections.abc import Mapping, Sequence

import torch

from gpen_plugin.archs.key_maps import (
    Layout,
    fixed_noise,
    from_authors,
    key_pairs,
    rename_keys,
    same_filter,
    to_authors,
)
from gpen_plugin.checkpoints.network_spec import NetworkSpec, infer_spec
from gpen_plugin.errors import CheckpointError
from gpen_plugin.ops import fir_kernel

USUAL_TAPS = (1, 3, 3, 1)
_LARGEST_STYLEGAN2 = 1024  # BasicSR's table of channels ends there


def to_layout(
    state_dict: Mapping[str, torch.Tensor],
    layout: Layout,
    resample_kernel: Sequence[float] = USUAL_TAPS,
    where: str = "state dict",
) -> dict[str, torch.Tensor]:
    """Rename and reshape tensors from any layout into any other; no value changes.

    Args:
        state_dict: flat, of one of our networks.
        layout: ``ours``, ``authors`` (in their order, with FIR filters) or ``stylegan2`` (with fixed noise).
        resample_kernel: the taps with which the network was built.
        where: a file or key path, for the error.
    Raises:
        CheckpointError: it is of none of our networks, or the layout has no names for this one.
    """
    spec, ours = infer_spec(state_dict, where), from_authors(state_dict)
    if layout == "ours":
        return ours
    if layout == "authors":
        return to_authors(ours, resample_kernel)
    _check_stylegan2(spec, where)
    renamed = rename_keys(ours, key_pairs(spec.kind, ours, "stylegan2"), resample_kernel)
    return renamed | fixed_noise(spec.out_size) if spec.kind == "GPENPrior" else renamed


def filter_taps(state_dict: Mapping[str, torch.Tensor], where: str = "state dict") -> tuple[float, ...] | None:
    """The FIR taps with which a network was built, the smallest 1; ``None`` where the layout does not store them.

    Raises:
        CheckpointError: the file's FIR filters are not all made of the same taps.
    """
    stored = {key: tensor for key, tensor in state_dict.items() if key.endswith(".kernel")}
    if not stored:
        return None
    taps = _taps(next(iter(stored.values())))
    rewritten = to_authors(from_authors(state_dict), taps)
    foreign = [key for key, kernel in stored.items() if not same_filter(kernel, rewritten.get(key, torch.empty(0)))]
    if foreign:
        got = f"its FIR filters differ among each other ({foreign[0]})"
        raise CheckpointError(where, got, "the same taps in all layers", "Fetch or write it again.")
    return taps


def taps_equal(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two lists of taps make the same filter; their common factor does not matter."""
    return same_filter(fir_kernel(one), fir_kernel(other))


def _taps(kernel):
    """All rows of a separable filter are multiples of its taps, and so is their sum."""
    line = torch.atleast_2d(kernel).double().flatten(0, -2).sum(dim=0).tolist()  # (K,)
    smallest = min((abs(tap) for tap in line if tap), default=1.0)
    return tuple(round(tap / smallest, 4) for tap in line)


def _check_stylegan2(spec: NetworkSpec, where: str) -> None:
    expected = "for StyleGAN2's names a GPENPrior with noise_mode add, or a GPENDiscriminator"
    if spec.kind == "GPEN" or spec.noise_mode not in (None, "add"):
        raise CheckpointError(where, f"holds {spec}", expected, "Use another layout.")
    if spec.out_size > _LARGEST_STYLEGAN2:
        raise CheckpointError(where, f"holds {spec}", f"at most {_LARGEST_STYLEGAN2} px", "Use another layout.")
