"""Pictures side by side: one row per face, one titled column per version of it."""

from collections.abc import Sequence

import cv2
import numpy as np

GAP = 4  # white pixels between the tiles


def sheet(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], tile: int = 128) -> np.ndarray:
    """Lay pictures out in a table.

    Args:
        rows: each row holds as many pictures as there are titles: uint8 BGR, (H, W, 3), of any size.
        titles: one per column.
        tile: side of a tile in pixels; smaller pictures are enlarged without smoothing, so that what is seen is
            what is there.
    Returns:
        uint8 BGR, (header + rows * (tile + GAP), columns * (tile + GAP) + GAP, 3).
    """
    header = max(22, tile // 6)
    width = len(titles) * (tile + GAP) + GAP
    page = np.full((header + len(rows) * (tile + GAP) + GAP, width, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        left = GAP + column * (tile + GAP)
        _write(page[:header, left : left + tile], title)
        for row, pictures in enumerate(rows):
            top = header + GAP + row * (tile + GAP)
            page[top : top + tile, left : left + tile] = _as_tile(pictures[column], tile)
    return page


def _as_tile(picture: np.ndarray, side: int) -> np.ndarray:
    method = cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_NEAREST
    return cv2.resize(picture, (side, side), interpolation=method)


def _write(field: np.ndarray, text: str) -> None:
    """Centre `text` in `field`, as large as fits."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.7
    (width, height), _ = cv2.getTextSize(text, font, scale, 1)
    scale *= min(1.0, 0.92 * field.shape[1] / width, 0.6 * field.shape[0] / height)
    (width, height), _ = cv2.getTextSize(text, font, scale, 1)
    origin = ((field.shape[1] - width) // 2, (field.shape[0] + height) // 2)
    canvas = field.copy()  # OpenCV draws into contiguous memory only
    cv2.putText(canvas, text, origin, font, scale, (40, 40, 40), 1, cv2.LINE_AA)
    field[:] = canvas
