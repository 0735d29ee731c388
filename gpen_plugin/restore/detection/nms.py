"""Faces that were found several times are one; what cannot be a face is none."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gpen_plugin.restore.face import DetectedFace

OVERLAPPING = 0.3  # of two boxes' union
INSIDE = 0.8  # of the smaller box
SAME_FACE_MAX_LANDMARK_DIST = 0.5  # distances of the eyes: two findings of one face differ by less
MIN_EYE_MOUTH_SIN = 0.3  # sine of the angle between the line of the eyes and the way from them to the mouth
MIN_EYE_DISTANCE = 0.05  # of the box's side: eyes that are nearer together are one


def nms(faces: Sequence[DetectedFace]) -> list[DetectedFace]:
    """Keep the most certain finding of each face.

    Args:
        faces: plausible ones, in one image's pixels.
    Returns:
        The most certain first, and of equally certain ones the upper, then the left one.
    """
    kept: list[DetectedFace] = []
    for face in sorted(faces, key=lambda face: (-face.score, face.box[1], face.box[0], face.box[3])):
        if not any(is_same_face(face, other) for other in kept):
            kept.append(face)
    return kept


def is_same_face(one: DetectedFace, other: DetectedFace) -> bool:
    """Whether two findings are of one face.

    Boxes alone do not tell: those of a head before another overlap, too. Boxes that overlap are of one face if the
    landmarks agree; and a box inside another is, if its face is where the other's is.
    """
    shared = _shared(one.box, other.box)
    if not shared:
        return False
    areas = _area(one.box), _area(other.box)
    eyes = max(_eye_distance(one), _eye_distance(other))
    if shared > OVERLAPPING * (sum(areas) - shared):
        apart = np.linalg.norm(one.landmarks - other.landmarks, axis=1).mean()
        if apart < SAME_FACE_MAX_LANDMARK_DIST * eyes:
            return True
    middles = np.linalg.norm(one.landmarks.mean(axis=0) - other.landmarks.mean(axis=0))
    return bool(shared > INSIDE * min(areas) and middles < eyes)


def is_plausible(face: DetectedFace) -> bool:
    """Whether all is finite, eyes stand apart, and the mouth is below them as the face itself is turned."""
    if not (np.isfinite(face.box).all() and np.isfinite(face.landmarks).all() and np.isfinite(face.score)):
        return False
    left, top, right, bottom = face.box
    if right <= left or bottom <= top:
        return False
    eyes = face.landmarks[1] - face.landmarks[0]
    down = face.landmarks[3:].mean(axis=0) - face.landmarks[:2].mean(axis=0)
    lengths = np.linalg.norm(eyes), np.linalg.norm(down)
    if min(lengths) < MIN_EYE_DISTANCE * np.sqrt(_area(face.box)):
        return False
    return bool(eyes[0] * down[1] - eyes[1] * down[0] > MIN_EYE_MOUTH_SIN * lengths[0] * lengths[1])


def transform_face(face: DetectedFace, matrix: np.ndarray) -> DetectedFace:
    """The same face in another image. Its box stays upright there, and no larger than the face was.

    Args:
        face: in one image.
        matrix: (2, 3), from there to the other: any scale and turn.
    """
    linear, shift = matrix[:, :2], matrix[:, 2]
    middle = (face.box[:2] + face.box[2:]) / 2 @ linear.T + shift
    sides = (face.box[2:] - face.box[:2]) * np.sqrt(abs(np.linalg.det(linear)))
    if abs(linear[0, 1]) > abs(linear[0, 0]):  # what was its height is its width
        sides = sides[::-1]
    box = np.concatenate([middle - sides / 2, middle + sides / 2])
    return replace(face, box=box, landmarks=face.landmarks @ linear.T + shift)


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(np.prod(sides.clip(min=0)))


def _area(box: np.ndarray) -> float:
    return float(np.prod(box[2:] - box[:2]))


def _eye_distance(face: DetectedFace) -> float:
    return float(np.linalg.norm(face.landmarks[1] - face.landmarks[0]))
