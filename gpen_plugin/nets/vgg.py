"""VGG-19 for BasicSR's `PerceptualLoss`: found in our folders of weights, too, and missed before a run."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gpen_plugin.checkpoints.download import WeightFile, find_weights
from gpen_plugin.host import host_module

PUBLISHED = WeightFile(
    "vgg19-dcbb9e9d.pth",
    "VGG-19, for PerceptualLoss",
    "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    "dcbb9e9d",
)


@contextmanager
def vgg19_of(options: Mapping, where: str = "PerceptualLoss") -> Iterator[None]:
    """While a loss is built from `options`: BasicSR reads VGG-19 from the file that `find_weights` finds.

    Other losses and other networks than VGG-19 are not concerned. MissingFileError: the file is not on this machine
    and cannot be downloaded.
    """
    vgg_arch = host_module("basicsr.archs.vgg_arch", "PerceptualLoss")
    before = vgg_arch.VGG_PRETRAIN_PATH
    concerned = options.get("type") == "PerceptualLoss" and options.get("vgg_type", "vgg19") == "vgg19"
    if concerned and not os.path.exists(before):  # relative to the current folder
        vgg_arch.VGG_PRETRAIN_PATH = str(find_weights(PUBLISHED, where=where))
    try:
        yield
    finally:
        vgg_arch.VGG_PRETRAIN_PATH = before
