"""Inception v3 of the FID (Heusel et al. 2017): the network whose features FID and KID compare.

Protocol: pytorch-fid's weights (the TensorFlow graph of 2015-12-05), the 2048-d pool3 features, images in RGB [-1, 1]
resized to 299 x 299 bilinearly without antialiasing, as in StyleGAN2's PyTorch ports and in BasicSR.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from gpen_plugin.checkpoints.download import WeightFile, find_weights
from gpen_plugin.errors import CheckpointError
from gpen_plugin.host.patches import inception_with
from gpen_plugin.nets.loading import bgr_to_tensor, load_tensors, select_device

INCEPTION = WeightFile(
    "pt_inception-2015-12-05-6726825d.pth",
    "Inception v3, for FID and KID",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d",
)
SIDE = 299  # pixels of the input


def extract_features(images: Sequence[np.ndarray], device: str = "auto", weights: str | None = None) -> np.ndarray:
    """Features of images, each (H, W, 3) BGR uint8 of any size: (N, 2048) float32.

    MissingFileError if the weights are missing, CheckpointError if they are damaged or of another network.
    """
    chosen = select_device(device)
    network = _load_network(str(find_weights(INCEPTION, weights)), chosen)
    with torch.inference_mode():
        batch = torch.cat([_to_input(image, chosen) for image in images])  # [N, 3, 299, 299]
        return network(batch)[0].flatten(1).float().cpu().numpy()  # [N, 2048]


def _to_input(image: np.ndarray, device: torch.device) -> torch.Tensor:
    values = bgr_to_tensor(image).to(device)
    return nn.functional.interpolate(values, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


@functools.cache
def _load_network(path: str, device: torch.device) -> nn.Module:
    weights = load_tensors(path)
    try:
        network = inception_with(weights)
    except RuntimeError as error:
        got, hint = f"is of another network ({str(error).splitlines()[0]})", f"It is published at {INCEPTION.url}."
        raise CheckpointError(path, got, INCEPTION.what, hint) from error
    return network.to(device)
