"""Enlarge the background of a photograph with any registered network, in tiles."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from gpen_plugin.checkpoints.download import WeightFile, find_weights
from gpen_plugin.config import schema
from gpen_plugin.config.schema import read_options
from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.images.color import from_float, to_float
from gpen_plugin.restore.network import (
    build_network,
    describe_network,
    load_network_weights,
    prepare_for_inference,
    seeded_init,
    to_network,
)

TILE_OVERLAP = 64  # pixels that a tile shares with the next
TILE_GRID = 32  # tiles start and end on it, so that networks that unshuffle or halve see all in the same phase
MIN_TILE = 2 * TILE_GRID

Run = Callable[[np.ndarray], np.ndarray]
"""(h, w, 3) float32 in [0, 1] to (h * scale, w * scale, 3) float32."""
Progress = Callable[[int, int], None]
"""Called with the number of finished tiles and of all tiles."""


@dataclass
class Tiles:
    """Apply a function of images to images of any size, in tiles.

    Neighboring tiles overlap by `TILE_OVERLAP` pixels. The outer quarter at each end is discarded; in between, the
    tiles are cross-faded. The result equals that of the whole image if a pixel depends on pixels up to a quarter of the
    overlap away, and has no seams in any case. If the device runs out of memory, tiles are halved, also for later
    images.

    Raises: OptionError: `side` is too small.
    """

    run: Run  # the function
    scale: int = 1  # of its results
    side: int = 512  # of a tile in pixels, `MIN_TILE` or more; rounded down to a multiple of `TILE_GRID`

    def __post_init__(self):
        if self.side < MIN_TILE:
            raise OptionError("tile", f"got {self.side}", f"{MIN_TILE} pixels or more", "The default is 512.")
        self.side = self.side // TILE_GRID * TILE_GRID

    def __call__(
        self,
        image: np.ndarray,  # (H, W, 3), uint8, uint16 or float32 in [0, 1]
        progress: Progress | None = None,  # called after each tile
    ) -> np.ndarray:
        """(H * scale, W * scale, 3), of the dtype of `image`. OptionError: too little memory for the smallest tiles."""
        return self._run_image(image, progress or _no_progress)

    def _run_image(self, image: np.ndarray, progress: Progress) -> np.ndarray:
        if max(image.shape[:2]) > self.side:
            return self._run_tiles(image, progress)
        try:
            result = from_float(self.run(to_float(image)), image.dtype)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            self._halve(max(image.shape[:2]), error)
        else:
            progress(1, 1)
            return result
        return self._run_image(image, progress)  # outside of the handler, which holds the tensors of the failed run

    def _run_tiles(self, image: np.ndarray, progress: Progress) -> np.ndarray:
        side, overlap = self.side, min(TILE_OVERLAP, self.side // 2)
        (height, width), scale = image.shape[:2], self.scale
        rows, columns = (_spans(length, side, overlap) for length in (height, width))
        ticks = itertools.count(1)
        result = np.empty((height * scale, width * scale, 3), image.dtype)
        down = _CrossFade(result, overlap * scale)
        for top, bottom in rows:
            row = np.empty(((bottom - top) * scale, width * scale, 3), np.float32)
            across = _CrossFade(row.swapaxes(0, 1), overlap * scale)
            for left, right in columns:
                tile = self._run_image(to_float(image[top:bottom, left:right]), _no_progress)
                across.put(left * scale, tile.swapaxes(0, 1))
                progress(next(ticks), len(rows) * len(columns))
            down.put(top * scale, row)
        return result

    def _halve(self, failed: int, error: Exception) -> None:
        if failed <= MIN_TILE:
            got = f"the device is out of memory with tiles of {failed} px ({str(error).strip().splitlines()[0]})"
            hint = "Use another device (cpu), or a smaller network."
            raise OptionError("tile", got, "free memory", hint) from error
        self.side = max(MIN_TILE, failed // 2 // TILE_GRID * TILE_GRID)
        torch.cuda.empty_cache()


class _CrossFade:
    """Writes overlapping pieces along the first axis of a canvas, cross-faded."""

    def __init__(
        self,
        canvas: np.ndarray,  # (L, W, 3), of any dtype
        overlap: int,  # of two pieces
    ):
        self._canvas = canvas
        self._overlap = overlap
        self._rest: np.ndarray | None = None  # the end of the last piece, that the next begins with

    def put(self, start: int, piece: np.ndarray) -> None:
        """Write the next piece, (l, W, 3) float32, from `start` on."""
        middle = start
        if self._rest is not None:
            overlap, middle = piece[: self._overlap], start + self._overlap
            faded = self._rest + (overlap - self._rest) * _ramp(self._overlap)[:, None, None]
            self._canvas[start:middle] = from_float(faded, self._canvas.dtype)
        self._canvas[middle : start + len(piece)] = from_float(piece[middle - start :], self._canvas.dtype)
        self._rest = piece[len(piece) - self._overlap :].copy()  # so that the piece itself can go


def _no_progress(done: int, total: int) -> None: ...


def _ramp(length: int) -> np.ndarray:
    """0 in the first quarter, 1 in the last, linear in between: (length,) float32."""
    positions = (np.arange(length, dtype=np.float32) + 0.5) / length
    return np.clip(2 * positions - 0.5, 0, 1)


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    """Starts and ends of tiles of `side` that overlap by `overlap`; the last one may be shorter."""
    starts = range(0, max(length - overlap, 1), side - overlap)
    return [(start, min(start + side, length)) for start in starts]


def _is_out_of_memory(error: Exception) -> bool:
    """Only CUDA has an exception class of its own."""
    messages = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(text in str(error) for text in messages)


PAD_MULTIPLE = 16  # pixels; the input is padded to it, as some networks halve or unshuffle it
PROGRESS_DELAY = 3  # seconds; an image that takes longer shows a progress bar


@dataclass(frozen=True)
class _Published:
    """A network with published weights."""

    scale: int  # factor by which it enlarges
    network: Mapping  # its option section, as BasicSR's ``network_g``
    file: WeightFile  # its weights


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
    """Keys of ``path`` in a BasicSR option file."""

    pretrain_network_g: str  # weight file
    param_key_g: str | None = None  # entry of it; ~ takes params_ema, else params, else a flat file
    strict_load_g: bool = True  # whether all tensors must match


class Background:
    """A super-resolution network as a function of images."""

    def __init__(
        self,
        net: nn.Module,  # RGB in [0, 1], (1, 3, H, W), H and W multiples of `PAD_MULTIPLE`
        scale: int,  # factor by which it enlarges
        device: torch.device,  # where it computes
        tile: int,  # side of the tiles, in pixels of the input
        description: str,  # of network and weights; scale and tiles are added
    ):
        self._net, self._device, self.scale = prepare_for_inference(net, device), device, scale
        self._tiles = Tiles(self._upscale, scale, tile)
        self.description = f"{description}; {scale} times, in tiles of {self._tiles.side} px"

    def __call__(
        self,
        image: np.ndarray,  # (H, W, 3) BGR, uint8 or uint16, of any size
    ) -> np.ndarray:
        """Enlarge an image, with a progress bar if that takes long.

        Returns: (H * scale, W * scale, 3), of the same dtype.
        Raises:
            ShapeError: `image` is not a color image, or the network's output is not an image.
            OptionError: the network does not enlarge by `scale`, or the memory does not suffice for small tiles.
        """
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ShapeError("image", f"got {image.shape}", "(H, W, 3) in BGR order, H and W of at least 1")
        if image.dtype not in (np.uint8, np.uint16):
            raise ShapeError("image", f"got {image.dtype}", "uint8 or uint16")
        with tqdm(desc="background", unit="tile", leave=False, delay=PROGRESS_DELAY) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            return self._tiles(image, progress)

    @torch.inference_mode()
    def _upscale(self, tile: np.ndarray) -> np.ndarray:
        height, width = tile.shape[:2]
        padded = np.pad(tile, ((0, -height % PAD_MULTIPLE), (0, -width % PAD_MULTIPLE), (0, 0)), mode="reflect")
        batch = to_network(padded, (0, 1))[None].to(self._device)  # (1, 3, H, W)
        output = self._net(batch)
        self._check(output, batch)
        output = output[0, :, : height * self.scale, : width * self.scale]
        return output.flip(0).permute(1, 2, 0).float().cpu().numpy()  # (h * scale, w * scale, 3), BGR

    def _check(self, output: object, batch: torch.Tensor) -> None:
        name, (height, width) = type(self._net).__name__, batch.shape[2:]
        if not isinstance(output, torch.Tensor):
            raise ShapeError("background", f"{name} gives a {type(output).__name__}", "a network that gives an image")
        if output.ndim != 4 or output.shape[:2] != (1, 3):
            got = f"{name} gives a tensor {tuple(output.shape)} for {tuple(batch.shape)}"
            raise ShapeError("background", got, "an image (1, 3, H, W)")
        if output.shape[2:] != (height * self.scale, width * self.scale):
            got = f"{name} gives {tuple(output.shape[2:])} for an image of {(height, width)}"
            expected = f"{self.scale} times as much, as set by scale"
            raise OptionError("background:scale", got, expected, "Set scale to the factor of the network.")
        if not output.isfinite().all():
            got = f"{name} gives values that are not finite"
            raise OptionError("background", got, "finite values", "Its weights are damaged: download them again.")


def open_background(
    # of a published network (see `PUBLISHED`), or the path of a BasicSR option file. Its keys ``scale``, ``network_g``
    # and those of `NetworkFile` in ``path`` are read. The type of ``network_g`` is a name in BasicSR's registry or the
    # dotted path of a class. RGB in [0, 1], as in BasicSR's SRModel
    name: str,
    *,
    device: torch.device,  # where it computes
    tile: int = 512,  # side of the tiles, in pixels of the input
    weights: str | None = None,  # weight file, in place of the published one or of that in the option file
) -> Background:
    """Open a network that enlarges photographs.

    Raises:
        OptionError: there is no such network, or a key of its option file is wrong.
        MissingFileError: a published file cannot be found or downloaded.
        CheckpointError: a file cannot be read, or is that of another network.
    """
    if name in PUBLISHED:
        published = PUBLISHED[name]
        scale, section, where = published.scale, published.network, f"background {name}"
        file = NetworkFile(str(find_weights(published.file, weights, where)))
    elif Path(name).suffix.lower() in (".yml", ".yaml"):
        where = name
        scale, section, file = _read_option_file(name, weights)
    else:
        expected = f"one of {', '.join(PUBLISHED)}, or an option file (.yml)"
        hint = "The option file can name any network of BasicSR's registry."
        raise OptionError("background", f"got {name!r}", expected, hint)
    net = seeded_init(lambda: build_network(section, f"{where}: network_g"))
    left = load_network_weights(net, file.pretrain_network_g, file.param_key_g, f"{where}: path", file.strict_load_g)
    lacking = f", without {left} of the network's tensors" if left else ""
    described = f"{describe_network(section, net)}; {Path(file.pretrain_network_g).name}{lacking}"
    return Background(net, scale, device, tile, described)


def _read_option_file(name: str, weights: str | None) -> tuple[int, Mapping, NetworkFile]:
    """Scale, ``network_g`` and weights of an option file; other sections are ignored."""
    options = read_options(name, where="background")
    scale, section, paths = (options.get(key) for key in ("scale", "network_g", "path"))
    if not schema.matches_type(scale, int) or not 1 <= scale <= 16:
        got = "missing" if scale is None else f"got {scale!r}"
        raise OptionError(f"{name}: scale", got, "a whole number from 1 to 16: how much the network enlarges")
    if not isinstance(section, Mapping):
        got = "missing" if section is None else f"got {section!r}"
        raise OptionError(f"{name}: network_g", got, "the network's type and arguments")
    given = {key: value for key, value in (paths or {}).items() if str(key).endswith("_g")}
    if weights is not None:
        given["pretrain_network_g"] = weights
    return scale, section, schema.build(NetworkFile, given, f"{name}: path")
