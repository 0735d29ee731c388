"""A square image that is painted through soft masks, in coordinates from -1 to 1."""

from collections.abc import Sequence

import cv2
import numpy as np


def bump(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    """A Gaussian hill of height 1."""
    return np.exp(-((x / width) ** 2) - (y / height) ** 2)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


class Canvas:
    """An image and the coordinates of its pixels.

    Args:
        side: in pixels.
        rng: for the textures.
    Attributes:
        image: (side, side, 3) RGB float32, about [0, 1].
        x: (side, side) in half sides, to the right; moved by `move_to`.
        y: the same, downwards.
        frame_x: `x` as it was before any move; frame_y likewise.
    """

    def __init__(self, side: int, rng: np.random.Generator):
        line = (np.arange(side, dtype=np.float32) + 0.5) * (2 / side) - 1
        self.frame_x, self.frame_y = np.meshgrid(line, line)
        self.x, self.y = self.frame_x, self.frame_y
        self.image = np.zeros((side, side, 3), np.float32)
        self._pixel = 2 / side
        self._rng = rng

    def move_to(self, centre: tuple[float, float], scale: float, roll: float) -> None:
        """Put the origin elsewhere, enlarge by `scale` and turn by `roll` radians."""
        x, y = self.frame_x - centre[0], self.frame_y - centre[1]
        cos, sin = np.cos(roll) / scale, np.sin(roll) / scale
        self.x, self.y = np.float32(cos) * x + np.float32(sin) * y, np.float32(cos) * y - np.float32(sin) * x

    def mask(self, distance: np.ndarray, softness: float = 0.0) -> np.ndarray:
        """1 where a signed distance is negative, 0 outside, with an edge of 1.5 pixels and `softness` besides."""
        return self.ramp(-distance, 1.5 * self._pixel + softness)

    @staticmethod
    def ramp(value: np.ndarray, width: float) -> np.ndarray:
        """From 0 to 1, smoothly, while `value` goes from -width / 2 to width / 2."""
        step = np.clip(value / width + 0.5, 0, 1)
        return step * step * (3 - 2 * step)

    def ellipse(self, x: float, y: float, width: float, height: float) -> np.ndarray:
        """Signed distance, about, to an ellipse with these half axes."""
        radius = np.sqrt(((self.x - x) / width) ** 2 + ((self.y - y) / height) ** 2)
        return (radius - 1) * min(width, height)

    def noise(self, cells: int) -> np.ndarray:
        """Smooth random values, about -1 to 1, with so many hills along a side; the same at any resolution."""
        grid = self._rng.uniform(-1, 1, (cells + 3, cells + 3)).astype(np.float32)
        return cv2.resize(grid, self.x.shape[::-1], interpolation=cv2.INTER_CUBIC)

    def strands(self, angle: np.ndarray, count: int) -> np.ndarray:
        """Random values, 0 to 1, that depend on `angle` (radians) alone: hairs, if it is the way they fall."""
        values = self._rng.uniform(0, 1, count)
        return np.interp(angle, np.linspace(-np.pi, np.pi, count), values).astype(np.float32)

    def paint(
        self,
        colour: Sequence[float],
        alpha: np.ndarray | float,
        light: np.ndarray | float = 1.0,
        tint: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        """Lay a colour, times `tint` and `light`, over the image where `alpha` is 1."""
        layer = np.asarray(colour, np.float32) * np.asarray(tint, np.float32)
        layer = layer * np.asarray(light, np.float32)[..., None]  # (side, side, 3) or (1, 3)
        self.image += (layer - self.image) * np.asarray(alpha, np.float32)[..., None]

    def tint(self, factors: Sequence[float], alpha: np.ndarray) -> None:
        """Multiply the channels by `factors` where `alpha` is 1."""
        self.image *= 1 + (np.asarray(factors, np.float32) - 1) * alpha.astype(np.float32)[..., None]

    def shade(self, light: np.ndarray) -> None:
        """Multiply all channels."""
        self.image *= light.astype(np.float32)[..., None]

    def lit(self, height: np.ndarray, light: tuple[float, float]) -> np.ndarray:
        """Brightness of a slightly shining surface under one soft light from (x, y) and some from all around."""
        down, across = np.gradient(height.astype(np.float32), self._pixel)
        normal = np.stack([-across, -down, np.ones_like(across)])  # (3, side, side)
        normal /= np.linalg.norm(normal, axis=0)
        direction = _unit(np.array([*light, 1.0], np.float32))
        facing = np.tensordot(direction, normal, 1)  # (side, side)
        halfway = _unit(direction + np.array([0, 0, 1], np.float32))
        shine = np.clip(np.tensordot(halfway, normal, 1), 0, 1) ** 40
        return (0.40 + 0.57 * np.clip((facing + 0.25) / 1.25, 0, 1) + 0.07 * shine).astype(np.float32)
