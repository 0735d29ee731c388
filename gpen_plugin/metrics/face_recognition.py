"""Faces as points on a sphere: the embedding that a face-recognition network gives."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Literal

import cv2
import numpy as np

from gpen_plugin.errors import OptionError
from gpen_plugin.metrics.face_templates import ARCFACE_SIDE, FRAMINGS, to_arcface
from gpen_plugin.metrics.recognition_network import (
    CHANNELS,
    GFPGANS_INPUT,
    FaceInput,
    onnx_recogniser,
    registered_recogniser,
)

LUMA = np.array([0.114, 0.587, 0.2989], np.float32)  # of blue, green and red, as gfpgan feeds its network


@dataclass(frozen=True, eq=False)
class RecognitionSettings:
    """Which network looks at a face, and how the face is put before it.

    Attributes:
        network: a registered network and its arguments, as in ``network_g``; by default gfpgan's ResNetArcFace, unless
            `onnx` is given.
        weights: path of the network's file; gfpgan's is looked for where none is given.
        onnx: path of an ONNX file instead of `network` and `weights`.
        input_size: side that the network takes; by default what the ONNX file says, 128 for gfpgan's, else 112.
        channels: by default ``gray`` for gfpgan's and ``rgb`` for others.
        align: ``none`` shows the whole picture; ``ffhq`` and ``dlib`` crop a face in the framing of FFHQ or
            of dlib's chips (FairFace) to that of ArcFace, which ONNX files such as InsightFace's and OpenCV's want.
        mean: is taken from each value of 0 to 255.
        std: divides what is left; 127.5 both give [-1, 1], which nearly all networks take.
        device: ``auto``, ``cpu`` or ``cuda``.
    Raises:
        OptionError: a value, or two that exclude each other.
    """

    network: Mapping | None = None
    weights: str | None = None
    onnx: str | None = None
    input_size: int | None = None
    channels: Literal["gray", "rgb", "bgr"] | None = None
    align: Literal["none", "ffhq", "dlib"] = "none"
    mean: float = 127.5
    std: float = 127.5
    device: str = "auto"

    def __post_init__(self):
        if self.onnx and (self.network or self.weights):
            came = f"got {self.onnx} beside {'network' if self.network else 'weights'}"
            raise OptionError("onnx", came, "one network", "An ONNX file brings its weights along.")
        if self.network and not self.weights:
            raise OptionError("weights", "missing", "the path of the network's weights", "Add the key.")
        if self.channels not in (None, *CHANNELS):
            raise OptionError("channels", f"got {self.channels!r}", "gray, rgb or bgr")
        if self.align not in ("none", *FRAMINGS):
            raise OptionError("align", f"got {self.align!r}", f"none, {' or '.join(FRAMINGS)}")
        if self.input_size is not None and self.input_size < 1:
            raise OptionError("input_size", f"got {self.input_size}", "a number above 0")
        if not self.std > 0:
            raise OptionError("std", f"got {self.std}", "a number above 0")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecognitionSettings) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, default=str)  # `network` has no hash of its own


def embedding(picture: np.ndarray, settings: RecognitionSettings) -> np.ndarray:
    """What a network makes of a face; the nearer two are, the more alike are the faces.

    Args:
        picture: a face, (H, W, 3) BGR uint8, of any size.
        settings: which network, and what it takes.
    Returns:
        (D,) float64, of length 1; NaN if the network gave nothing but zeros.
    Raises:
        MissingFileError: weights, or the package of the network, are missing.
        CheckpointError: weights cannot be read, or are of another network.
        OptionError: the network is not registered, or takes other pictures than the settings say.
        ShapeError: the picture is not square, and was to be aligned.
    """
    values = _recogniser(settings)(picture).astype(np.float64).reshape(-1)
    with np.errstate(invalid="ignore"):
        return values / np.linalg.norm(values)


def network_input(picture: np.ndarray, settings: RecognitionSettings, face: FaceInput) -> np.ndarray:
    """Put a face before a network.

    Args:
        picture: (H, W, 3) BGR uint8.
        settings: give `align`, `mean` and `std`.
        face: the side and channels that the network takes.
    Returns:
        (1, C, side, side) float32, C = 1 or 3.
    """
    values = picture.astype(np.float32)
    if settings.align in FRAMINGS:
        values = to_arcface(values, face.side, settings.align)
    else:  # not blurred before shrinking: so these networks were trained, and so papers use them
        values = cv2.resize(values, (face.side, face.side), interpolation=cv2.INTER_LINEAR)
    values = (values - np.float32(settings.mean)) / np.float32(settings.std)
    if face.channels == "gray":
        values = (values @ LUMA)[..., None]  # (side, side, 1)
    elif face.channels == "rgb":
        values = values[..., ::-1]
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])  # (1, C, side, side)


@lru_cache(maxsize=2)
def _recogniser(settings: RecognitionSettings) -> Callable[[np.ndarray], np.ndarray]:
    """A function of a picture, (H, W, 3) BGR uint8, that gives what the network says: (1, D) or of another shape."""
    if settings.onnx:
        network, face = onnx_recogniser(settings.onnx, settings.input_size, settings.channels, settings.device)
    else:
        network = registered_recogniser(settings.network, settings.weights, settings.device)
        usual = FaceInput(ARCFACE_SIDE, "rgb") if settings.network else GFPGANS_INPUT
        face = FaceInput(settings.input_size or usual.side, settings.channels or usual.channels)
    return lambda picture: network(network_input(picture, settings, face))
