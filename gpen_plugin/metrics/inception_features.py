"""What the distances of sets look at in an image: the last features of Inception v3, as FID is defined on them."""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from gpen_plugin.checkpoints.download import WeightFile, find_weights
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.host.patches import inception_with
from gpen_plugin.metrics.base import ContentCache, SetAccumulator, check_image
from gpen_plugin.metrics.lpips import signed_rgb
from gpen_plugin.nets.loading import load_tensors, select_device

INCEPTION = WeightFile(
    "pt_inception-2015-12-05-6726825d.pth",
    "Inception v3, for FID and KID",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d",
)
SIDE = 299  # pixels; the network's input


class FeatureSets(SetAccumulator):
    """Features of a set of restored or generated images, and of a set of real ones if there is one beside it.

    Args:
        key: see `SetAccumulator`.
        record: features of an image, (D,), and of the real one or None.
        statistics: file of the set that is compared with; None for the real images.
    """

    def __init__(self, key: bytes, record: tuple[np.ndarray, np.ndarray | None], statistics: str | None):
        super().__init__(key, record)
        self.statistics = statistics

    @classmethod
    def of_images(
        cls,
        img: np.ndarray,
        img2: np.ndarray | None,
        *,
        statistics: str | None,
        weights: str | None,
        device: str,
    ) -> "FeatureSets":
        """Take in one image and, without `statistics`, its ground truth, both (H, W, 3) BGR uint8 of any size.

        Raises:
            OptionError: there is nothing to compare with.
            ShapeError: no colour image of 8 bits.
            MissingFileError: there are no weights.
        """
        if statistics is None and img2 is None:
            hint = "Make statistics with datasets_prep/fid_stats.py and name the file."
            raise OptionError("statistics", "missing, and there is no ground truth", "one of the two", hint)
        settings = (weights, device)
        check_image("img", img)
        own = _of_restored.of(img, settings, lambda image: features_of(image, device, weights))
        real = None
        if statistics is None:
            check_image("img2", img2)
            real = _of_ground_truth.of(img2, settings, lambda image: features_of(image, device, weights))
        key = b"".join(hashlib.sha256(features).digest() for features in (real, own) if features is not None)
        return cls(key, (own, real), statistics)

    def check_fits(self, other: "FeatureSets") -> None:
        """Nothing that a user does brings two kinds together."""
        assert self.statistics == other.statistics, f"{self.statistics} and {other.statistics} in one sum"

    def features(self) -> np.ndarray:
        """Of the restored or generated images, (N, D) float32."""
        return np.stack([own for own, _ in self.records()])  # (N, D)

    def real_features(self) -> np.ndarray:
        """Of the ground truth, (N, D) float32; only without `statistics`."""
        return np.stack([real for _, real in self.records()])  # (N, D)


def features_of(image: np.ndarray, device: str = "auto", weights: str | None = None) -> np.ndarray:
    """The features of one image, (2048,) float32; arguments and errors as in `extract`."""
    return extract([image], device, weights)[0]


def extract(images: Sequence[np.ndarray], device: str = "auto", weights: str | None = None) -> np.ndarray:
    """Look at images with the Inception network of the FID (Heusel et al. 2017), as BasicSR does.

    Args:
        images: (H, W, 3) BGR uint8 each, of any size; brought to 299 x 299 bilinearly, without antialiasing, as in
            StyleGAN2's PyTorch ports and in BasicSR.
        device: ``auto`` is a GPU where there is one.
        weights: path of pytorch-fid's file; None looks for it, see `find_weights`.
    Returns:
        (N, 2048) float32.
    Raises:
        MissingFileError: there are no weights.
        CheckpointError: the file is damaged or of another network.
    """
    chosen = select_device(device)
    network = _network(str(find_weights(INCEPTION, weights)), chosen)
    with torch.inference_mode():
        batch = torch.cat([_as_input(image, chosen) for image in images])  # (N, 3, SIDE, SIDE)
        return network(batch)[0].flatten(1).float().cpu().numpy()  # (N, 2048)


def _as_input(image: np.ndarray, device: torch.device) -> torch.Tensor:
    values = signed_rgb(image).to(device)
    return nn.functional.interpolate(values, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


@functools.cache
def _network(path: str, device: torch.device) -> nn.Module:
    weights = load_tensors(path)
    try:
        network = inception_with(weights)
    except RuntimeError as error:
        got, hint = f"is of another network ({str(error).splitlines()[0]})", f"It is published at {INCEPTION.url}."
        raise CheckpointError(path, got, INCEPTION.what, hint) from error
    return network.to(device)


# 8 kB per image. Ground truth comes again with each method and validation, and FID and KID look at the same images.
_of_ground_truth: ContentCache[np.ndarray] = ContentCache(16384)
_of_restored: ContentCache[np.ndarray] = ContentCache(16384)
