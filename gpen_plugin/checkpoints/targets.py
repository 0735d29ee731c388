"""The kinds of weight file that conversion writes. Without PyTorch, so that a command can list them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpen_plugin.archs.key_maps import Layout


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        layout: whose names its tensors have.
        raw: entry of the weights themselves; empty in a flat file, which holds the averaged ones where there are any.
        averaged: entry of their average.
        discriminator: entry of the discriminator; empty where a file holds one network and its average alone.
    """

    layout: "Layout"
    raw: str = ""
    averaged: str = ""
    discriminator: str = ""


TARGETS = {
    "ours": Target("ours"),
    "basicsr": Target("ours", "params", "params_ema"),
    "authors": Target("authors"),
    "authors-training": Target("authors", "g", "g_ema", "d"),
    "modelscope": Target("authors"),
    "stylegan2": Target("stylegan2", "params", "params_ema"),
}
