"""Putting restored faces back into the photograph.

What a network gives takes the place of what it was shown, and no more: the detail of the photograph that is finer than
the crop, which the network could not see, stays on top as far as the network kept the finest detail that it could see.
Where it changed nothing, the photograph stays as it is; where it took noise away, the finer noise goes, too.
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

AROUND = 0.05  # of the side: radius in which it is judged how much detail was kept; 0.02 to 0.1 do as well
LEVEL = 1e-8  # squared value below which there is no detail to judge by
BAND = 1024  # rows that are worked on at once, so that a huge face needs little memory

Region = tuple[slice, slice]
"""Rows and columns of the canvas."""


class Piece(NamedTuple):
    """A face that is to be put into a photograph, the canvas.

    Attributes:
        crop: (S, S, 3) float32 in [0, 1], what the network was shown.
        restored: (T, T, 3) float32 in [0, 1], what it gave.
        matrix: (2, 3), from the canvas to the crop: `alignment.after_scaling` where the canvas was enlarged.
        mask: (M, M) float32 in [0, 1], how much of the restored face is to be seen, in the crop's frame.
    """

    crop: np.ndarray
    restored: np.ndarray
    matrix: np.ndarray
    mask: np.ndarray


def paste_all(canvas: np.ndarray, pieces: Sequence[Piece], alpha: float = 1.0) -> None:
    """Paste one after the other, but side by side what lies apart: see `paste` and `parallel_map`."""
    for apart in _rounds(canvas, pieces):
        parallel_map(lambda piece: paste(canvas, piece, alpha), apart)


def paste(canvas: np.ndarray, piece: Piece, alpha: float = 1.0) -> None:
    """Put a restored face into a photograph, in place.

    Args:
        canvas: (H, W, 3) BGR, uint8 or uint16: the photograph, or what it was enlarged to. Faces that were pasted
            before may stand in it.
        piece: the face.
        alpha: strength; 0 leaves the canvas as it is.
    Raises:
        ShapeError: a canvas that is not (H, W, 3) uint8 or uint16, or a face or mask that is not square.
        OptionError: alpha is not from 0 to 1.
    """
    crop, restored, matrix, mask = piece
    _check(canvas, crop, restored, mask, alpha)
    side = len(restored)
    finer = _finer(piece)
    shown = warp(canvas, finer, (side, side))
    kept = cv2.resize(_detail_kept(crop, restored, scale_of(matrix)), (side, side), interpolation=cv2.INTER_LINEAR)
    change = restored - kept[..., None] * shown
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
    """Pieces of one round touch different pixels, and each comes after those before it that touch the same."""
    regions = [_region(canvas, piece) for piece in pieces]
    numbers: list[int] = []
    for i, region in enumerate(regions):
        before = [number for number, other in zip(numbers, regions[:i], strict=True) if _meet(region, other)]
        numbers.append(max(before, default=-1) + 1)
    return [
        [piece for piece, its in zip(pieces, numbers, strict=True) if its == number]
        for number in range(max(numbers, default=-1) + 1)
    ]


def _region(canvas: np.ndarray, piece: Piece) -> Region:
    """Rows and columns that pasting reads and writes."""
    side = len(piece.restored)
    return warp_bbox(_finer(piece), (side, side), canvas.shape[1::-1])


def _meet(one: Region, other: Region) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def _finer(piece: Piece) -> np.ndarray:
    """The matrix from the canvas to the restored face."""
    return scale_affine(piece.matrix, target=len(piece.restored) / len(piece.crop))


def _detail_kept(crop: np.ndarray, restored: np.ndarray, scale: float) -> np.ndarray:
    """How much of the crop's finest detail is in the restored face, in least squares around each pixel.

    Of a clean face under noise, this is the Wiener gain of the finest detail.

    Returns:
        (S, S) float32, from 0 to 1, exactly 1 where the two are the same.
    """
    side = len(crop)
    given = cv2.resize(restored, (side, side), interpolation=cv2.INTER_AREA)
    finest = max(1.0, scale)  # pixels: a small face that was enlarged has no finer detail than its own pixels
    before, after = (face - cv2.GaussianBlur(face, (0, 0), finest) for face in (crop, given))
    over_channels = np.ones((1, 3), np.float32)  # as the matrix of a new channel: many times quicker than `sum`
    common, own = (
        cv2.GaussianBlur(cv2.transform(before * other, over_channels), (0, 0), max(1.0, AROUND * side))
        for other in (after, before)
    )
    return ((common + LEVEL) / (own + LEVEL)).clip(0, 1)


def _bands(rows: slice, columns: slice) -> Iterator[tuple[slice, slice]]:
    for start in range(rows.start, rows.stop, BAND):
        yield slice(start, min(start + BAND, rows.stop)), columns


def _check(canvas: np.ndarray, crop: np.ndarray, restored: np.ndarray, mask: np.ndarray, alpha: float) -> None:
    if canvas.ndim != 3 or canvas.shape[2] != 3 or canvas.dtype not in (np.uint8, np.uint16):
        raise ShapeError("canvas", f"got {canvas.shape} {canvas.dtype}", "(H, W, 3) uint8 or uint16 in BGR order")
    for name, image, channels in (("crop", crop, (3,)), ("restored", restored, (3,)), ("mask", mask, ())):
        if image.ndim < 2 or image.shape != (len(image), len(image), *channels):
            expected = f"(S, S{', 3' if channels else ''}) float32 in [0, 1]"
            raise ShapeError(name, f"got shape {image.shape}", expected)
    if not 0 <= alpha <= 1:
        raise OptionError("alpha", f"got {alpha}", "a number from 0 to 1")
