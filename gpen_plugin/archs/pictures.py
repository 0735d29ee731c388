"""How pictures enter a network that works in a value range of its own, at one size, and how they leave it."""

import torch
import torch.nn.functional as F

from gpen_plugin.archs.layers import check_size
from gpen_plugin.errors import OptionError


def check_in_size(in_size: int, out_size: int) -> None:
    """Raise an `OptionError` unless `in_size` is a size of `check_size`, up to `out_size`."""
    check_size("in_size", in_size)
    if in_size > out_size:
        way_out = f"Use {out_size}, or leave in_size out."
        raise OptionError("in_size", f"got {in_size}", f"at most out_size, which is {out_size}", way_out)


def checked_range(given: tuple[float, float], name: str = "value_range") -> tuple[float, float]:
    """The range as a tuple; an `OptionError` that names it unless it is two values, the lower one first."""
    if len(given) != 2 or not given[0] < given[1]:
        raise OptionError(name, f"got {list(given)}", "two values, the lower one first", "Use [-1, 1] or [0, 1].")
    return tuple(given)


def enter(
    picture: torch.Tensor, value_range: tuple[float, float], inner_range: tuple[float, float] = (-1, 1)
) -> torch.Tensor:
    """From the value range of the caller to that of the layers."""
    if value_range == inner_range:
        return picture
    (low, high), (inner_low, inner_high) = value_range, inner_range
    return (picture - low) * ((inner_high - inner_low) / (high - low)) + inner_low


def leave(
    picture: torch.Tensor, value_range: tuple[float, float], inner_range: tuple[float, float] = (-1, 1)
) -> torch.Tensor:
    """Back again."""
    return enter(picture, inner_range, value_range)


def resize(picture: torch.Tensor, size: int) -> torch.Tensor:
    """The "simple bilinear interpolator" of section 3.2: (N, 3, H, W) -> (N, 3, size, size), no antialiasing."""
    if picture.shape[2:] == (size, size):
        return picture
    wide = picture.to(torch.promote_types(picture.dtype, torch.float32))  # bfloat16 rounds pixel positions
    return F.interpolate(wide, size=(size, size), mode="bilinear", align_corners=False).to(picture.dtype)
