"""Weight files: read, write, convert, grow, download.

Here, without PyTorch, so that a command can list them: the kinds of file that conversion writes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpen_plugin.archs.key_maps import Layout


@dataclass(frozen=True)
class Target:
    """A kind of file."""

    layout: "Layout"  # whose names its tensors have
    raw: str = ""  # entry of the weights; empty in a flat file, which holds the averaged ones if there are any
    averaged: str = ""  # entry of their average
    discriminator: str = ""  # entry of the discriminator; empty where a file holds only one network and its average


TARGETS = {
    "ours": Target("ours"),
    "basicsr": Target("ours", "params", "params_ema"),
    "authors": Target("authors"),
    "authors-training": Target("authors", "g", "g_ema", "d"),
    "modelscope": Target("authors"),
    "stylegan2": Target("stylegan2", "params", "params_ema"),
}
