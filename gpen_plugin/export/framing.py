"""Faces in another alignment than the network's: crops of one size and framing in, and results in the same out."""

from dataclasses import dataclass

import numpy as np

from gpen_plugin.restore.alignment import scale_template

SAME = 0.02  # difference of scale, or of position as a fraction of the side, that needs no resampling
FEATHER = 1 / 16  # of the network's square, in which its result fades out


@dataclass(frozen=True)
class Frame:
    """The position of a network's square in a crop of another alignment, without rotation.

    Pixel p of the crop is pixel ``scale * p + shift`` of the network's input; 0 is the center of the first pixel.
    """

    size: int  # side of the crop in pixels
    scale: float
    shift: tuple[float, float]  # x and y


def fit_frame(
    template: np.ndarray,  # (5, 2), fractions of the side, of the crops
    size: int,  # side of the crops
    own: np.ndarray,  # (5, 2), of the network's faces
    in_size: int,  # side of the network's input
    out_size: int,  # of its output
) -> Frame | None:
    """The frame that lays the points of one template on the other's, by least squares; None if it changes nothing."""
    given, wanted = scale_template(template, size), scale_template(own, in_size)
    center, target = given.mean(axis=0), wanted.mean(axis=0)
    scale = float(((given - center) * (wanted - target)).sum() / ((given - center) ** 2).sum())
    shift = target - scale * center
    moved = np.abs((scale - 1) * (size - 1) / 2 + shift).max() / size  # of the crop's center
    if size == in_size == out_size and abs(scale - 1) < SAME and moved < SAME:
        return None
    return Frame(size, scale, (float(shift[0]), float(shift[1])))


def resampling_matrix(
    count: int,  # of samples in the result
    length: int,  # of samples in the source
    scale: float,  # sample i of the result is position (i - shift) / scale of the source
    shift: float,
) -> np.ndarray:
    """(count, length) float32: linear interpolation; a mean over 1 / scale samples, tent-weighted, where it shrinks.

    Positions outside take the nearest sample.
    """
    positions = np.clip((np.arange(count) - shift) / scale, 0, length - 1)  # (count,)
    reach = max(1.0, 1 / scale)
    weights = np.clip(1 - np.abs(np.arange(length) - positions[:, None]) / reach, 0, None)  # (count, length)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def fading(frame: Frame, in_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the result for each row and each column of the crop, both (size,) float32, in [0, 1].

    It fades out at the edges of the network's square that lie inside the crop.
    """
    side = in_size / frame.scale  # pixels of the crop
    return _fading(frame, 1, side), _fading(frame, 0, side)


def _fading(frame: Frame, axis: int, side: float) -> np.ndarray:
    first = (-0.5 - frame.shift[axis]) / frame.scale  # the edge before the network's first pixel
    pixels = np.arange(frame.size)
    weights = np.ones(frame.size)
    for edge, distance in ((first, pixels - first), (first + side, first + side - pixels)):
        if -0.5 < edge < frame.size - 0.5:
            weights = np.minimum(weights, np.clip(distance / (FEATHER * side), 0, 1))
    return weights.astype(np.float32)
