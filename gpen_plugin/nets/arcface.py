"""ArcFace and other face-recognition networks, and the embeddings they give."""

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch

from gpen_plugin.checkpoints.download import WeightFile, find_weights
from gpen_plugin.config.schema import check, unknown_name
from gpen_plugin.errors import MissingFileError, OptionError
from gpen_plugin.host import registered, resolve
from gpen_plugin.nets.face_templates import ARCFACE_SIDE, FRAMINGS, align_to_arcface, to_arcface
from gpen_plugin.nets.loading import load_frozen, load_tensors, open_onnx, select_device

GFPGAN_NETWORK = {"type": "ResNetArcFace", "block": "IRBlock", "layers": [2, 2, 2, 2], "use_se": False}
GFPGAN_WEIGHTS = WeightFile(
    "arcface_resnet18.pth",
    "ArcFace as gfpgan uses it, for identity",
    "https://github.com/TencentARC/GFPGAN/releases/download/v0.1.0/arcface_resnet18.pth",
    None,
)
CHANNELS = {"gray": 1, "rgb": 3, "bgr": 3}
LUMA = np.array([0.114, 0.587, 0.2989], np.float32)  # of blue, green and red, as in gfpgan


class FaceInput(NamedTuple):
    side: int  # pixels, of a square
    channels: str  # a key of `CHANNELS`


GFPGAN_INPUT = FaceInput(128, "gray")
_LIGHTNING = "model."  # prefix of the network in a checkpoint of a LightningModule, which AdaFace's files are


@dataclass(frozen=True, eq=False)
class RecognitionSettings:
    """A recognition network and its input: the options of `metrics.identity`, checked."""

    network: Mapping | None = None
    weights: str | None = None
    onnx: str | None = None
    input_size: int | None = None
    channels: Literal["gray", "rgb", "bgr"] | None = None
    align: Literal["none", "ffhq", "dlib", "landmarks"] = "none"
    mean: float = 127.5
    std: float = 127.5
    device: str = "auto"

    def __post_init__(self):
        if self.onnx and (self.network or self.weights):
            got = f"got {self.onnx} beside {'network' if self.network else 'weights'}"
            raise OptionError("onnx", got, "one network", "Remove one of them: an ONNX file contains its weights.")
        if self.network and not self.weights:
            raise OptionError("weights", "missing", "the path of the network's weights", "Add the key.")
        if self.channels not in (None, *CHANNELS):
            raise OptionError("channels", f"got {self.channels!r}", "gray, rgb or bgr")
        if self.align not in ("none", *FRAMINGS, "landmarks"):
            raise OptionError("align", f"got {self.align!r}", f"none, {', '.join(FRAMINGS)} or landmarks")
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
        return json.dumps(asdict(self), sort_keys=True, default=str)  # `network` cannot be hashed


Recognizer = Callable[[np.ndarray], np.ndarray]  # [1, C, side, side] float32 -> [1, D]


def embedding(
    image: np.ndarray,  # (H, W, 3) BGR uint8 of any size
    settings: RecognitionSettings,
    landmarks: np.ndarray | None = None,  # (5, 2) in pixels, with `align` of landmarks
) -> np.ndarray:
    """Embedding of a face: (D,) float64 of length 1; NaN if all values are 0.

    MissingFileError without weights or the network's package, CheckpointError for another network's weights,
    OptionError for wrong settings or an unknown network, ShapeError for a face to be aligned that is not square.
    """
    values = _recognizer(settings)(image, landmarks).astype(np.float64).reshape(-1)
    with np.errstate(invalid="ignore"):
        return values / np.linalg.norm(values)


@lru_cache(maxsize=2)
def _recognizer(settings: RecognitionSettings) -> Callable[[np.ndarray, np.ndarray | None], np.ndarray]:
    """A function from an image, (H, W, 3) BGR uint8, and its landmarks to the network's output."""
    if settings.onnx:
        network, face = onnx_recognizer(settings.onnx, settings.input_size, settings.channels, settings.device)
    else:
        network = registered_recognizer(settings.network, settings.weights, settings.device)
        default = _input_of(settings.network) if settings.network else GFPGAN_INPUT
        face = FaceInput(settings.input_size or default.side, settings.channels or default.channels)
    return lambda image, landmarks: network(network_input(image, settings, face, landmarks))


def load_recognizer(options: Mapping | None, weights: str | None, device: str = "cpu") -> torch.nn.Module:
    """A registered network, by default gfpgan's ArcFace, with its weights, frozen. Errors as in `embedding`."""
    file = WeightFile(Path(weights).name, "for identity", None, None) if options and weights else GFPGAN_WEIGHTS
    options = dict(options or GFPGAN_NETWORK)
    cls = _registered_class(options.pop("type", None))
    path = str(find_weights(file, weights))
    check(cls, options, "network")
    tensors = load_tensors(path, objects=True)
    inside = {name.removeprefix(_LIGHTNING): value for name, value in tensors.items() if name.startswith(_LIGHTNING)}
    with torch.random.fork_rng(devices=[]):  # its initial weights must not change the random numbers of a training
        return load_frozen(cls(**options), inside or tensors, path, select_device(device))


def _input_of(network: Mapping) -> FaceInput:
    """The input of a registered network: 112 px RGB, unless its class has other `image_channels`."""
    return FaceInput(ARCFACE_SIDE, getattr(resolve("arch", network.get("type")), "image_channels", "rgb"))


def registered_recognizer(options: Mapping | None, weights: str | None, device: str) -> Recognizer:
    """`load_recognizer`'s network as a function of images. OptionError: it does not take them."""
    network, chosen = load_recognizer(options, weights, device), select_device(device)

    def recognize(images: np.ndarray) -> np.ndarray:
        try:
            with torch.inference_mode():
                return network(torch.from_numpy(images).to(chosen)).cpu().numpy()
        except (RuntimeError, AttributeError) as error:  # an output that is no tensor has no `cpu`
            got = f"{type(network).__name__} makes no embedding of images of shape {images.shape}"
            hint = f"Change input_size or channels. ({str(error).splitlines()[0][:200]})"
            raise OptionError("network", got, hint=hint) from error

    return recognize


def onnx_recognizer(path: str, side: int | None, channels: str | None, device: str) -> tuple[Recognizer, FaceInput]:
    """Open an ONNX file and find its input: what the file fixes, else the arguments, else 112 px RGB.

    OptionError if the file fixes another size or number of channels; other errors as in `OnnxNetwork`.
    """
    # A name without a folder is searched for among the published weights, unless the current folder has such a file.
    file = WeightFile(Path(path).name, "for identity", None, None)
    given = None if path == file.name and not Path(path).is_file() else path
    network = open_onnx(str(find_weights(file, given, "onnx")), select_device(device))
    fixed = next((each for each in network.sides if each), None)
    if fixed and side not in (None, fixed):
        raise OptionError("input_size", f"got {side}", f"{fixed}, which {path} takes", "Remove the key.")
    face = FaceInput(fixed or side or ARCFACE_SIDE, channels or ("gray" if network.channels == 1 else "rgb"))
    if network.channels not in (None, CHANNELS[face.channels]):
        expected = f"an image of {network.channels} channels, which {path} takes"
        raise OptionError("channels", f"got {face.channels!r}", expected, "Remove the key.")
    return lambda images: next(iter(network(images).values())), face


def _registered_class(name: object) -> type:
    if resolve("arch", name) is None and name == GFPGAN_NETWORK["type"]:
        try:
            importlib.import_module("gfpgan.archs.arcface_arch")  # registers it
        except ImportError as error:
            got = f"ResNetArcFace comes with the package gfpgan, which cannot be imported ({error})"
            hint = "Run: pip install gfpgan. Or name another network, or an ONNX file."
            raise MissingFileError("network", got, hint=hint) from error
    found = resolve("arch", name)
    if found is None:
        raise unknown_name(name, sorted(registered("arch")), "network:type")
    return found


def network_input(
    image: np.ndarray, settings: RecognitionSettings, face: FaceInput, landmarks: np.ndarray | None = None
) -> np.ndarray:
    """Align, normalize and convert (H, W, 3) BGR uint8 to (1, C, side, side) float32, C = 1 or 3."""
    values = image.astype(np.float32)
    if settings.align == "landmarks":
        values = align_to_arcface(values, face.side, landmarks)
    elif settings.align in FRAMINGS:
        values = to_arcface(values, face.side, settings.align)
    else:  # no antialiasing, as in the training of these networks and in papers
        values = cv2.resize(values, (face.side, face.side), interpolation=cv2.INTER_LINEAR)
    values = (values - np.float32(settings.mean)) / np.float32(settings.std)
    if face.channels == "gray":
        values = (values @ LUMA)[..., None]  # [side, side, 1]
    elif face.channels == "rgb":
        values = values[..., ::-1]
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])  # [1, C, side, side]
