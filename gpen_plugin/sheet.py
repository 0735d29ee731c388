"""Pictures side by side: one row per face, one titled column per version of it."""

from collections.abc import Sequence

import cv2
import numpy as np

GAP = 4  # white pixels between the tiles
FONT = cv2.FONT_HERSHEY_SIMPLEX


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
    scale = min(_fitting_scale(title, 0.92 * tile, 0.5 * header) for title in titles)  # one size for all
    width = len(titles) * (tile + GAP) + GAP
    page = np.full((header + len(rows) * (tile + GAP) + GAP, width, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        left = GAP + column * (tile + GAP)
        _write(page, title, scale, centre=(left + tile // 2, header // 2))
        for row, pictures in enumerate(rows):
            top = header + GAP + row * (tile + GAP)
            page[top : top + tile, left : left + tile] = _as_tile(pictures[column], tile)
    return page


def _as_tile(picture: np.ndarray, side: int) -> np.ndarray:
    method = cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_NEAREST
    return cv2.resize(picture, (side, side), interpolation=method)


def _fitting_scale(text: str, width: float, height: float) -> float:
    (text_width, text_height), _ = cv2.getTextSize(text, FONT, 1, 1)
    return min(0.8, width / text_width, height / text_height)


def _write(page: np.ndarray, text: str, scale: float, centre: tuple[int, int]) -> None:
    (width, height), _ = cv2.getTextSize(text, FONT, scale, 1)
    origin = (centre[0] - width // 2, centre[1] + height // 2)
    cv2.putText(page, text, origin, FONT, scale, (40, 40, 40), 1, cv2.LINE_AA)
