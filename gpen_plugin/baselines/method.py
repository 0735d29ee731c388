"""What the methods of a comparison have in common: a sample goes in, a restored face comes out."""

import contextlib
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from gpen_plugin.data.degradation import resize_bilinear, rng_from_key

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Sample:
    """A face to restore.

    Attributes:
        key: of the image, the same in every condition.
        condition: of the protocol, e.g. ``16x``; empty where the protocol knows but one.
        lq: the degraded image at its own size, (h, w, 3) BGR uint8. A method enlarges it as it is used to.
        gt: the ground truth, (size, size, 3) BGR uint8, or None in the wild.
        size: side of the result in pixels.
    """

    key: str
    condition: str
    lq: np.ndarray
    gt: np.ndarray | None
    size: int


class Method(typing.Protocol):
    """Restores one face at a time, the same at every run.

    Attributes:
        description: what runs: network, weights and their hash, sizes, iterations.
        identity: what decides its images, as JSON has it: options, and digests of the files that they name.
    """

    description: str
    identity: dict

    def __call__(self, case: Sample) -> np.ndarray:
        """The restored face, (case.size, case.size, 3) BGR uint8."""


Interpolation = Literal["bilinear", "bicubic"]


def resize(image: np.ndarray, size: int, how: Interpolation) -> np.ndarray:
    """Bring a degraded image to the size that a method works at.

    Args:
        image: (H, W, 3), uint8 or float in [0, 1].
        size: side of the result.
        how: ``bilinear`` is what GPEN is trained with; ``bicubic`` is Keys' kernel with a = -0.75, OpenCV's.
    Returns:
        (size, size, 3) float32 in [0, 1], not rounded.
    """
    if how == "bilinear":
        return resize_bilinear(image, size)
    unit = image.astype(np.float32) / 255 if image.dtype == np.uint8 else image
    return np.clip(cv2.resize(unit, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round an image of [0, 1] to uint8."""
    return np.rint(image * 255).astype(np.uint8)


@contextlib.contextmanager
def seeded(device: "torch.device", *parts: str | int) -> Iterator[None]:
    """Compute in whole float32, with kernels that do not depend on chance, and draw what `parts` tell.

    On a GPU no kernel is chosen by timing, and TF32 is off. What the caller had set and drawn is as before afterwards.

    Args:
        device: where is computed.
        parts: what torch's random numbers are a function of: a seed, the key of an image, ...
    """
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


RANDOM = "random"  # in place of a weight file
RANDOM_NOTE = "RANDOM WEIGHTS: it has learnt nothing"


def describe_file(path: str | Path, digest: str) -> str:
    """A weight file for a description: its name and the start of its digest."""
    return f"{Path(path).name} (sha256 {digest[:12]})"
