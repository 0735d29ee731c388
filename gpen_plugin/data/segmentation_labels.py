"""Maps of a face's parts: the labels of CelebAMask-HQ, as indices and in colours."""

from collections.abc import Sequence

import cv2
import numpy as np

from gpen_plugin.errors import DataError, OptionError

# in the order of the data set's own merged maps, which is that of facexlib's ParseNet, too
LABELS = (
    "background", "skin", "nose", "glasses", "left eye", "right eye", "left brow", "right brow", "left ear",
    "right ear", "mouth", "upper lip", "lower lip", "hair", "hat", "earring", "necklace", "neck", "cloth",
)  # fmt: skip
# RGB, those that CelebAMask-HQ's own tool gives the labels
PALETTE = (
    (0, 0, 0), (204, 0, 0), (76, 153, 0), (204, 204, 0), (51, 51, 255), (204, 0, 204), (0, 255, 255), (255, 204, 204),
    (102, 51, 0), (255, 0, 0), (102, 204, 0), (255, 255, 0), (0, 0, 153), (0, 0, 204), (255, 51, 153), (0, 204, 204),
    (0, 51, 0), (255, 153, 51), (0, 204, 0),
)  # fmt: skip
_OF_THE_OTHER_SIDE = np.array(
    [
        LABELS.index({"left": "right", "right": "left"}.get(side, side) + label.removeprefix(side))
        for label, side in ((label, label.partition(" ")[0]) for label in LABELS)
    ],
    np.uint8,
)

Palette = Sequence[Sequence[int]]


def check_palette(palette: Palette, where: str) -> None:
    """Raise an `OptionError` unless there is one RGB colour per label."""
    whole = len(palette) == len(LABELS) and all(len(c) == 3 and 0 <= min(c) <= max(c) <= 255 for c in palette)
    if not whole:
        expected = f"{len(LABELS)} colours, each of three whole numbers from 0 to 255"
        raise OptionError(where, f"got {len(palette)} entries", expected, "Leave it out for CelebAMask-HQ's.")


def read_labels(image: np.ndarray, name: str, palette: Palette = PALETTE) -> np.ndarray:
    """Read the labels off a map.

    Args:
        image: (H, W, 3) BGR uint8: grey with the labels' indices, or in the colours of `palette`.
        name: what to call it if it is no map.
        palette: RGB colours of the labels.
    Returns:
        (H, W) uint8, indices of `LABELS`.
    Raises:
        DataError: a colour stands for no label, or the map shows but one.
    """
    if is_indexed(image):
        labels = image[:, :, 0]
    else:
        labels = np.full(image.shape[:2], len(LABELS), np.uint8)
        codes, known = _codes(image[:, :, ::-1]), _codes(np.array(palette, np.uint8)[None])[0]
        for label, code in reversed([*enumerate(known)]):  # of two labels of one colour, the first
            labels[codes == code] = label
    strange = np.argwhere(labels == len(LABELS))
    expected = f"the indices 0 to {len(LABELS) - 1} in grey, or the colours of the palette alone"
    if len(strange):
        y, x = strange[0]
        got = f"holds the colour {[int(value) for value in image[y, x, ::-1]]} at ({x}, {y}), which is no label's"
        raise DataError(name, got, expected, "Save maps as PNG, never as JPEG, and resize them to the nearest pixel.")
    if labels.min() == labels.max():
        got = f"is {LABELS[labels[0, 0]]} everywhere"
        raise DataError(name, got, f"the parts of a face: {expected}", "16-bit maps lose their indices: save 8 bits.")
    return labels


def is_indexed(image: np.ndarray) -> bool:
    """Whether a map, (H, W, 3) uint8, holds indices of labels instead of their colours."""
    return image.max() < len(LABELS) and bool((image == image[:, :, :1]).all())


def colorize_labels(labels: np.ndarray, palette: Palette = PALETTE) -> np.ndarray:
    """Paint labels, (H, W) uint8, in the colours of `palette`: (H, W, 3) BGR uint8."""
    return np.array(palette, np.uint8)[labels][:, :, ::-1]


def hflip_labels(labels: np.ndarray) -> np.ndarray:
    """Mirror labels, (H, W) uint8: what was on the left is on the right, and is called so."""
    return _OF_THE_OTHER_SIDE[labels[:, ::-1]]


def resize_map(labels: np.ndarray, size: int) -> np.ndarray:
    """The central square of a map, (H, W) or (H, W, 3), at (size, size): each pixel takes the nearest one's label."""
    side = min(labels.shape[:2])
    top, left = (labels.shape[0] - side) // 2, (labels.shape[1] - side) // 2
    square = labels[top : top + side, left : left + side]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)


def _codes(colours: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB uint8 to (H, W) int32: a number per colour."""
    return colours.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
