"""How pictures enter a network that works in [-1, 1] at one size, and how they leave it."""

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


def checked_range(value_range: tuple[float, float]) -> tuple[float, float]:
    """The range as a tuple; an `OptionError` unless it is two values, the lower one first."""
    if len(value_range) != 2 or not value_range[0] < value_range[1]:
        expected = "two values, the lower one first"
        raise OptionError("value_range", f"got {list(value_range)}", expected, "Use [-1, 1] or [0, 1].")
    return tuple(value_range)


def enter(picture: torch.Tensor, value_range: tuple[float, float]) -> torch.Tensor:
    """From the value range of the caller to [-1, 1]."""
    low, high = value_range
    return picture if (low, high) == (-1, 1) else (picture - low) * (2 / (high - low)) - 1


def leave(picture: torch.Tensor, value_range: tuple[float, float]) -> torch.Tensor:
    """Back again."""
    low, high = value_range
    return picture if (low, high) == (-1, 1) else (picture + 1) * ((high - low) / 2) + low


def resize(picture: torch.Tensor, size: int) -> torch.Tensor:
    """The "simple bilinear interpolator" of section 3.2: (N, 3, H, W) -> (N, 3, size, size), no antialiasing."""
    if picture.shape[2:] == (size, size):
        return picture
    wide = picture.to(torch.promote_types(picture.dtype, torch.float32))  # bfloat16 rounds pixel positions
    return F.interpolate(wide, size=(size, size), mode="bilinear", align_corners=False).to(picture.dtype)
