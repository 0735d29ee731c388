"""VGG-16's features of small images, for the perceptual loss of mGANprior."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from gpen_plugin.metrics.lpips import BACKBONES
from gpen_plugin.nets.loading import load_frozen, load_tensors

FILE = BACKBONES["vgg"]
LAYERS = 23  # up to the ReLU after conv4_3
SMALLEST = 32  # pixels: below, its three poolings leave less than 4
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's networks, RGB in [0, 1]


class VGGFeatures(nn.Module):
    """An image -> its features after conv4_3, each place brought to length 1.

    Args:
        path: torchvision's file of VGG-16.
        device: where to compute.
    Raises:
        CheckpointError: the file cannot be read, or is of another network.
    """

    def __init__(self, path: Path, device: torch.device):
        super().__init__()
        from torchvision.models import vgg16

        with torch.device("meta"):  # draws no random numbers
            layers = vgg16(weights=None).features[:LAYERS]
        tensors = {
            name.removeprefix("features."): tensor
            for name, tensor in load_tensors(path).items()
            if name.startswith("features.") and int(name.split(".")[1]) < LAYERS
        }
        self.layers = load_frozen(layers, tensors, str(path), device)
        self.register_buffer("mean", torch.tensor(MEAN, device=device)[:, None, None])
        self.register_buffer("deviation", torch.tensor(DEVIATION, device=device)[:, None, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, 3, h, w) RGB in [-1, 1] -> (N, 512, h', w'). What is below 32 px is enlarged bilinearly."""
        height, width = (max(side, SMALLEST) for side in image.shape[2:])
        if image.shape[2:] != (height, width):
            image = F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)
        return F.normalize(self.layers(((image + 1) / 2 - self.mean) / self.deviation), dim=1)
