"""Tasks of a GPEN besides restoration: the input of the network, and what stays of the input in the result.

The conventions are those of the released networks; alignment, alpha and value range of each are in `zoo`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import cv2
import numpy as np

from gpen_plugin.data.segmentation_labels import PALETTE, Palette, colorize_labels, is_indexed, read_labels
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.images.color import luminance, set_luma, to_gray

STROKE_MIN, STROKE_MIN_MEAN = 240 / 255, 250 / 255  # of a stroke's pixels: JPEG files darken strokes a little
PURE_WHITE = 254.9 / 255  # least value of unchanged paint
MIN_ELONGATION = 12  # area of a line by the square of half its width: three widths long; a disc has pi
STROKE_WIDTH = (0.008, 0.4)  # of the thinnest and thickest stroke, by the side; where lines cross, trainings have 0.38
MIN_BLOT_AREA = 0.0005  # of the face, for a stroke that is not a line
MAX_MAP_COLORS = 256  # of a map of a face's parts; a photograph has thousands


class Task(Protocol):
    """What is done to a face."""

    name: ClassVar[str]  # on the command line
    released: ClassVar[str]  # default network
    aligned_only: ClassVar[bool]  # whether only aligned faces are possible
    keeps_gray: ClassVar[bool]  # whether the result of a gray photograph must be gray

    def preprocess(
        self,
        crop: np.ndarray,  # (H, W, 3) BGR float32 in [0, 1]
        size: int,  # of the network's input; other sizes are resized bilinearly later
    ) -> np.ndarray:
        """The input of the network, (h, w, 3) BGR float32 in [0, 1]. DataError if the image does not suit the task."""

    def postprocess(
        self,
        crop: np.ndarray,  # see `preprocess`
        output: np.ndarray,  # of the network, (S, S, 3) BGR float32 in [0, 1]
    ) -> np.ndarray:
        """The result, BGR float32 in [0, 1], of the size of `output`, or of `crop` if parts of it are kept."""

    def skip_reason(self, crop: np.ndarray) -> str | None:
        """Why the task leaves a face unchanged; None if it does not."""


class Restore:
    name = "restore"
    released = "GPEN-Faces-256"
    aligned_only = False
    keeps_gray = True

    def preprocess(self, crop: np.ndarray, size: int) -> np.ndarray:
        return crop

    def postprocess(self, crop: np.ndarray, output: np.ndarray) -> np.ndarray:
        return output

    def skip_reason(self, crop: np.ndarray) -> str | None:
        return None


class Colorize:
    """Color for gray faces: the chroma is the network's, the luma the input's, exactly and in full size.

    For aligned faces only, as the rest of a photograph would stay gray.
    """

    name = "colorize"
    released = "GPEN-Colorization-1024"
    aligned_only = True
    keeps_gray = False

    def preprocess(self, crop: np.ndarray, size: int) -> np.ndarray:
        """Colors, e.g. of a tinted photograph, are removed."""
        return to_gray(crop)

    def postprocess(self, crop: np.ndarray, output: np.ndarray) -> np.ndarray:
        return set_luma(_resize_to(output, crop), luminance(crop))

    def skip_reason(self, crop: np.ndarray) -> str | None:
        return None


@dataclass(frozen=True, eq=False)
class Inpaint:
    """Fills parts of a face that are hidden by white brush strokes; all other pixels stay unchanged.

    Lengths are fractions of the shorter side of the face.
    """

    name: ClassVar[str] = "inpaint"
    released: ClassVar[str] = "GPEN-Inpainting-1024"
    aligned_only: ClassVar[bool] = False
    keeps_gray: ClassVar[bool] = True

    # (h, w), float in [0, 1] or bool: what is filled; resized to the face. None: white strokes, see `read_strokes`
    mask: np.ndarray | None = None
    width: tuple[float, float] = STROKE_WIDTH  # of the thinnest and thickest stroke
    margin: float = 0.006  # around a stroke that is replaced, too, as strokes have soft edges
    feather: float = 0.012  # width of the transition beyond the margin

    def preprocess(self, crop: np.ndarray, size: int) -> np.ndarray:
        """A mask is painted white, as in training."""
        if self.mask is None:
            return crop
        return np.where(self.hidden(crop)[:, :, None], np.float32(1), crop)

    def postprocess(self, crop: np.ndarray, output: np.ndarray) -> np.ndarray:
        weight = self._blend_weight(self.hidden(crop))[:, :, None]  # (H, W, 1)
        return crop + weight * (_resize_to(output, crop) - crop)

    def skip_reason(self, crop: np.ndarray) -> str | None:
        return None if self.hidden(crop).any() else "it has no white strokes"

    def hidden(self, crop: np.ndarray) -> np.ndarray:
        """Pixels to be filled, (H, W) bool."""
        if self.mask is None:
            return read_strokes(crop, self.width)
        return cv2.resize(self.mask.astype(np.float32), crop.shape[1::-1], interpolation=cv2.INTER_LINEAR) >= 0.5

    def _blend_weight(self, hidden: np.ndarray) -> np.ndarray:
        if not hidden.any():
            return np.zeros(hidden.shape, np.float32)
        side = min(hidden.shape)
        distance = cv2.distanceTransform((~hidden).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.clip(1 - (distance - max(1, self.margin * side)) / max(1, self.feather * side), 0, 1)


@dataclass(frozen=True, eq=False)
class Seg2face:
    """A face from a map of its parts: gray indices, or colors.

    Indices are colored. Colored maps are used as they are: the palette of the authors' network was never published, and
    that of their example maps is none of the usual ones.
    """

    name: ClassVar[str] = "seg2face"
    released: ClassVar[str] = "GPEN-Seg2face-512"
    aligned_only: ClassVar[bool] = True
    keeps_gray: ClassVar[bool] = False

    palette: Palette = PALETTE  # RGB colors, one per label of `LABELS`

    def preprocess(self, crop: np.ndarray, size: int) -> np.ndarray:
        """Maps are resized to the nearest pixel: colors between two parts mean nothing."""
        image = np.rint(crop * 255).astype(np.uint8)
        if is_indexed(image):
            image = colorize_labels(read_labels(image, "the map", self.palette), self.palette)
        elif (colors := len(np.unique(image.reshape(-1, 3), axis=0))) > MAX_MAP_COLORS:
            expected = f"a map of the parts of a face with at most {MAX_MAP_COLORS} colors"
            raise DataError("the map", f"has {colors:,} colors", expected, "Save maps as PNG, not as JPEG.")
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_NEAREST_EXACT).astype(np.float32) / 255

    def postprocess(self, crop: np.ndarray, output: np.ndarray) -> np.ndarray:
        return output

    def skip_reason(self, crop: np.ndarray) -> str | None:
        return None


TASKS: dict[str, type[Task]] = {task.name: task for task in (Restore, Colorize, Inpaint, Seg2face)}


def get_task(name: str) -> Task:
    """The task of a name; OptionError if there is none."""
    if name not in TASKS:
        raise OptionError("task", f"got {name!r}", "one of " + ", ".join(TASKS))
    return TASKS[name]()


def read_strokes(
    face: np.ndarray,  # (H, W, 3) BGR float32 in [0, 1]
    width: Sequence[float] = STROKE_WIDTH,  # of the thinnest and thickest, as fractions of the shorter side
) -> np.ndarray:
    """Find white brush strokes: connected pixels that are purely white, or line-shaped and nearly white.

    Highlights in the eyes are too small, walls too wide, stars and collars too short and too soft. A blot in a JPEG
    file is taken for a star and needs a mask.

    Returns: (H, W) bool.
    """
    darkest = face.min(axis=2)
    white = (darkest >= STROKE_MIN).astype(np.uint8)
    radius = cv2.distanceTransform(white, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # to the nearest pixel that is not white
    number, parts = cv2.connectedComponents(white)
    thickest = np.zeros(number, np.float32)
    np.maximum.at(thickest, parts.ravel(), radius.ravel())
    inner = radius.ravel() > np.minimum(2.5, thickest / 2)[parts.ravel()]  # edges are darker still
    area, number_inner, white_inner, pure_inner = (
        np.bincount(parts.ravel(), weights=counted, minlength=number)
        for counted in (white.ravel(), inner, inner * darkest.ravel(), inner & (darkest.ravel() >= PURE_WHITE))
    )
    least, most = (fraction * min(white.shape) / 2 for fraction in width)
    found = (thickest >= max(1.0, least)) & (thickest <= most)
    long = (area >= MIN_ELONGATION * thickest**2) & (white_inner >= STROKE_MIN_MEAN * number_inner)
    found &= long | ((pure_inner == number_inner) & (area >= MIN_BLOT_AREA * white.size))
    found[0] = False  # what is not white
    return found[parts]


def _resize_to(output: np.ndarray, crop: np.ndarray) -> np.ndarray:
    height, width = crop.shape[:2]
    if output.shape[:2] == (height, width):
        return output
    shrinks = height < output.shape[0]
    return cv2.resize(output, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
