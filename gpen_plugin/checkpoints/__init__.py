"""Weight files: read, write, convert, grow, download.

Here is what needs no PyTorch: the kinds of file that conversion writes, and digests.
"""

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpen_plugin.archs.key_maps import Layout

_CHUNK = 1 << 20  # bytes


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


def sha256_of(path: str | os.PathLike) -> str:
    """The digest of a file in 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
