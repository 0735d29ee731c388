"""Segmentation maps of faces: the labels of CelebAMask-HQ, as indices and as colors."""

from collections.abc import Sequence

import cv2
import numpy as np

from gpen_plugin.errors import DataError, OptionError

# in the order of the data set's merged maps and of facexlib's ParseNet
LABELS = (
    "background", "skin", "nose", "glasses", "left eye", "right eye", "left brow", "right brow", "left ear",
    "right ear", "mouth", "upper lip", "lower lip", "hair", "hat", "earring", "necklace", "neck", "cloth",
)  # fmt: skip
# RGB, as in CelebAMask-HQ's tool
PALETTE = (
    (0, 0, 0), (204, 0, 0), (76, 153, 0), (204, 204, 0), (51, 51, 255), (204, 0, 204), (0, 255, 255), (255, 204, 204),
    (102, 51, 0), (255, 0, 0), (102, 204, 0), (255, 255, 0), (0, 0, 153), (0, 0, 204), (255, 51, 153), (0, 204, 204),
    (0, 51, 0), (255, 153, 51), (0, 204, 0),
)  # fmt: skip
_HFLIPPED_LABEL = np.array(
    [
        LABELS.index({"left": "right", "right": "left"}.get(side, side) + label.removeprefix(side))
        for label, side in ((label, label.partition(" ")[0]) for label in LABELS)
    ],
    np.uint8,
)

Palette = Sequence[Sequence[int]]


def check_palette(palette: Palette, where: str) -> None:
    """Raise an `OptionError` unless there is one RGB color per label."""
    valid = len(palette) == len(LABELS) and all(len(c) == 3 and 0 <= min(c) <= max(c) <= 255 for c in palette)
    if not valid:
        expected = f"{len(LABELS)} colors, each of three whole numbers from 0 to 255"
        raise OptionError(where, f"got {len(palette)} entries", expected, "Remove it to use CelebAMask-HQ's.")


def read_labels(image: np.ndarray, name: str, palette: Palette = PALETTE) -> np.ndarray:
    """Labels of a map, (H, W) uint8: indices of `LABELS`.

    `image` is (H, W, 3) BGR uint8, gray with the indices or in the RGB colors of `palette`. DataError, which starts
    with `name`, if a color is no label's, or the map has only one label.
    """
    if is_indexed(image):
        labels = image[:, :, 0]
    else:
        labels = np.full(image.shape[:2], len(LABELS), np.uint8)
        codes, known = _codes(image[:, :, ::-1]), _codes(np.array(palette, np.uint8)[None])[0]
        for label, code in reversed([*enumerate(known)]):  # of two labels of one color, the first
            labels[codes == code] = label
    unknown = np.argwhere(labels == len(LABELS))
    expected = f"the indices 0 to {len(LABELS) - 1} in gray, or only colors of the palette"
    if len(unknown):
        y, x = unknown[0]
        got = f"holds the color {[int(value) for value in image[y, x, ::-1]]} at ({x}, {y}), which is no label's"
        raise DataError(
            name, got, expected, "Save maps as PNG, not as JPEG, and resize them with nearest-neighbor interpolation."
        )
    if labels.min() == labels.max():
        got = f"is {LABELS[labels[0, 0]]} everywhere"
        raise DataError(
            name, got, f"the parts of a face: {expected}", "Save maps with 8 bits: 16-bit maps lose their indices."
        )
    return labels


def is_indexed(image: np.ndarray) -> bool:
    """Whether a map, (H, W, 3) uint8, holds indices instead of colors."""
    return image.max() < len(LABELS) and bool((image == image[:, :, :1]).all())


def colorize_labels(labels: np.ndarray, palette: Palette = PALETTE) -> np.ndarray:
    """(H, W) uint8 labels to (H, W, 3) BGR uint8 in the colors of `palette`."""
    return np.array(palette, np.uint8)[labels][:, :, ::-1]


def hflip_labels(labels: np.ndarray) -> np.ndarray:
    """Mirror labels, (H, W) uint8, and exchange the left and right ones."""
    return _HFLIPPED_LABEL[labels[:, ::-1]]


def resize_map(labels: np.ndarray, size: int) -> np.ndarray:
    """The central square of a map, (H, W) or (H, W, 3), resized to (size, size) by nearest neighbor."""
    side = min(labels.shape[:2])
    top, left = (labels.shape[0] - side) // 2, (labels.shape[1] - side) // 2
    square = labels[top : top + side, left : left + side]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)


def _codes(colors: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB uint8 to (H, W) int32: a number per color."""
    return colors.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
