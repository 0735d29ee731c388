"""The host's Inception network, with weights that we have found and checked."""

import warnings
from collections.abc import Mapping
from unittest import mock

import torch
from torch import nn

from gpen_plugin.host.registration import host_module


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
