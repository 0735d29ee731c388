"""What all methods of a comparison share: a sample goes in, a restored face comes out."""

import contextlib
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from gpen_plugin.data.degradation import resize_bilinear
from gpen_plugin.data.rng import rng_from_key

if TYPE_CHECKING:
    import torch
    from torch import nn

RANDOM = "random"  # in place of a weight file
RANDOM_NOTE = "RANDOM WEIGHTS: not trained"


@dataclass(frozen=True, eq=False)
class Sample:
    """A face to restore."""

    key: str  # of the image, the same in every condition
    condition: str  # of the protocol, e.g. ``16x``; empty where the protocol knows but one
    lq: np.ndarray  # the degraded image at its own size, (h, w, 3) BGR uint8. A method enlarges it as it is used to
    gt: np.ndarray | None  # the ground truth, (size, size, 3) BGR uint8, or None in the wild
    size: int  # side of the result in pixels
    # another image of the same person, (size, size, 3) BGR uint8; None without ``protocol: references``, and for a face
    # that has none
    ref: np.ndarray | None = None
    # eyes, nose and corners of the mouth, (5, 2) float64 in pixels of the result; None without ``protocol: landmarks``
    landmarks: np.ndarray | None = None


class Method(typing.Protocol):
    """A method restores one face at a time, and gives the same result at every run."""

    description: str  # for the reader of the tables
    identity: dict  # all that determines a restored image besides the sample, for JSON
    # A method with the attribute ``needs_reference = True`` is called only for samples that have a `ref`.
    # ``parameters``, if a method has it, is the number of parameters of its networks.

    def __call__(self, sample: Sample) -> np.ndarray:
        """Return the restored face, (size, size, 3) BGR uint8."""


Interpolation = Literal["bilinear", "bicubic"]


def resize(
    image: np.ndarray,
    size: int,
    how: Interpolation,  # ``bilinear``, as GPEN is trained, or ``bicubic``, OpenCV's cubic kernel (a = -0.75)
) -> np.ndarray:
    """Resize a degraded image, (H, W, 3), uint8 or float in [0, 1], to (size, size, 3) float32 in [0, 1], unrounded."""
    if how == "bilinear":
        return resize_bilinear(image, size)
    unit = image.astype(np.float32) / 255 if image.dtype == np.uint8 else image
    return np.clip(cv2.resize(unit, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


def count_parameters(net: "nn.Module") -> int:
    """The number of parameters of a network."""
    return sum(parameter.numel() for parameter in net.parameters())


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round an image in [0, 1] to uint8."""
    return np.rint(image * 255).astype(np.uint8)


@contextlib.contextmanager
def seeded(device: "torch.device", *parts: str | int) -> Iterator[None]:
    """Seed torch from `parts`, use deterministic cuDNN kernels, and turn TF32 off; restore all of this afterwards."""
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(rng_from_key(*parts).integers(2**63)))
        try:
            cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, False, False, False
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


def describe_file(path: str | Path, digest: str) -> str:
    """Name and start of the digest of a weight file, for a description."""
    return f"{Path(path).name} (sha256 {digest[:12]})"
