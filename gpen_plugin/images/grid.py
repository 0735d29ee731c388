"""Grids of images: with one row per face and one titled column per version, or plain; and pairs."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

GAP = 4  # white pixels between the tiles
FONT = cv2.FONT_HERSHEY_SIMPLEX


def sheet(
    # each with as many images as there are titles: uint8 BGR, (H, W, 3), of any size
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],  # one per column
    # side of a tile in pixels. Smaller images are enlarged without smoothing; one whose longer side is `tile` is not
    # resampled. Tiles are padded with white
    tile: int = 128,
) -> np.ndarray:
    """Arrange images in a table.

    Returns: uint8 BGR, (header + rows * (tile + GAP), columns * (tile + GAP) + GAP, 3).
    """
    header = max(22, tile // 6)
    scale = min(_fitting_scale(title, 0.92 * tile, 0.5 * header) for title in titles)  # one size for all
    width = len(titles) * (tile + GAP) + GAP
    page = np.full((header + len(rows) * (tile + GAP) + GAP, width, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        left = GAP + column * (tile + GAP)
        _write(page, title, scale, center=(left + tile // 2, header // 2))
        for row, images in enumerate(rows):
            top = header + GAP + row * (tile + GAP)
            page[top : top + tile, left : left + tile] = _as_tile(images[column], tile)
    return page


def mosaic(
    images: Sequence[np.ndarray],  # one or more, uint8 BGR, (H, W, 3), of one size
    columns: int | None = None,  # None makes the table as square as possible
    gap: int = 2,  # white pixels between the images
) -> np.ndarray:
    """Arrange images row by row without titles; `sheet` accepts a mosaic as a tile.

    Returns: uint8 BGR, (rows * (H + gap) - gap, columns * (W + gap) - gap, 3); missing images are white.
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    height, width = images[0].shape[:2]
    table = np.full((math.ceil(len(images) / columns) * (height + gap), columns * (width + gap), 3), 255, np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        table[top : top + height, left : left + width] = image
    return table[: len(table) - gap, : table.shape[1] - gap]


def side_by_side(
    before: np.ndarray,  # (h, w, 3) BGR uint8 or uint16; enlarged to the size of the other
    after: np.ndarray,  # (H, W, 3), of the same dtype
) -> np.ndarray:
    """Two images with a white line between them.

    Returns: (H, W + GAP + W, 3) uint8.
    """
    height, width = after.shape[:2]
    if before.shape != after.shape:
        before = cv2.resize(before, (width, height), interpolation=cv2.INTER_CUBIC)
    line = np.full((height, GAP, 3), np.iinfo(after.dtype).max, after.dtype)
    whole = np.concatenate([before, line, after], axis=1)
    return whole if whole.dtype == np.uint8 else (whole >> 8).astype(np.uint8)


def _as_tile(image: np.ndarray, side: int) -> np.ndarray:
    longer = max(image.shape[:2])
    height, width = (max(1, round(length * side / longer)) for length in image.shape[:2])
    method = cv2.INTER_AREA if longer > side else cv2.INTER_NEAREST
    tile = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    tile[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=method)
    return tile


def _fitting_scale(text: str, width: float, height: float) -> float:
    (text_width, text_height), _ = cv2.getTextSize(text, FONT, 1, 1)
    return min(0.8, width / text_width, height / text_height)


def _write(page: np.ndarray, text: str, scale: float, center: tuple[int, int]) -> None:
    (width, height), _ = cv2.getTextSize(text, FONT, scale, 1)
    origin = (center[0] - width // 2, center[1] + height // 2)
    cv2.putText(page, text, origin, FONT, scale, (40, 40, 40), 1, cv2.LINE_AA)
