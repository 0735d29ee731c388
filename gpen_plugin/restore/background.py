"""The rest of a photograph, outside of the faces: enlarged in tiles by any super-resolution network of BasicSR."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from gpen_plugin import schema
from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.fetch import WeightFile, find_weights
from gpen_plugin.option_file import read_options
from gpen_plugin.restore.face_network import ready
from gpen_plugin.restore.named_network import build_network, drawn, load, shown_network
from gpen_plugin.restore.network_pictures import to_network
from gpen_plugin.restore.tiles import Tiles

GRID = 16  # pixels: sides of what a network is given are multiples, as some halve or unshuffle their input
PATIENCE = 3  # seconds; a picture that takes longer shows a progress bar


@dataclass(frozen=True)
class _Published:
    """A network whose weights somebody has published.

    Args:
        scale: how much it enlarges.
        network: its option section, as the host's ``network_g``.
        file: its weights.
    """

    scale: int
    network: Mapping
    file: WeightFile


def _real_esrgan(scale: int, version: str, sha256: str) -> _Published:
    name = f"RealESRGAN_x{scale}plus.pth"
    url = f"https://github.com/xinntao/Real-ESRGAN/releases/download/{version}/{name}"
    sizes = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 64, "num_block": 23, "num_grow_ch": 32}
    file = WeightFile(name, f"Real-ESRGAN, enlarges backgrounds {scale} times", url, sha256)
    return _Published(scale, {"type": "RRDBNet", **sizes, "scale": scale}, file)


PUBLISHED = {
    "RealESRGAN_x2plus": _real_esrgan(2, "v0.2.1", "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb"),
    "RealESRGAN_x4plus": _real_esrgan(4, "v0.1.0", "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1"),
}


@dataclass(frozen=True)
class NetworkFile:
    """The keys of ``path`` in an option file of the host that tell of the network's weights.

    Args:
        pretrain_network_g: the file.
        param_key_g: entry of it; ~ takes params_ema, else params, else what a flat file holds.
        strict_load_g: whether all tensors have to fit.
    """

    pretrain_network_g: str
    param_key_g: str | None = None
    strict_load_g: bool = True


class Background:
    """A super-resolution network as a function from pictures to larger ones.

    Attributes:
        scale: how much larger.
        description: the network, its weights and its tiles.

    Args:
        net: takes and gives RGB in [0, 1], (1, 3, H, W), of any H and W that are multiples of `GRID`.
        scale: how much it enlarges.
        device: where it computes.
        tile: side of the tiles, in pixels of the input.
        description: of the network and its weights.
    """

    def __init__(self, net: nn.Module, scale: int, device: torch.device, tile: int, description: str):
        self._net, self._device, self.scale = ready(net, device), device, scale
        self._tiles = Tiles(self._enlarged, scale, tile)
        self.description = f"{description}; {scale} times, in tiles of {self._tiles.side} px"

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Enlarge a picture. If that takes long, a bar on the terminal shows how much is done.

        Args:
            picture: (H, W, 3) BGR, uint8 or uint16, of any size.
        Returns:
            (H * scale, W * scale, 3), of the same dtype.
        Raises:
            ShapeError: `picture` is no colour picture; or the network gives something else than larger pictures.
            OptionError: the network does not enlarge by `scale`; or there is no memory even for small tiles.
        """
        if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise ShapeError("picture", f"got {picture.shape}", "(H, W, 3) in BGR order, H and W of at least 1")
        if picture.dtype not in (np.uint8, np.uint16):
            raise ShapeError("picture", f"got {picture.dtype}", "uint8 or uint16")
        with tqdm(desc="background", unit="tile", leave=False, delay=PATIENCE) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            return self._tiles(picture, progress)

    @torch.inference_mode()
    def _enlarged(self, tile: np.ndarray) -> np.ndarray:
        height, width = tile.shape[:2]
        padded = np.pad(tile, ((0, -height % GRID), (0, -width % GRID), (0, 0)), mode="reflect")
        batch = to_network(padded, (0, 1))[None].to(self._device)  # (1, 3, H, W)
        output = self._net(batch)
        self._check(output, batch)
        output = output[0, :, : height * self.scale, : width * self.scale]
        return output.flip(0).permute(1, 2, 0).float().cpu().numpy()  # (h * scale, w * scale, 3), BGR

    def _check(self, output: object, batch: torch.Tensor) -> None:
        name, (height, width) = type(self._net).__name__, batch.shape[2:]
        if not isinstance(output, torch.Tensor):
            raise ShapeError("background", f"{name} gives a {type(output).__name__}", "a network that gives a picture")
        if output.ndim != 4 or output.shape[:2] != (1, 3):
            came = f"{name} gives a tensor {tuple(output.shape)} for {tuple(batch.shape)}"
            raise ShapeError("background", came, "a picture (1, 3, H, W)")
        if output.shape[2:] != (height * self.scale, width * self.scale):
            came = f"{name} gives {tuple(output.shape[2:])} for a picture of {(height, width)}"
            expected = f"{self.scale} times as much, as scale says"
            raise OptionError("background:scale", came, expected, "Set scale to what the network does.")
        if not output.isfinite().all():
            came = f"{name} gives values that are no numbers"
            raise OptionError("background", came, "finite values", "Its weights are damaged: fetch them again.")


def open_background(name: str, *, device: torch.device, tile: int = 512, weights: str | None = None) -> Background:
    """Open a network that enlarges photographs.

    Args:
        name: of a published network (see `PUBLISHED`), or the path of an option file in BasicSR's own form, of which
            ``scale``, ``network_g`` and of ``path`` the keys of `NetworkFile` are read. The type of ``network_g`` is a
            name in BasicSR's registry or the dotted path of a class. The network takes and gives RGB in [0, 1], as
            under BasicSR's SRModel.
        device: where it computes.
        tile: side of the tiles, in pixels of the input.
        weights: the network's file, in place of the published one or of that in the option file.
    Raises:
        OptionError: there is no such network, or a key of its option file is wrong.
        MissingFileError: a published file can neither be found nor fetched.
        CheckpointError: a file cannot be read, or is of another network.
    """
    if name in PUBLISHED:
        published = PUBLISHED[name]
        scale, section, where = published.scale, published.network, f"background {name}"
        file = NetworkFile(str(find_weights(published.file, weights, where)))
    elif Path(name).suffix.lower() in (".yml", ".yaml"):
        where = name
        scale, section, file = _in_option_file(name, weights)
    else:
        expected = f"one of {', '.join(PUBLISHED)}, or an option file (.yml)"
        way_out = "Such a file names any network of BasicSR's registry."
        raise OptionError("background", f"got {name!r}", expected, way_out)
    net = drawn(lambda: build_network(section, f"{where}: network_g"))
    left = load(net, file.pretrain_network_g, file.param_key_g, f"{where}: path", file.strict_load_g)
    lacking = f", which lacks {left} of the network's tensors" if left else ""
    described = f"{shown_network(section, net)}; {Path(file.pretrain_network_g).name}{lacking}"
    return Background(net, scale, device, tile, described)


def _in_option_file(name: str, weights: str | None) -> tuple[int, Mapping, NetworkFile]:
    """Scale, ``network_g`` and weights of an option file; its other sections tell of other things."""
    options = read_options(name, where="background")
    scale, section, paths = (options.get(key) for key in ("scale", "network_g", "path"))
    if not schema.fits(scale, int) or not 1 <= scale <= 16:
        came = "missing" if scale is None else f"got {scale!r}"
        raise OptionError(f"{name}: scale", came, "a whole number from 1 to 16: how much the network enlarges")
    if not isinstance(section, Mapping):
        came = "missing" if section is None else f"got {section!r}"
        raise OptionError(f"{name}: network_g", came, "the network's type and arguments")
    given = {key: value for key, value in (paths or {}).items() if str(key).endswith("_g")}
    if weights is not None:
        given["pretrain_network_g"] = weights
    return scale, section, schema.build(NetworkFile, given, f"{name}: path")
