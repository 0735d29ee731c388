"""Paste restored faces into the photograph, under soft masks or masks along the outline of face and hair.

The network's output replaces what the network saw. Detail of the photograph finer than the crop stays, weighted by how
much of the finest visible detail the network kept: where it changed nothing, the photograph stays as it is; where it
removed noise, the finer noise is removed, too.
"""

import importlib.util
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import cv2
import numpy as np
import torch

from gpen_plugin.checkpoints.download import WeightFile, find_local, find_weights
from gpen_plugin.errors import INSTALL_FACEXLIB, MissingFileError, OptionError, ShapeError
from gpen_plugin.nets.loading import load_frozen, load_tensors
from gpen_plugin.restore.alignment import (
    TEMPLATES,
    WHITE,
    compose,
    invert_affine,
    resample,
    scale_affine,
    scale_of,
    template_to_template,
    translate_affine,
    warp,
    warp_bbox,
)
from gpen_plugin.restore.parallel import parallel_map

PARSENET = WeightFile(
    "parsing_parsenet.pth",
    "ParseNet, which part of a face is where",
    "https://github.com/xinntao/facexlib/releases/download/v0.2.2/parsing_parsenet.pth",
    "3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
)
PARSENET_SIDE = 512  # pixels of the faces that ParseNet was trained on, in FFHQ's framing
CLASSES = 19
NO_FACE = (0, 14, 16, 17, 18)  # background, hat, necklace, neck, clothes; the others are skin, features, hair, earrings
FACEXLIB_HINT = f"Run: {INSTALL_FACEXLIB}. Or use mask soft."
FEATHER = 0.03  # of the side: standard deviation of the parsing mask's soft edge
CHIN_OFFSET = 0.75  # of the chin below the mouth, in distances of eyes and mouth
UNUSED_BORDER = 0.04  # of half the side: a network's outermost columns are off, as it pads with zeros there
MIN_FADE, MAX_FADE = 0.15, 0.3  # width of the fade of a soft mask, of half the side
ROUNDNESS = 4  # exponent: 2 is an ellipse, many are a square
DETAIL_RADIUS = 0.05  # of the side: window in which the kept detail is measured; 0.02 to 0.1 work as well
MIN_DETAIL_ENERGY = 1e-8  # squared value, below which no detail can be measured
BAND_ROWS = 64  # rows at once: they fit into the cache, and a huge face needs little memory

Region = tuple[slice, slice]
"""Rows and columns of the canvas."""


class MaskMaker(Protocol):
    """Makes masks for restored faces."""

    name: str  # ``soft`` or ``parsing``
    notice: str  # one line for the user

    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Masks, (S, S) float32 in [0, 1], of restored faces, (S, S, 3) BGR float32 in [0, 1]."""


def soft_mask(
    template: np.ndarray,  # (5, 2), fractions of the side. The closer the face to the border, the narrower the fade
    size: int,  # side in pixels
) -> np.ndarray:
    """A rounded square, (size, size) float32: 1 over the face down to the chin, 0 with zero slope at the border."""
    eyes, mouth = template[:2].mean(axis=0), template[3:].mean(axis=0)
    chin = mouth + CHIN_OFFSET * (mouth - eyes)
    fade = float(np.clip(1 - UNUSED_BORDER - _distance(*np.abs(2 * chin - 1)), MIN_FADE, MAX_FADE))
    along = np.abs((np.arange(size) + 0.5) * (2 / size) - 1)
    inside = ((1 - UNUSED_BORDER - _distance(along[:, None], along)) / fade).clip(0, 1)
    return (inside * inside * (3 - 2 * inside)).astype(np.float32)


def replace_border(
    restored: np.ndarray,  # (T, U, 3) float32 in [0, 1]
    crop: np.ndarray,  # (H, W, 3) float32 in [0, 1], the input before resizing
) -> np.ndarray:
    """Replace the outermost columns and rows of a restored face, which zero padding spoils, by those of the input.

    Returns: (T, U, 3) float32 in [0, 1].
    """
    height, width = restored.shape[:2]
    rows, columns = (np.abs((np.arange(side) + 0.5) * (2 / side) - 1) for side in (height, width))
    inside = ((1 - np.maximum(rows[:, None], columns)) / UNUSED_BORDER - 1).clip(0, 1)
    weight = (inside * inside * (3 - 2 * inside)).astype(np.float32)[:, :, None]
    shown = cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR)
    return shown + weight * (restored - shown)


def _distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """0 in the middle, 1 at the border of the rounded square."""
    return (x**ROUNDNESS + y**ROUNDNESS) ** (1 / ROUNDNESS)


class SoftMask:
    """One `soft_mask` for all faces of a template."""

    name = "soft"

    def __init__(self, template: np.ndarray, notice: str = "soft, faded towards the borders of each face"):
        self._template, self.notice = template, notice

    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        masks = {size: soft_mask(self._template, size) for size in {len(face) for face in faces}}
        return [masks[len(face)] for face in faces]


class ParsingMask:
    """Masks along the outline of face and hair, by facexlib's ParseNet.

    Raises:
        MissingFileError: the weights or facexlib are missing.
        CheckpointError: the weights cannot be read, or are those of another network.
    """

    name = "parsing"

    def __init__(
        self,
        template: np.ndarray,  # (5, 2), fractions of the side: alignment of the faces
        device: str | torch.device = "cpu",  # of the network
        *,
        download: bool = True,  # whether missing weights may be downloaded
    ):
        found = find_local(PARSENET) or _facexlib_copy()
        if found is None and not download:
            raise MissingFileError("mask", f"{PARSENET.name} is not on this machine")
        file = str(found or _download())  # before facexlib, which takes seconds
        self._network = load_frozen(_build_parsenet(), load_tensors(file), file, torch.device(device))
        self._device, self._template = torch.device(device), template
        self.notice = "parsing, the outline of each face and its hair, by facexlib's ParseNet"

    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._mask(face) for face in faces]

    def _mask(self, face: np.ndarray) -> np.ndarray:
        size = len(face)
        framed = template_to_template(self._template, size, TEMPLATES["ffhq"], PARSENET_SIDE)
        aligned = warp(face, framed, (PARSENET_SIDE, PARSENET_SIDE))
        rgb = np.ascontiguousarray(aligned[..., ::-1].transpose(2, 0, 1)[None])  # (1, 3, 512, 512)
        with torch.inference_mode():
            scores, _ = self._network(torch.from_numpy(rgb).to(self._device) * 2 - 1)  # (1, 19, 512, 512)
        label = scores[0].argmax(dim=0).cpu().numpy()
        outline = cv2.GaussianBlur((~np.isin(label, NO_FACE)).astype(np.float32), (0, 0), FEATHER * PARSENET_SIDE)
        return warp(outline, invert_affine(framed), (size, size)) * soft_mask(self._template, size)


def open_mask(
    # ``auto`` is ``parsing`` if its weights are on this machine, else ``soft``
    name: Literal["auto", "soft", "parsing"] = "auto",
    device: str | torch.device = "cpu",  # of the network
    template: np.ndarray = TEMPLATES["ffhq"],  # (5, 2), fractions of the side: alignment of the faces
) -> MaskMaker:
    """Open the masks of a name.

    Raises:
        OptionError: there are no such masks.
        MissingFileError, CheckpointError: see `ParsingMask`.
    """
    if name == "soft":
        return SoftMask(template)
    if name == "parsing":
        return ParsingMask(template, device)
    if name != "auto":
        raise OptionError("mask", f"got {name!r}", "auto, soft or parsing")
    try:
        return ParsingMask(template, device, download=False)
    except MissingFileError:
        return SoftMask(template)


def normalize_overlaps(
    masks: Sequence[np.ndarray],  # (S, S) float32 in [0, 1] each
    matrices: Sequence[np.ndarray],  # (2, 3) each, from the photograph to the frame of the mask
) -> list[np.ndarray]:
    """Reduce masks that overlap earlier ones, so that pasting in order gives the mean weighted by the squared masks."""
    touching, reduced = _overlapping([len(mask) for mask in masks], matrices), []
    for i, (mask, matrix) in enumerate(zip(masks, matrices, strict=True)):
        earlier = np.zeros_like(mask)
        for j in np.flatnonzero(touching[i, :i]):
            onto = compose(invert_affine(matrices[j]), matrix)
            earlier += cv2.warpAffine(masks[j], onto, mask.shape[::-1], flags=cv2.INTER_LINEAR) ** 2
        own = mask**2
        reduced.append(np.where(earlier > 0, mask * own / np.maximum(own + earlier, 1e-12), mask).astype(np.float32))
    return reduced


def _overlapping(sides: Sequence[int], matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Whether the circles around two frames intersect in the photograph, for each pair: (N, N) bool."""
    backs = [invert_affine(matrix) for matrix in matrices]
    middles = [back @ ((side - 1) / 2, (side - 1) / 2, 1) for side, back in zip(sides, backs, strict=True)]
    middles = np.reshape(middles, (-1, 2))  # (N, 2), of no faces too
    radii = np.array([side * scale_of(back) * math.sqrt(0.5) for side, back in zip(sides, backs, strict=True)])
    apart = np.linalg.norm(middles[:, None] - middles, axis=2)  # (N, N)
    return apart <= radii[:, None] + radii


def _build_parsenet() -> torch.nn.Module:
    try:
        from facexlib.parsing.parsenet import ParseNet
    except ImportError as error:
        got = f"the package facexlib cannot be imported ({error})"
        raise MissingFileError("mask", got, hint=FACEXLIB_HINT) from error
    with torch.device("meta"):  # draws no random numbers
        return ParseNet(in_size=PARSENET_SIDE, out_size=PARSENET_SIDE, parsing_ch=CLASSES)


def _download() -> Path:
    if importlib.util.find_spec("facexlib") is None:  # before the download, which would be useless
        raise MissingFileError("mask", "the package facexlib is not installed", hint=FACEXLIB_HINT)
    return find_weights(PARSENET, where="mask")


def _facexlib_copy() -> Path | None:
    spec = importlib.util.find_spec("facexlib")
    folders = spec.submodule_search_locations if spec else []
    files = (Path(folder) / "weights" / PARSENET.name for folder in folders)
    return next((file for file in files if file.is_file()), None)


class Piece(NamedTuple):
    """A face to be pasted into the canvas."""

    crop: np.ndarray  # (S, S, 3) float32 in [0, 1], the network's input
    restored: np.ndarray  # (T, T, 3) float32 in [0, 1], its output
    matrix: np.ndarray  # (2, 3), from the canvas to the crop
    mask: np.ndarray  # (M, M) float32 in [0, 1], opacity of the restored face, in the frame of the crop


def paste_all(canvas: np.ndarray, pieces: Sequence[Piece], alpha: float = 1.0) -> None:
    """Paste in order; faces that do not overlap are pasted in parallel."""
    for apart in _rounds(canvas, pieces):
        parallel_map(lambda piece: paste(canvas, piece, alpha), apart)


def paste(
    # (H, W, 3) BGR, uint8 or uint16: the photograph, possibly enlarged, possibly with other faces pasted
    canvas: np.ndarray,
    piece: Piece,  # the face
    alpha: float = 1.0,  # weight; 0 leaves the canvas unchanged
) -> None:
    """Paste a restored face, in place.

    Raises:
        ShapeError: a canvas that is not (H, W, 3) uint8 or uint16, or a face or mask that is not square.
        OptionError: alpha is not in [0, 1].
    """
    crop, restored, matrix, mask = piece
    _check(canvas, crop, restored, mask, alpha)
    side = len(restored)
    finer = _to_restored(piece)
    seen = warp(canvas, finer, (side, side))
    kept = cv2.resize(_detail_gain(crop, restored, scale_of(matrix)), (side, side), interpolation=cv2.INTER_LINEAR)
    change = restored - kept[..., None] * seen
    cover = scale_affine(matrix, target=len(mask) / len(crop))
    white = WHITE[canvas.dtype]
    for rows, columns in _bands(*_region(canvas, piece)):
        region = canvas[rows, columns].astype(np.float32) / np.float32(white)
        size = region.shape[1::-1]
        back = invert_affine(translate_affine(finer, rows, columns))
        weight = np.float32(alpha) * cv2.warpAffine(mask, invert_affine(translate_affine(cover, rows, columns)), size)
        new = resample(kept, back, size)[..., None] * region
        new += resample(change, back, size)
        new -= region
        new *= weight[..., None]
        region += new
        canvas[rows, columns] = np.rint(region.clip(0, 1, out=region) * white)


def coverage(size: tuple[int, int], pieces: Sequence[Piece], alpha: float = 1.0) -> np.ndarray:
    """The weight of the restored faces in each pixel of a canvas of this height and width: float32 in [0, 1]."""
    rest = np.ones(size, np.float32)  # weight of the canvas
    for piece in pieces:
        back = invert_affine(scale_affine(piece.matrix, target=len(piece.mask) / len(piece.crop)))
        rest *= 1 - np.float32(alpha) * cv2.warpAffine(piece.mask, back, size[::-1])
    return 1 - rest


def _rounds(canvas: np.ndarray, pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Pieces in one round do not overlap; overlapping pieces keep their order."""
    regions = [_region(canvas, piece) for piece in pieces]
    numbers: list[int] = []
    for i, region in enumerate(regions):
        before = [number for number, other in zip(numbers, regions[:i], strict=True) if _overlap(region, other)]
        numbers.append(max(before, default=-1) + 1)
    return [
        [piece for piece, its in zip(pieces, numbers, strict=True) if its == number]
        for number in range(max(numbers, default=-1) + 1)
    ]


def _region(canvas: np.ndarray, piece: Piece) -> Region:
    side = len(piece.restored)
    return warp_bbox(_to_restored(piece), (side, side), canvas.shape[1::-1])


def _overlap(one: Region, other: Region) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def _to_restored(piece: Piece) -> np.ndarray:
    return scale_affine(piece.matrix, target=len(piece.restored) / len(piece.crop))


def _detail_gain(crop: np.ndarray, restored: np.ndarray, scale: float) -> np.ndarray:
    """Weight of the crop's finest detail in the restored face: the Wiener gain, by local least squares.

    Returns: (S, S) float32 in [0, 1], exactly 1 where both are the same.
    """
    side = len(crop)
    given = cv2.resize(restored, (side, side), interpolation=cv2.INTER_AREA)
    finest = max(1.0, scale)  # pixels: a small face that was enlarged has no finer detail than its own pixels
    before, after = (face - cv2.GaussianBlur(face, (0, 0), finest) for face in (crop, given))
    over_channels = np.ones((1, 3), np.float32)  # as the matrix of a new channel: many times quicker than `sum`
    common, own = (
        cv2.GaussianBlur(cv2.transform(before * other, over_channels), (0, 0), max(1.0, DETAIL_RADIUS * side))
        for other in (after, before)
    )
    return ((common + MIN_DETAIL_ENERGY) / (own + MIN_DETAIL_ENERGY)).clip(0, 1)


def _bands(rows: slice, columns: slice) -> Iterator[tuple[slice, slice]]:
    for start in range(rows.start, rows.stop, BAND_ROWS):
        yield slice(start, min(start + BAND_ROWS, rows.stop)), columns


def _check(canvas: np.ndarray, crop: np.ndarray, restored: np.ndarray, mask: np.ndarray, alpha: float) -> None:
    if canvas.ndim != 3 or canvas.shape[2] != 3 or canvas.dtype not in (np.uint8, np.uint16):
        raise ShapeError("canvas", f"got {canvas.shape} {canvas.dtype}", "(H, W, 3) uint8 or uint16 in BGR order")
    for name, image, channels in (("crop", crop, (3,)), ("restored", restored, (3,)), ("mask", mask, ())):
        if image.ndim < 2 or image.shape != (len(image), len(image), *channels):
            expected = f"(S, S{', 3' if channels else ''}) float32 in [0, 1]"
            raise ShapeError(name, f"got shape {image.shape}", expected)
    if not 0 <= alpha <= 1:
        raise OptionError("alpha", f"got {alpha}", "a number from 0 to 1")
