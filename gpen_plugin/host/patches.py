"""Stand-ins for parts of BasicSR that fail on some machines: compiled ops, VGG, Inception."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from unittest import mock

import torch
from torch import nn

from gpen_plugin.host.cuda_ops import cuda_ops_built
from gpen_plugin.host.patch import HostPatch
from gpen_plugin.host.registry import host_is_installed, host_module
from gpen_plugin.ops import bias_act


def _plain_bias_act(_original: Callable) -> Callable:
    def apply(x: torch.Tensor, bias: torch.Tensor, negative_slope: float, scale: float) -> torch.Tensor:
        return bias_act(x, bias, negative_slope, scale)

    return apply


def _plain_upfirdn(_original: Callable) -> Callable:
    def apply(
        x: torch.Tensor, kernel: torch.Tensor, up: tuple[int, int], down: tuple[int, int], pad: tuple[int, ...]
    ) -> torch.Tensor:
        from basicsr.ops.upfirdn2d.upfirdn2d import upfirdn2d_native

        return upfirdn2d_native(x, kernel, *up, *down, *pad)

    return apply


def _not_compiled() -> bool:
    return not cuda_ops_built()


OP_MENDS = (
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
    """Let the host's networks run without its extensions. Where these were compiled, nothing changes."""
    if host_is_installed():
        for mend in OP_MENDS:
            mend.apply()


@contextlib.contextmanager
def vgg_offline() -> Iterator[None]:
    """Build the host's `VGGFeatureExtractor` with random weights, for a file that brings them.

    It would fetch those of ImageNet and build the classifier, and then throw both away.
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


def inception_with(weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The host's Inception v3 of the FID, with given weights.

    The host's constructor fetches the weights itself: from a fixed path below the working folder or from the network,
    with no digest checked. Both ways are closed while it runs. It also draws random numbers, of which a training counts
    each, and torchvision warns of the way in which it is called.

    Args:
        weights: all tensors of the network by name, as pytorch-fid has published them.
    Returns:
        The network, in evaluation mode and frozen. It takes (N, 3, 299, 299) RGB in [-1, 1], and gives a list of one
        tensor, (N, 2048, 1, 1).
    Raises:
        MissingFileError: BasicSR is not installed.
        RuntimeError: the weights are of another network.
    """
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
