"""Landmarks smoothed over time, without lag.

A window that looks ahead as far as back has no lag, which a filter of the past alone always has. In it, a parabola is
fitted to each coordinate, so that motion and acceleration stay; what does not fit, such as the time before a quick turn
of the head, loses its weight.
"""

from collections.abc import Mapping

import numpy as np

from gpen_plugin.restore.face import DetectedFace

AHEAD = 8  # frames that are looked ahead, and back
REACH = 4.0  # frames: standard deviation of the weights over time
NEAR = 1.0  # the same of the first, narrow guess
TOLERANCE = 3.0  # standard deviations of the noise after which a frame loses its weight
PASSES = 3
LEAST_NOISE = 0.002  # of the distance from a landmark to the middle of all


def smoothed(faces: Mapping[int, DetectedFace], frame: int) -> DetectedFace:
    """Where a face is in one frame, judged by the frames around it.

    Args:
        faces: one face as it was found, by the number of the frame; `frame` itself may be missing.
        frame: number of the frame, between the first and the last of `faces`.
    Returns:
        The face with landmarks and box smoothed, or interpolated where it was not found.
    """
    frames = [number for number in sorted(faces) if abs(number - frame) <= AHEAD]
    nearest = faces[min(faces, key=lambda number: abs(number - frame))]
    if len(frames) < 3:
        values = _interpolated(faces, frame)
    else:
        values = _fitted(np.array(frames) - frame, np.stack([_values(faces[number]) for number in frames]))
    return DetectedFace(values[10:], values[:10].reshape(5, 2), nearest.score, nearest.detector)


def spread(landmarks: np.ndarray) -> float:
    """Size of a face, from the front or from the side: root mean square distance of its landmarks to their middle.

    Args:
        landmarks: (5, 2).
    """
    return float(np.sqrt(((landmarks - landmarks.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _values(face: DetectedFace) -> np.ndarray:
    return np.concatenate([face.landmarks.ravel(), face.box])  # (14,)


def _interpolated(faces: Mapping[int, DetectedFace], frame: int) -> np.ndarray:
    before = max((number for number in faces if number <= frame), default=min(faces))
    after = min((number for number in faces if number >= frame), default=max(faces))
    share = 0.0 if after == before else (frame - before) / (after - before)
    return (1 - share) * _values(faces[before]) + share * _values(faces[after])


def _fitted(offsets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The parabola through the values, at offset 0: (T,) and (T, 14) to (14,)."""
    powers = np.vander(offsets / AHEAD, 3, increasing=True)  # (T, 3)
    tolerated = (TOLERANCE * _noise(offsets, values[:, :10])) ** 2
    weights = np.exp(-0.5 * (offsets / NEAR) ** 2)
    near_in_time = np.exp(-0.5 * (offsets / REACH) ** 2)
    for _ in range(PASSES):
        missed = ((values - powers @ _least_squares(powers, values, weights))[:, :10] ** 2).mean(axis=1)  # (T,)
        weights = near_in_time * np.exp(-0.5 * (missed - missed.min()) / tolerated)
    return _least_squares(powers, values, weights)[0]


def _least_squares(powers: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Coefficients of the parabola, (3, 14)."""
    root = np.sqrt(weights)[:, None]
    return np.linalg.lstsq(powers * root, values * root, rcond=None)[0]


def _noise(offsets: np.ndarray, values: np.ndarray) -> float:
    """Standard deviation of a coordinate's noise: by how much frames miss the line between their neighbours."""
    whole, first, second = offsets[2:] - offsets[:-2], offsets[1:-1] - offsets[:-2], offsets[2:] - offsets[1:-1]
    before, after = (second / whole)[:, None], (first / whole)[:, None]  # (T - 2, 1)
    missed = (values[1:-1] - before * values[:-2] - after * values[2:]) / np.sqrt(1 + before**2 + after**2)
    typical = np.median(np.abs(missed)) / 0.6745  # of a normal distribution
    return max(float(typical), LEAST_NOISE * spread(values[len(values) // 2].reshape(5, 2)), 1e-6)
