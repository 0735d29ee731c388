"""Patches of BasicSR's faults (1.4.2 and git master), and stand-ins for its compiled ops and downloads.

A patch replaces an attribute in memory; no file is changed. `gpen_plugin.host.PATCHES` lists those that every run gets,
and ``python -m gpen_plugin.doctor`` shows them.
"""

import contextlib
import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest import mock

from gpen_plugin.host.registry import host_is_installed, host_module, is_our_own

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class HostPatch:
    """A fault of BasicSR and its remedy.

    Attributes:
        name: what breaks, in a few words.
        reason: why, and what a user would see.
        versions: the versions of BasicSR that have the fault.
        module: module of BasicSR that holds the faulty attribute.
        attribute: what is replaced there; dotted for a method.
        remedy: makes the replacement from the original.
        needed: whether the fault occurs on this machine.
    """

    name: str
    reason: str
    versions: str
    module: str
    attribute: str
    remedy: Callable[[Callable], Callable]
    needed: Callable[[], bool] = lambda: True

    def present(self) -> bool:
        """Whether this BasicSR, on this machine, has the fault."""
        try:
            return hasattr(*self._locate()) and self.needed()
        except (ImportError, AttributeError):
            return False

    def applied(self) -> bool:
        """Whether the remedy is in place."""
        return hasattr(getattr(*self._locate(), None), "__gpen_original__")

    def apply(self) -> None:
        """Put the remedy in place, once, also where the host imported the original by name."""
        if not self.present() or self.applied():
            return
        owner, name = self._locate()
        original = getattr(owner, name)
        replacement = self.remedy(original)
        replacement.__gpen_original__ = original
        setattr(owner, name, replacement)
        for module in [m for key, m in list(sys.modules.items()) if m and key.partition(".")[0] == "basicsr"]:
            if vars(module).get(name) is original:
                setattr(module, name, replacement)

    def _locate(self) -> tuple[object, str]:
        owner: object = importlib.import_module(self.module)
        *path, name = self.attribute.split(".")
        for part in path:
            owner = getattr(owner, part)
        return owner, name


def _let_others_replace_ours(original: Callable) -> Callable:
    @wraps(original)
    def _do_register(self: object, name: str, entry: object, *suffix: str | None, **named: str | None) -> None:
        held = getattr(self, "_obj_map", {}).get(name)
        if held is not None and is_our_own(held) and not is_our_own(entry) and not any((*suffix, *named.values())):
            del self._obj_map[name]
            where = f"{entry.__module__} replaces {held.__module__}"
            logging.getLogger("basicsr").warning(f"{name}: {where} in BasicSR's {self._name} registry.")
        original(self, name, entry, *suffix, **named)

    return _do_register


REGISTRY_PATCHES = (
    HostPatch(
        "a name of this package cannot be given to another class",
        "the registry asserts that a name is free, so a project with a calculate_lpips of its own would not start",
        "1.4.2, master",
        "basicsr.utils.registry",
        "Registry._do_register",
        _let_others_replace_ours,
    ),
)


def cuda_ops_built() -> bool:
    """Whether BasicSR was built with its StyleGAN2 extensions (``BASICSR_EXT=True`` or ``BASICSR_JIT=True``)."""
    if not host_is_installed():
        return False
    import basicsr.ops.fused_act
    import basicsr.ops.upfirdn2d  # noqa: F401

    # by sys.modules: in the packages, the functions hide the modules of the same names
    return hasattr(sys.modules["basicsr.ops.fused_act.fused_act"], "fused_act_ext") and hasattr(
        sys.modules["basicsr.ops.upfirdn2d.upfirdn2d"], "upfirdn2d_ext"
    )


def use_host_cuda_ops() -> None:
    """Let the dispatch in `gpen_plugin.ops` use the host's kernels for CUDA tensors, if there are any."""
    if not cuda_ops_built():
        return
    from basicsr.ops.fused_act import fused_leaky_relu
    from basicsr.ops.upfirdn2d import upfirdn2d

    from gpen_plugin.ops import use_host_kernels

    use_host_kernels(upfirdn2d=upfirdn2d, bias_act=fused_leaky_relu)


def _plain_bias_act(_original: Callable) -> Callable:
    from gpen_plugin.ops import bias_act

    def apply(x, bias, negative_slope, scale):
        return bias_act(x, bias, negative_slope, scale)

    return apply


def _plain_upfirdn(_original: Callable) -> Callable:
    def apply(x, kernel, up, down, pad):
        from basicsr.ops.upfirdn2d.upfirdn2d import upfirdn2d_native

        return upfirdn2d_native(x, kernel, *up, *down, *pad)

    return apply


def _not_compiled() -> bool:
    return not cuda_ops_built()


OP_PATCHES = (
    HostPatch(
        "biased activations need a compiled op",
        "fused_leaky_relu swallows the ImportError of its extension and then ends in a NameError, on every device; so "
        "do StyleGAN2Generator and the networks of other plugins that are built of it",
        "1.4.2, master",
        "basicsr.ops.fused_act.fused_act",
        "FusedLeakyReLUFunction.apply",
        _plain_bias_act,
        _not_compiled,
    ),
    HostPatch(
        "resampling on a GPU needs a compiled op",
        "the same fault in upfirdn2d, on a GPU only",
        "1.4.2, master",
        "basicsr.ops.upfirdn2d.upfirdn2d",
        "UpFirDn2d.apply",
        _plain_upfirdn,
        _not_compiled,
    ),
)


def patch_missing_ops() -> None:
    """Let BasicSR's networks run without its compiled extensions. Where these were compiled, nothing changes."""
    if host_is_installed():
        for patch in OP_PATCHES:
            patch.apply()


@contextlib.contextmanager
def vgg_offline() -> Iterator[None]:
    """Build BasicSR's `VGGFeatureExtractor` with random weights, because a file with all weights is loaded after it.

    Otherwise it downloads those of ImageNet and builds the classifier, and discards both.
    """
    vgg_arch = host_module("basicsr.archs.vgg_arch", "DFDNet")
    from torchvision.models import vgg

    def features_of(layers: str) -> Callable[..., SimpleNamespace]:
        return lambda pretrained: SimpleNamespace(features=vgg.make_layers(vgg.cfgs[layers]))

    names = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}
    before = vgg_arch.vgg, vgg_arch.VGG_PRETRAIN_PATH
    vgg_arch.vgg = SimpleNamespace(**{name: features_of(layers) for name, layers in names.items()})
    vgg_arch.VGG_PRETRAIN_PATH = ""  # no file, so that none is read
    try:
        yield
    finally:
        vgg_arch.vgg, vgg_arch.VGG_PRETRAIN_PATH = before


def inception_with(weights: "Mapping[str, torch.Tensor]") -> "nn.Module":
    """BasicSR's Inception v3 for the FID, with given weights, in evaluation mode and frozen.

    BasicSR's constructor would read the weights from a fixed path below the working folder or download them, without
    checking a digest; both are blocked. It also draws random numbers, and torchvision warns of how it is called.

    Args:
        weights: all tensors of the network by name, as pytorch-fid publishes them.
    Returns:
        A network that takes (N, 3, 299, 299) RGB in [-1, 1] and gives a list of one tensor, (N, 2048, 1, 1).
    Raises:
        MissingFileError: BasicSR is not installed.
        RuntimeError: the weights are of another network.
    """
    import torch

    inception = host_module("basicsr.archs.inception", "Inception v3, for FID and KID")
    with (
        mock.patch.object(inception, "LOCAL_FID_WEIGHTS", ""),
        mock.patch.object(inception, "load_url", return_value=weights),
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        network = inception.InceptionV3([3], resize_input=False, normalize_input=False)
    return network.eval()
