"""Pictures too large for a network at once: in tiles that overlap and fade into each other."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from gpen_plugin.errors import OptionError
from gpen_plugin.restore.pixel_values import stored, unit

OVERLAP = 64  # pixels that a tile shares with the next
GRID = 32  # tiles begin and end on it, so that what unshuffles or halves sees all of them in the same phase
SMALLEST = 2 * GRID

Run = Callable[[np.ndarray], np.ndarray]
"""(h, w, 3) float32 in [0, 1] to (h * scale, w * scale, 3) float32."""
Progress = Callable[[int, int], None]
"""Is told how many tiles are done, and of how many."""


@dataclass
class Tiles:
    """Runs a function of pictures on pictures of any size.

    Neighbouring tiles share `OVERLAP` pixels. The quarter at either end is thrown away, as there the function saw the
    tile's border; in between, one tile fades into the other. So the result is what the function gives for the whole
    picture if a pixel depends on others up to a quarter of the overlap away, and has no seam in any case.

    Where the device has not memory enough, the tiles get half as large, now and for all pictures to come.

    Args:
        run: the function.
        scale: how much larger its results are.
        side: of a tile in pixels, `SMALLEST` or more; rounded down to the `GRID`.
    Raises:
        OptionError: `side` is too small.
    """

    run: Run
    scale: int = 1
    side: int = 512

    def __post_init__(self):
        if self.side < SMALLEST:
            raise OptionError("tile", f"got {self.side}", f"{SMALLEST} pixels or more", "The default is 512.")
        self.side = self.side // GRID * GRID

    def __call__(self, picture: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Run the function.

        Besides the result, memory holds a few copies of one row of tiles, and the tile that is worked on.

        Args:
            picture: (H, W, 3), uint8, uint16 or float32 in [0, 1].
            progress: is told after each tile.
        Returns:
            (H * scale, W * scale, 3), of the dtype of `picture`.
        Raises:
            OptionError: there is no memory even for the smallest tiles.
        """
        return self._whole(picture, progress or _nobody)

    def _whole(self, picture: np.ndarray, progress: Progress) -> np.ndarray:
        if max(picture.shape[:2]) > self.side:
            return self._in_parts(picture, progress)
        try:
            result = stored(self.run(unit(picture)), picture.dtype)
        except RuntimeError as error:
            if not _is_of_memory(error):
                raise
            self._halve(max(picture.shape[:2]), error)
        else:
            progress(1, 1)
            return result
        return self._whole(picture, progress)  # outside of the handler, which holds the tensors of the failed run

    def _in_parts(self, picture: np.ndarray, progress: Progress) -> np.ndarray:
        side, overlap = self.side, min(OVERLAP, self.side // 2)
        (height, width), scale = picture.shape[:2], self.scale
        rows, columns = (_spans(length, side, overlap) for length in (height, width))
        ticks = itertools.count(1)
        result = np.empty((height * scale, width * scale, 3), picture.dtype)
        down = _Fading(result, overlap * scale)
        for top, bottom in rows:
            row = np.empty(((bottom - top) * scale, width * scale, 3), np.float32)
            across = _Fading(row.swapaxes(0, 1), overlap * scale)
            for left, right in columns:
                tile = self._whole(unit(picture[top:bottom, left:right]), _nobody)
                across.put(left * scale, tile.swapaxes(0, 1))
                progress(next(ticks), len(rows) * len(columns))
            down.put(top * scale, row)
        return result

    def _halve(self, failed: int, error: Exception) -> None:
        if failed <= SMALLEST:
            came = f"the device has not memory enough for tiles of {failed} px ({str(error).strip().splitlines()[0]})"
            way_out = "Compute on another device (cpu), or take a smaller network."
            raise OptionError("tile", came, "some memory that others do not use", way_out) from error
        self.side = max(SMALLEST, failed // 2 // GRID * GRID)
        torch.cuda.empty_cache()


class _Fading:
    """Puts pieces along the first axis of a canvas, each fading into the next where they overlap.

    Args:
        canvas: (L, W, 3), of any dtype.
        overlap: length that a piece shares with the one before.
    """

    def __init__(self, canvas: np.ndarray, overlap: int):
        self._canvas = canvas
        self._overlap = overlap
        self._rest: np.ndarray | None = None  # the end of the last piece, that the next begins with

    def put(self, start: int, piece: np.ndarray) -> None:
        """Put the next piece, (l, W, 3) float32, at `start`: 0 for the first, and for others inside the one before."""
        middle = start
        if self._rest is not None:
            shared, middle = piece[: self._overlap], start + self._overlap
            faded = self._rest + (shared - self._rest) * _ramp(self._overlap)[:, None, None]
            self._canvas[start:middle] = stored(faded, self._canvas.dtype)
        self._canvas[middle : start + len(piece)] = stored(piece[middle - start :], self._canvas.dtype)
        self._rest = piece[len(piece) - self._overlap :].copy()  # so that the piece itself can go


def _nobody(done: int, total: int) -> None:
    """A `Progress` that nobody looks at."""


def _ramp(length: int) -> np.ndarray:
    """0 in the first quarter, 1 in the last, and straight in between: (length,) float32."""
    places = (np.arange(length, dtype=np.float32) + 0.5) / length
    return np.clip(2 * places - 0.5, 0, 1)


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    """Where tiles begin and end: `side` long but the last, each sharing `overlap` with the next."""
    starts = range(0, max(length - overlap, 1), side - overlap)
    return [(start, min(start + side, length)) for start in starts]


def _is_of_memory(error: Exception) -> bool:
    """Devices other than CUDA's have no class for it."""
    told = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(text in str(error) for text in told)
