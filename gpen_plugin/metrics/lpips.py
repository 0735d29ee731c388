"""LPIPS (Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric")."""

import warnings
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from torch import nn

from gpen_plugin.checkpoints.download import WeightFile, find_weights
from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import check_better, check_pair, nan_if_weights_missing
from gpen_plugin.nets.loading import load_frozen, load_tensors, select_device

_PUBLISHED = "https://download.pytorch.org/models/"
BACKBONES = {
    "alex": WeightFile(
        "alexnet-owt-7be5be79.pth", "AlexNet, for LPIPS", f"{_PUBLISHED}alexnet-owt-7be5be79.pth", "7be5be79"
    ),
    "vgg": WeightFile("vgg16-397923af.pth", "VGG-16, for LPIPS", f"{_PUBLISHED}vgg16-397923af.pth", "397923af"),
}
SMALLEST = {"alex": 31, "vgg": 16}  # pixels; below, the last features have no size


@register("metric")
@nan_if_weights_missing
def calculate_lpips(
    img: np.ndarray,
    img2: np.ndarray,
    net: Literal["alex", "vgg"] = "vgg",
    weights: str | None = None,
    device: str = "auto",
    better: Literal["lower"] = "lower",
) -> float:
    """Learned perceptual distance, version 0.1 of the ``lpips`` package, on RGB in [-1, 1].

    In an option file: ``lpips: {type: calculate_lpips, better: lower}``. Values of the two networks cannot be compared.

    Args:
        img: a restored image, (H, W, 3) BGR uint8.
        img2: the ground truth, of the same size.
        net: whose features: ``vgg`` is what papers on face restoration report, ``alex`` is nearer to people's judgement
            and what GPEN's authors validated with. They take images from 16 and 31 px on.
        weights: path of the network's file, as torchvision publishes it; by default it is looked for.
        device: ``auto``, ``cpu`` or ``cuda``.
        better: read by the host to find the best iteration; it takes ``higher`` where the key is left out.
    Returns:
        The distance, 0 for equal images; NaN where the network's file is missing or no good, or the package is
        missing (see the log).
    Raises:
        ShapeError: an image is too small, of another size or no colour image of 8 bits.
        OptionError: names the option, what was given and what was expected.
    """
    if net not in BACKBONES:
        raise OptionError("net", f"got {net!r}", "alex or vgg")
    check_better(better, "lower", "Equal images have the distance 0.")
    check_pair(img, img2, SMALLEST[net])
    path = find_weights(BACKBONES[net], weights, "weights")
    chosen = select_device(device)
    network = perceptual_network(net, str(path), chosen)
    with torch.inference_mode():
        return float(network(signed_rgb(img).to(chosen), signed_rgb(img2).to(chosen)))


def signed_rgb(image: np.ndarray) -> torch.Tensor:
    """An image as networks take it.

    Args:
        image: (H, W, 3) BGR uint8.
    Returns:
        (1, 3, H, W) RGB float32 in [-1, 1].
    """
    rgb = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None])  # (1, 3, H, W)
    return torch.from_numpy(rgb).float() / 127.5 - 1


@lru_cache(maxsize=2)
def perceptual_network(net: Literal["alex", "vgg"], path: str, device: torch.device) -> nn.Module:
    """The network of the ``lpips`` package: a published backbone, and the package's own heads.

    Args:
        net: which backbone.
        path: its file.
        device: where it is to work.
    Returns:
        Takes two tensors (N, 3, H, W), RGB in [-1, 1], and gives their distances (N, 1, 1, 1).
    Raises:
        MissingFileError: the package is not installed.
        CheckpointError: the file cannot be read, or is of another network.
    """
    package = _package()
    with torch.device("meta"), warnings.catch_warnings():  # meta: draws no random numbers, which training counts on
        warnings.simplefilter("ignore")  # the package speaks to an older torchvision
        network = package.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    constants = {name: tensor for name, tensor in network.state_dict().items() if not tensor.is_meta}
    heads = load_tensors(Path(package.__file__).parent / "weights" / "v0.1" / f"{net}.pth")
    listed = {f"lins.{name.removeprefix('lin')}": tensor for name, tensor in heads.items()}  # each head has two names
    return load_frozen(network, constants | heads | listed | _backbone(network, path), path, device)


def _backbone(network: nn.Module, path: str) -> dict[str, torch.Tensor]:
    """torchvision's ``features.N.weight`` under the names that lpips cuts them into: ``net.slice1.N.weight``."""
    given = load_tensors(path)
    wanted = [name for name in network.state_dict() if name.startswith("net.")]
    source = {name: f"features.{name.split('.', 2)[2]}" for name in wanted}
    features = {name for name in given if name.startswith("features.")}
    if features != set(source.values()):
        got = f"has {len(features)} tensors of a backbone ({len(given)} in all)"
        raise CheckpointError(path, got, f"the {len(wanted)} that LPIPS takes", "Fetch torchvision's file again.")
    return {name: given[key] for name, key in source.items()}


def _package() -> ModuleType:
    try:
        import lpips
    except ImportError as error:
        got, hint = "the package lpips is not installed", 'Run: pip install "gpen_plugin[evaluate]"'
        raise MissingFileError("calculate_lpips", got, hint=hint) from error
    return lpips
