"""Face-recognition networks: any that is registered in the host, with its weights, or an ONNX file."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gpen_plugin.errors import MissingFileError, OptionError
from gpen_plugin.fetch import WeightFile, find_weights
from gpen_plugin.host import registered, resolve
from gpen_plugin.metrics.face_templates import ARCFACE_SIDE
from gpen_plugin.metrics.measuring_network import chosen_device, frozen, tensors_in
from gpen_plugin.metrics.onnx_file import open_onnx
from gpen_plugin.schema import check, unknown_name

Recogniser = Callable[[np.ndarray], np.ndarray]  # (1, C, side, side) float32 -> (1, D)

CHANNELS = {"gray": 1, "rgb": 3, "bgr": 3}
GFPGANS = {"type": "ResNetArcFace", "block": "IRBlock", "layers": [2, 2, 2, 2], "use_se": False}
GFPGANS_WEIGHTS = WeightFile(
    "arcface_resnet18.pth",
    "ArcFace as gfpgan uses it, for identity",
    "https://github.com/TencentARC/GFPGAN/releases/download/v0.1.0/arcface_resnet18.pth",
    None,
)


@dataclass(frozen=True)
class FaceInput:
    """What a network takes.

    Attributes:
        side: in pixels.
        channels: one of `CHANNELS`.
    """

    side: int
    channels: str


GFPGANS_INPUT = FaceInput(128, "gray")


def registered_recogniser(options: Mapping | None, weights: str | None, device: str) -> Recogniser:
    """Build a registered network and load its weights.

    Args:
        options: ``type`` and arguments, as in ``network_g``; None is gfpgan's ResNetArcFace.
        weights: path of its file; gfpgan's is looked for where none is given.
        device: ``auto``, ``cpu`` or ``cuda``.
    Raises:
        OptionError: the network is not registered, or does not take these arguments.
        MissingFileError: the file, or the package gfpgan, is missing.
        CheckpointError: the file cannot be read, or is of another network.
    """
    file = WeightFile(Path(weights).name, "for identity", None, None) if options else GFPGANS_WEIGHTS
    options = dict(options or GFPGANS)
    cls = _registered_class(options.pop("type", None))
    path = str(find_weights(file, weights))
    check(cls, options, "network")
    chosen = chosen_device(device)
    with torch.random.fork_rng(devices=[]):  # a training counts on its random numbers, and this network draws some
        network = frozen(cls(**options), tensors_in(path), path, chosen)

    def recognise(pictures: np.ndarray) -> np.ndarray:
        try:
            with torch.inference_mode():
                return network(torch.from_numpy(pictures).to(chosen)).cpu().numpy()
        except (RuntimeError, AttributeError) as error:  # what is no tensor has no `cpu`
            came = f"{cls.__name__} makes no embedding of pictures of shape {pictures.shape}"
            way_out = f"Mend input_size or channels. ({str(error).splitlines()[0][:200]})"
            raise OptionError("network", came, way_out=way_out) from error

    return recognise


def onnx_recogniser(path: str, side: int | None, channels: str | None, device: str) -> tuple[Recogniser, FaceInput]:
    """Open an ONNX file and settle what it takes: what the file says, else what is given, else 112 px RGB.

    A mere name is looked for where published weights are, unless it is a file of the current folder.

    Raises:
        OptionError: the file fixes another size or number of channels than given.
        MissingFileError: the file, or the package onnxruntime, is missing.
        CheckpointError: it is damaged, or no network of one picture.
    """
    file = WeightFile(Path(path).name, "for identity", None, None)
    given = None if path == file.name and not Path(path).is_file() else path
    network = open_onnx(str(find_weights(file, given, "onnx")), chosen_device(device))
    fixed = next((each for each in network.sides if each), None)
    if fixed and side not in (None, fixed):
        raise OptionError("input_size", f"got {side}", f"{fixed}, which {path} takes", "Leave the key out.")
    face = FaceInput(fixed or side or ARCFACE_SIDE, channels or ("gray" if network.channels == 1 else "rgb"))
    if network.channels not in (None, CHANNELS[face.channels]):
        expected = f"a picture of {network.channels} channels, which {path} takes"
        raise OptionError("channels", f"got {face.channels!r}", expected, "Leave the key out.")
    return lambda pictures: next(iter(network(pictures).values())), face


def _registered_class(name: object) -> type:
    if resolve("arch", name) is None and name == GFPGANS["type"]:
        try:
            importlib.import_module("gfpgan.archs.arcface_arch")  # registers it
        except ImportError as error:
            came = f"ResNetArcFace comes with the package gfpgan, which cannot be imported ({error})"
            way_out = "Run: pip install gfpgan. Or name another network, or an ONNX file."
            raise MissingFileError("network", came, way_out=way_out) from error
    found = resolve("arch", name)
    if found is None:
        raise unknown_name(name, sorted(registered("arch")), "network:type")
    return found
