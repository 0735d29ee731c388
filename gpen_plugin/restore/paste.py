"""Paste restored faces into the photograph.

The network's output replaces what the network saw. Detail of the photograph finer than the crop stays, weighted by how
much of the finest visible detail the network kept: where it changed nothing, the photograph stays as it is; where it
removed noise, the finer noise is removed, too.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.restore.alignment import (
    WHITE,
    invert_affine,
    resample,
    scale_affine,
    scale_of,
    translate_affine,
    warp,
    warp_bbox,
)
from gpen_plugin.restore.parallel import parallel_map

DETAIL_RADIUS = 0.05  # of the side: window in which the kept detail is measured; 0.02 to 0.1 work as well
MIN_DETAIL_ENERGY = 1e-8  # squared value, below which no detail can be measured
BAND_ROWS = 1024  # rows at once, which limits the memory of a huge face

Region = tuple[slice, slice]
"""Rows and columns of the canvas."""


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
        new = resample(change, back, size) + resample(kept, back, size)[..., None] * region
        region += weight[..., None] * (new - region)
        canvas[rows, columns] = np.rint(region.clip(0, 1) * white)


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
