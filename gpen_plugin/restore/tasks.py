"""What a GPEN can be trained for, besides restoring: how a face goes in, and what of the input is kept in the result.

The conventions are those of the networks that the authors released. Which network does what, with which alignment,
strength and value range, is told in `zoo`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import cv2
import numpy as np

from gpen_plugin.data.segmentation_labels import PALETTE, Palette, colorize_labels, is_indexed, read_labels
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.images.color import luminance, set_luma, to_gray

NEARLY_WHITE, WHITE = 240 / 255, 250 / 255  # of a stroke's pixels, and their mean: JPEG files darken strokes a little
PURE = 254.9 / 255  # of those that are as they were painted
LONG = 12  # area of a stroke by the square of half its width: a line of three widths; a disc has pi
WIDTH = (0.008, 0.4)  # of the thinnest and thickest stroke, by the side; where lines cross, trainings have 0.38
BLOT = 0.0005  # least share of a face that a stroke of another form covers
MOST_COLOURS = 256  # of a map of a face's parts; a photograph has thousands


class Task(Protocol):
    """What is done to one face.

    Attributes:
        name: as the command line has it.
        released: the network for it, where nobody names another: ours for restoring, else the authors'.
        aligned_only: whether whole photographs make no sense, but only images that each show one aligned face.
        keeps_grey: whether what comes of a grey photograph is to be grey.
    """

    name: ClassVar[str]
    released: ClassVar[str]
    aligned_only: ClassVar[bool]
    keeps_grey: ClassVar[bool]

    def before(self, crop: np.ndarray, size: int) -> np.ndarray:
        """What the network is shown.

        Args:
            crop: the face as it is, (H, W, 3) BGR float32 in [0, 1].
            size: side that the network takes; what is of another size it resizes bilinearly.
        Returns:
            (h, w, 3) BGR float32 in [0, 1].
        Raises:
            DataError: the task makes nothing of such an image.
        """

    def after(self, crop: np.ndarray, output: np.ndarray) -> np.ndarray:
        """The result: what the network gave, and what has to stay as it was.

        Args:
            crop: as for `before`.
            output: what the network gave, (S, S, 3) BGR float32 in [0, 1].
        Returns:
            BGR float32 in [0, 1], of the size of `output`, or of `crop` where some of that is kept.
        """

    def idle(self, crop: np.ndarray) -> str | None:
        """Why the task leaves such a face as it is; None if it does not."""


class Restore:
    """Blind face restoration: nothing is added to what the network does."""

    name = "restore"
    released = "GPEN-FairFace-128"
    aligned_only = False
    keeps_grey = True

    def before(self, crop: np.ndarray, size: int) -> np.ndarray:
        """See `Task`."""
        return crop

    def after(self, crop: np.ndarray, output: np.ndarray) -> np.ndarray:
        """See `Task`."""
        return output

    def idle(self, crop: np.ndarray) -> str | None:
        """See `Task`."""
        return None


class Colorize:
    """Colour for a grey face: the chroma is the network's, the luminance stays the input's, exactly and in full size.

    A photograph around the face would stay grey, so only aligned faces are colored.
    """

    name = "colorize"
    released = "GPEN-Colorization-1024"
    aligned_only = True
    keeps_grey = False

    def before(self, crop: np.ndarray, size: int) -> np.ndarray:
        """See `Task`. Colours, of a tinted photograph for instance, are taken away."""
        return to_gray(crop)

    def after(self, crop: np.ndarray, output: np.ndarray) -> np.ndarray:
        """See `Task`."""
        return set_luma(_resized(output, crop), luminance(crop))

    def idle(self, crop: np.ndarray) -> str | None:
        """See `Task`."""
        return None


@dataclass(frozen=True, eq=False)
class Inpaint:
    """Parts of a face that are hidden under white brush strokes are filled; all other pixels stay as they are.

    Lengths are fractions of the shorter side of the face.

    Args:
        mask: (h, w), float in [0, 1] or bool: what is to be filled where the image has no white strokes; resized to
            the face. None: the white strokes are looked for, see `read_strokes`.
        width: of the thinnest and thickest stroke that is looked for.
        margin: how far around a stroke everything is replaced, too, for strokes have soft edges.
        feather: how far, beyond that, the result passes into the input.
    """

    name: ClassVar[str] = "inpaint"
    released: ClassVar[str] = "GPEN-Inpainting-1024"
    aligned_only: ClassVar[bool] = False
    keeps_grey: ClassVar[bool] = True

    mask: np.ndarray | None = None
    width: tuple[float, float] = WIDTH
    margin: float = 0.006
    feather: float = 0.012

    def before(self, crop: np.ndarray, size: int) -> np.ndarray:
        """See `Task`. A mask is painted white, as the network knows it."""
        if self.mask is None:
            return crop
        return np.where(self.hidden(crop)[:, :, None], np.float32(1), crop)

    def after(self, crop: np.ndarray, output: np.ndarray) -> np.ndarray:
        """See `Task`."""
        share = self._share(self.hidden(crop))[:, :, None]  # (H, W, 1)
        return crop + share * (_resized(output, crop) - crop)

    def idle(self, crop: np.ndarray) -> str | None:
        """See `Task`."""
        return None if self.hidden(crop).any() else "nothing in it is hidden by white strokes"

    def hidden(self, crop: np.ndarray) -> np.ndarray:
        """Which pixels are to be filled: (H, W) bool. None at all if there are no strokes."""
        if self.mask is None:
            return read_strokes(crop, self.width)
        return cv2.resize(self.mask.astype(np.float32), crop.shape[1::-1], interpolation=cv2.INTER_LINEAR) >= 0.5

    def _share(self, hidden: np.ndarray) -> np.ndarray:
        """How much of each pixel is replaced: (H, W) float32 in [0, 1]."""
        if not hidden.any():
            return np.zeros(hidden.shape, np.float32)
        side = min(hidden.shape)
        distance = cv2.distanceTransform((~hidden).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.clip(1 - (distance - max(1, self.margin * side)) / max(1, self.feather * side), 0, 1)


@dataclass(frozen=True, eq=False)
class Seg2face:
    """A face drawn from a map of its parts: a grey one of indices, or a coloured one.

    Indices are painted. Coloured maps go in as they are, whatever their colours mean: nobody has published those that
    the authors' network was trained with, and in their example maps they are none of the usual ones.

    Args:
        palette: RGB colours that indices are painted in, one per label of `LABELS`.
    """

    name: ClassVar[str] = "seg2face"
    released: ClassVar[str] = "GPEN-Seg2face-512"
    aligned_only: ClassVar[bool] = True
    keeps_grey: ClassVar[bool] = False

    palette: Palette = PALETTE

    def before(self, crop: np.ndarray, size: int) -> np.ndarray:
        """See `Task`. Maps are resized to the nearest pixel: there is no colour between two parts."""
        image = np.rint(crop * 255).astype(np.uint8)
        if is_indexed(image):
            image = colorize_labels(read_labels(image, "the map", self.palette), self.palette)
        elif (colours := len(np.unique(image.reshape(-1, 3), axis=0))) > MOST_COLOURS:
            expected = f"a map of a face's parts, of at most {MOST_COLOURS} colours"
            raise DataError("the map", f"has {colours:,} colours", expected, "Save maps as PNG, never as JPEG.")
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_NEAREST_EXACT).astype(np.float32) / 255

    def after(self, crop: np.ndarray, output: np.ndarray) -> np.ndarray:
        """See `Task`."""
        return output

    def idle(self, crop: np.ndarray) -> str | None:
        """See `Task`."""
        return None


TASKS: dict[str, type[Task]] = {task.name: task for task in (Restore, Colorize, Inpaint, Seg2face)}


def get_task(name: str) -> Task:
    """The task of a name.

    Raises:
        OptionError: there is none.
    """
    if name not in TASKS:
        raise OptionError("task", f"got {name!r}", "one of " + ", ".join(TASKS))
    return TASKS[name]()


def read_strokes(face: np.ndarray, width: Sequence[float] = WIDTH) -> np.ndarray:
    """Find white brush strokes: connected pixels that are purely white, or in the form of a line and about white.

    Lights in the eyes are too small for one, a wall is too wide, stars and collars are too short and too soft. A blot
    in a JPEG file is taken for a star, and has to be told by a mask.

    Args:
        face: (H, W, 3) BGR float32 in [0, 1].
        width: of the thinnest and thickest, as fractions of the shorter side.
    Returns:
        (H, W) bool.
    """
    darkest = face.min(axis=2)
    white = (darkest >= NEARLY_WHITE).astype(np.uint8)
    radius = cv2.distanceTransform(white, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # to the nearest pixel that is not white
    number, parts = cv2.connectedComponents(white)
    thickest = np.zeros(number, np.float32)
    np.maximum.at(thickest, parts.ravel(), radius.ravel())
    inner = radius.ravel() > np.minimum(2.5, thickest / 2)[parts.ravel()]  # edges are darker still
    area, number_inner, white_inner, pure_inner = (
        np.bincount(parts.ravel(), weights=counted, minlength=number)
        for counted in (white.ravel(), inner, inner * darkest.ravel(), inner & (darkest.ravel() >= PURE))
    )
    least, most = (share * min(white.shape) / 2 for share in width)
    found = (thickest >= max(1.0, least)) & (thickest <= most)
    long = (area >= LONG * thickest**2) & (white_inner >= WHITE * number_inner)
    found &= long | ((pure_inner == number_inner) & (area >= BLOT * white.size))
    found[0] = False  # what is not white
    return found[parts]


def _resized(output: np.ndarray, crop: np.ndarray) -> np.ndarray:
    """What the network gave, at the size of the face that it is of."""
    height, width = crop.shape[:2]
    if output.shape[:2] == (height, width):
        return output
    shrinks = height < output.shape[0]
    return cv2.resize(output, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
