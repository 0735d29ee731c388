"""Identity: cosine or angle between the embeddings of two faces, by ArcFace or another recognition network.

Values of different networks, input sizes or alignments cannot be compared.
"""

# Option files: `identity: {type: calculate_identity}` and `deg: {type: calculate_identity, unit: degrees, better:
# lower}` take gfpgan's network; for InsightFace's ONNX file add `onnx: w600k_r50.onnx, align: ffhq`, and for OpenCV's
# SFace, whose input is 0 to 255, `onnx: face_recognition_sface_2021dec.onnx, align: ffhq, mean: 0, std: 1`. AdaFace:
# `network: {type: AdaFace, num_layers: 50}, weights: adaface_ir50_ms1mv2.ckpt, align: ffhq`.

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import ContentCache, check_better, check_image, nan_if_weights_missing
from gpen_plugin.nets.arcface import RecognitionSettings, embedding

BEST = {"cosine": "higher", "degrees": "lower"}
_ground_truth = ContentCache(size=4096)  # 512 numbers each


@register("metric")
@nan_if_weights_missing
def calculate_identity(
    img: np.ndarray,  # restored face, (H, W, 3) BGR uint8
    img2: np.ndarray,  # ground truth, or another image of the person, of any size
    network: Mapping | None = None,  # registered network and its arguments, as `network_g`; ~ for gfpgan's ArcFace
    weights: str | None = None,  # path of the network's weights; ~ searches for gfpgan's
    onnx: str | None = None,  # path of an ONNX file, in place of `network` and `weights`
    input_size: int | None = None,  # side in pixels; ~ takes the ONNX file's, 128 for gfpgan's, else 112
    # channels of the input; ~ takes `gray` for gfpgan's and for ONNX files of one channel, else `rgb`
    channels: Literal["gray", "rgb", "bgr"] | None = None,
    # crop before recognition: `none` takes the whole image; `ffhq` and `dlib` (FairFace) crop a face in this framing to
    # ArcFace's, which AdaFace and ONNX files such as InsightFace's and OpenCV's expect; `landmarks` does so by the
    # points of each face, which the protocol `ntire` reads from a file
    align: Literal["none", "ffhq", "dlib", "landmarks"] = "none",
    mean: float = 127.5,  # number to subtract from the values, which are 0 to 255
    std: float = 127.5,  # number to divide the difference by, above 0
    unit: Literal["cosine", "degrees"] = "cosine",  # cosine of the angle between the embeddings, or the angle
    device: str = "auto",  # `auto`, `cpu` or `cuda`
    # direction of better values: degrees need `lower`, because BasicSR takes `higher` without this key
    better: Literal["higher", "lower"] | None = None,
    # eyes, nose and corners of the mouth in both images, (5, 2) in pixels, for `align: landmarks`
    landmarks: np.ndarray | None = None,
) -> float:
    """Similarity of two faces, 1 or 0 degrees for equal images; ShapeError for one to be aligned that is not square."""
    if unit not in BEST:
        raise OptionError("unit", f"got {unit!r}", "cosine or degrees")
    check_better(better, BEST[unit], "The angle between equal faces is 0, its cosine 1.")
    check_image("img", img)
    check_image("img2", img2)
    settings = RecognitionSettings(network, weights, onnx, input_size, channels, align, mean, std, device)
    if align != "landmarks":
        landmarks = None
    elif landmarks is None:
        got, hint = "got landmarks, and there are none for this face", "Name the file in protocol:landmarks."
        raise OptionError("align", got, "none, ffhq or dlib", hint)
    points = None if landmarks is None else landmarks.tobytes()
    truth = _ground_truth.get_or_compute(img2, (settings, points), lambda image: embedding(image, settings, landmarks))
    restored = embedding(img, settings, landmarks)
    return cosine_similarity(restored, truth) if unit == "cosine" else angle_degrees(restored, truth)


def cosine_similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine of the angle between two vectors of length 1, (D,) float64."""
    return float(np.clip(one @ other, -1, 1))


def angle_degrees(one: np.ndarray, other: np.ndarray) -> float:
    """Angle between two vectors of length 1, (D,) float64, from 0 to 180; exact also if the cosine is near 1."""
    return math.degrees(2 * math.atan2(np.linalg.norm(one - other), np.linalg.norm(one + other)))
