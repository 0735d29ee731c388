"""VGG-16's second fully connected layer, whose features improved precision and recall compare.

Protocol: torch-fidelity's, with torchvision's weights: images resized to 224 x 224 as TensorFlow 1 does, normalized by
ImageNet's mean and standard deviation, 4096 features after the ReLU.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from gpen_plugin.checkpoints.download import WeightFile, find_weights
from gpen_plugin.nets.loading import bgr_to_tensor, load_frozen, load_tensors, select_device

VGG16 = WeightFile(
    "vgg16-397923af.pth",
    "VGG-16, for LPIPS, precision and recall",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "397923af",
)
SIDE = 224  # pixels of the input
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]


def extract_features(images: Sequence[np.ndarray], device: str = "auto", weights: str | None = None) -> np.ndarray:
    """Features of images, each (H, W, 3) BGR uint8 of any size: (N, 4096) float32.

    MissingFileError if the weights are missing, CheckpointError if they are damaged or of another network.
    """
    chosen = select_device(device)
    network = _load_network(str(find_weights(VGG16, weights)), chosen)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    inputs = [((resize_as_tensorflow((bgr_to_tensor(image) + 1) / 2, SIDE)) - mean) / std for image in images]
    with torch.inference_mode():
        return network(torch.cat(inputs).to(chosen)).float().cpu().numpy()  # [N, 4096]


def resize_as_tensorflow(image: torch.Tensor, side: int) -> torch.Tensor:
    """(N, C, H, W) -> (N, C, side, side), bilinear; pixel i of the result lies at i * H / side of the image."""
    for axis in (2, 3):
        length = image.shape[axis]
        positions = torch.arange(side, dtype=torch.float64) * (length / side)
        below = positions.floor().long()
        above = (below + 1).clamp(max=length - 1)
        shape = [1, 1, 1, 1]
        shape[axis] = side
        weight = (positions - below).to(image.dtype).reshape(shape)
        image = image.index_select(axis, below) * (1 - weight) + image.index_select(axis, above) * weight
    return image


@functools.cache
def _load_network(path: str, device: torch.device) -> nn.Module:
    from torchvision.models import vgg16

    with torch.device("meta"):
        network = vgg16(weights=None)
    return to_second_relu(load_frozen(network, load_tensors(path), path, device))


def to_second_relu(network: nn.Module) -> nn.Module:
    """Torchvision's VGG-16 without its last layer: (N, 3, 224, 224) -> (N, 4096)."""
    network.classifier = network.classifier[:5]
    return network
