"""LPIPS (Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric").

Version 0.1 of the ``lpips`` package: its heads on a backbone of torchvision, images in RGB [-1, 1]. Values of the two
backbones cannot be compared. Option file: ``lpips: {type: calculate_lpips, better: lower}``.
"""

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
from gpen_plugin.nets.loading import bgr_to_tensor, load_frozen, load_tensors, select_device

_PUBLISHED = "https://download.pytorch.org/models/"
BACKBONES = {
    "alex": WeightFile(
        "alexnet-owt-7be5be79.pth", "AlexNet, for LPIPS", f"{_PUBLISHED}alexnet-owt-7be5be79.pth", "7be5be79"
    ),
    "vgg": WeightFile("vgg16-397923af.pth", "VGG-16, for LPIPS", f"{_PUBLISHED}vgg16-397923af.pth", "397923af"),
}
LPIPS_MIN_SIDE = {"alex": 31, "vgg": 16}  # pixels; below, the last features have no size


@register("metric")
@nan_if_weights_missing
def calculate_lpips(
    img: np.ndarray,  # restored, (H, W, 3) BGR uint8
    img2: np.ndarray,  # ground truth of the same size
    # backbone: papers on face restoration report `vgg`; `alex` is nearer to human judgment, and GPEN's authors
    # validated with it
    net: Literal["alex", "vgg"] = "vgg",
    weights: str | None = None,  # path of torchvision's weights; ~ searches for them
    device: str = "auto",  # `auto`, `cpu` or `cuda`
    better: Literal["lower"] = "lower",  # direction of better values; BasicSR takes `higher` without this key
) -> float:
    """Learned perceptual distance, 0 for equal images; ShapeError if they differ in size or are too small."""
    if net not in BACKBONES:
        raise OptionError("net", f"got {net!r}", "alex or vgg")
    check_better(better, "lower", "Equal images have the distance 0.")
    check_pair(img, img2, LPIPS_MIN_SIDE[net])
    path = find_weights(BACKBONES[net], weights, "weights")
    chosen = select_device(device)
    network = perceptual_network(net, str(path), chosen)
    with torch.inference_mode():
        return float(network(bgr_to_tensor(img).to(chosen), bgr_to_tensor(img2).to(chosen)))


@lru_cache(maxsize=2)
def perceptual_network(net: Literal["alex", "vgg"], path: str, device: torch.device) -> nn.Module:
    """Two (N, 3, H, W) RGB in [-1, 1] to (N, 1, 1, 1); MissingFileError without lpips, CheckpointError for others."""
    package = _import_lpips()  # its heads go on the backbone in `path`
    with torch.device("meta"), warnings.catch_warnings():  # meta: samples no random numbers of a training
        warnings.simplefilter("ignore")  # the package uses arguments that torchvision deprecates
        network = package.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    constants = {name: tensor for name, tensor in network.state_dict().items() if not tensor.is_meta}
    heads = load_tensors(Path(package.__file__).parent / "weights" / "v0.1" / f"{net}.pth")
    listed = {f"lins.{name.removeprefix('lin')}": tensor for name, tensor in heads.items()}  # each head has two names
    return load_frozen(network, constants | heads | listed | _read_backbone(network, path), path, device)


def _read_backbone(network: nn.Module, path: str) -> dict[str, torch.Tensor]:
    """Torchvision's ``features.N.weight`` by lpips's names: ``net.slice1.N.weight``."""
    given = load_tensors(path)
    wanted = [name for name in network.state_dict() if name.startswith("net.")]
    source = {name: f"features.{name.split('.', 2)[2]}" for name in wanted}
    features = {name for name in given if name.startswith("features.")}
    if features != set(source.values()):
        got = f"has {len(features)} tensors of a backbone ({len(given)} in all)"
        raise CheckpointError(path, got, f"the {len(wanted)} that LPIPS takes", "Download torchvision's file again.")
    return {name: given[key] for name, key in source.items()}


def _import_lpips() -> ModuleType:
    try:
        import lpips
    except ImportError as error:
        got, hint = "the package lpips is not installed", 'Run: pip install "gpen_plugin[evaluate]"'
        raise MissingFileError("calculate_lpips", got, hint=hint) from error
    return lpips
