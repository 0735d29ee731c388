"""Which of the faces of a photograph are restored: all, the largest, some by number or place, or one person's."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpen_plugin.errors import OptionError

if TYPE_CHECKING:  # it imports PyTorch, and the command line is checked before that
    from gpen_plugin.restore.detection import DetectedFace

EXPECTED = "largest, numbers from left to right such as 1,3, or box:LEFT,TOP,RIGHT,BOTTOM in pixels"
BOX = "box:"

Selection = Callable[[Sequence["DetectedFace"]], list["DetectedFace"]]


def parse_selection(text: str | None) -> Selection:
    """The function that picks faces, in their order; None and ``all`` pick all.

    ``largest``: the face with the largest box. ``1,3``: numbers from left to right, from 1, as `gpen-web` shows them.
    ``box:40,60,300,400``: faces whose center lies in a rectangle, in pixels: left, top, right and bottom.
    Raises: OptionError: the text is none of these.
    """
    if text in (None, "all"):
        return list
    if text == "largest":
        return lambda faces: [max(faces, key=_area)] if faces else []
    is_box = text.startswith(BOX)
    parts = text.removeprefix(BOX).split(",")
    try:
        numbers = [float(part) if is_box else int(part) for part in parts]
    except ValueError:
        numbers = []
    if is_box and len(numbers) == 4 and numbers[0] < numbers[2] and numbers[1] < numbers[3]:
        return lambda faces: [face for face in faces if _is_inside(face, numbers)]
    if is_box or not numbers or min(numbers) < 1:
        raise OptionError("only", f"got {text!r}", EXPECTED)
    return lambda faces: _numbered(faces, numbers)


def horizontal_center(face: "DetectedFace") -> float:
    """Faces are numbered by it, from left to right."""
    return float(face.box[0] + face.box[2]) / 2


def _numbered(faces: Sequence["DetectedFace"], numbers: Sequence[int]) -> list["DetectedFace"]:
    in_order = sorted(faces, key=horizontal_center)
    picked = {id(face) for number, face in enumerate(in_order, 1) if number in numbers}
    return [face for face in faces if id(face) in picked]


def _area(face: "DetectedFace") -> float:
    left, top, right, bottom = face.box
    return float((right - left) * (bottom - top))


def _is_inside(face: "DetectedFace", rectangle: Sequence[float]) -> bool:
    center = (face.box[:2] + face.box[2:]) / 2
    return bool(np.all(rectangle[:2] <= center) and np.all(center <= rectangle[2:]))
