"""How much of a person's identity a restoration keeps: the angle between two faces in a recognition network's space."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import ContentCache, check_better, check_image, nan_if_weights_missing
from gpen_plugin.nets.arcface import RecognitionSettings, embedding

BEST = {"cosine": "higher", "degrees": "lower"}
_truths = ContentCache(most=4096)  # 512 numbers each


@register("metric")
@nan_if_weights_missing
def calculate_identity(
    img: np.ndarray,
    img2: np.ndarray,
    network: Mapping | None = None,
    weights: str | None = None,
    onnx: str | None = None,
    input_size: int | None = None,
    channels: Literal["gray", "rgb", "bgr"] | None = None,
    align: Literal["none", "ffhq", "dlib"] = "none",
    mean: float = 127.5,
    std: float = 127.5,
    unit: Literal["cosine", "degrees"] = "cosine",
    device: str = "auto",
    better: Literal["higher", "lower"] | None = None,
) -> float:
    """Likeness of the persons on two images, by ArcFace or another face-recognition network.

    In an option file: ``identity: {type: calculate_identity}``, or in degrees ``deg: {type: calculate_identity, unit:
    degrees, better: lower}``, both with gfpgan's network; of an ONNX file such as InsightFace's ``{type:
    calculate_identity, onnx: w600k_r50.onnx, align: ffhq}``, or OpenCV's SFace, which takes 0 to 255: ``{type:
    calculate_identity, onnx: face_recognition_sface_2021dec.onnx, align: ffhq, mean: 0, std: 1}``. Values of different
    networks, sizes or alignments cannot be compared.

    Args:
        img: a restored face, (H, W, 3) BGR uint8.
        img2: the ground truth, or whatever shows the person; it may be of another size.
        network: see `RecognitionSettings` for this and the next seven.
        weights: of the network.
        onnx: an ONNX file instead.
        input_size: that the network takes.
        channels: that it takes.
        align: how the face is cropped for it.
        mean: of its input.
        std: of its input.
        unit: ``cosine`` of the angle between the two, or the angle in ``degrees``.
        device: ``auto``, ``cpu`` or ``cuda``.
        better: read by the host to find the best iteration; degrees need ``lower``, since it takes ``higher`` where the
            key is left out.
    Returns:
        1 or 0 degrees for the same image; NaN where a file is missing or no good, or a package is
        missing (see the log).
    Raises:
        OptionError: names the option, what was given and what was expected.
        ShapeError: an image is no colour image of 8 bits, or not square and to be aligned.
    """
    if unit not in BEST:
        raise OptionError("unit", f"got {unit!r}", "cosine or degrees")
    check_better(better, BEST[unit], "The angle between equal faces is 0, its cosine 1.")
    check_image("img", img)
    check_image("img2", img2)
    settings = RecognitionSettings(network, weights, onnx, input_size, channels, align, mean, std, device)
    truth = _truths.of(img2, settings, lambda image: embedding(image, settings))
    restored = embedding(img, settings)
    return cosine(restored, truth) if unit == "cosine" else degrees(restored, truth)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine of the angle between two vectors of length 1, (D,) float64."""
    return float(np.clip(one @ other, -1, 1))


def degrees(one: np.ndarray, other: np.ndarray) -> float:
    """Angle between two vectors of length 1, (D,) float64, from 0 to 180; exact also where the cosine is near 1."""
    return math.degrees(2 * math.atan2(np.linalg.norm(one - other), np.linalg.norm(one + other)))
