"""What augmentation may do to a picture, one function each, differentiable with respect to the picture.

Nothing leaks into what the generator draws as long as p is below 1: a transform leaves a picture alone with probability
1 - p, and its changes are as likely in one direction as in the other (StyleGAN2-ADA, appendix C). `translate`, `color`
and `cutout` may stand at p = 1, as in DiffAugment; after the others no way up or no hue would be more likely than
another, and the generator could draw any. Pictures may leave [-1, 1]: cutting them off would hide their gradient.

The parts of `geometry` and `color` roll the dice each for itself, as the ADA paper's do. Three things are simpler than
there: bilinear sampling without a band limit, one rotation instead of two around the stretching, and no luma flip,
which turns faces into negatives. DiffAugment's translation and cutout have the same ranges; its padding is zeros.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch.nn import functional as F

TransformName = Literal["flip", "rotate90", "translate", "geometry", "color", "hue", "cutout"]

# Ranges: Karras et al. 2020, Training Generative Adversarial Networks with Limited Data, appendix B.
TRANSLATION = 0.125  # farthest shift in whole pixels, as a share of the side (DiffAugment's too)
SHIFT_STD = 0.125  # standard deviation of the fractional shift, as a share of the side
SCALE_STD = 0.2  # of the base-2 logarithm of the scale
STRETCH_STD = 0.2  # of the base-2 logarithm of the stretching of one axis, by which the other shrinks
ROTATION = math.pi  # largest angle
BRIGHTNESS_STD = 0.2  # of what is added to a picture in [-1, 1]
CONTRAST_STD = 0.5  # of the base-2 logarithm of the contrast
HUE = math.pi  # largest angle about the grey axis
SATURATION_STD = 1.0  # of the base-2 logarithm of the saturation
CUTOUT = 0.5  # side of the square that is blanked, as a share of the picture's (DiffAugment's too)

NUMBERS = 32  # drawn for each picture, more than all transforms together take


class Chances:
    """Random numbers for a batch: each call gives one per picture, (N,), from that picture's stream alone.

    Args:
        streams: one generator per picture, on any device.
        device: where the numbers are wanted.
    """

    def __init__(self, streams: Sequence[torch.Generator], device: torch.device):
        numbers = torch.stack([torch.rand(NUMBERS, generator=s, device=s.device) for s in streams])  # (N, NUMBERS)
        self._columns = iter(numbers.to(device).unbind(dim=1))

    def uniform(self, low: float, high: float) -> torch.Tensor:
        """From `low` up to `high`."""
        return low + (high - low) * next(self._columns)

    def normal(self, std: float) -> torch.Tensor:
        """N(0, std^2)."""
        return std * torch.special.ndtri(next(self._columns).clamp(min=2**-25))

    def happens(self, p: float) -> torch.Tensor:
        """True with probability `p`."""
        return next(self._columns) < p


def flip(pictures: torch.Tensor, chances: Chances, p: float) -> torch.Tensor:
    """Left to right, or not, evenly."""
    mirrored = chances.happens(p) & chances.happens(0.5)
    return _where(mirrored, pictures.flip(3), pictures)


def rotate90(pictures: torch.Tensor, chances: Chances, p: float) -> torch.Tensor:
    """By none to three quarter turns, evenly."""
    quarters = (chances.happens(p) * chances.uniform(0, 4)).long()
    pictures = _where(quarters >= 2, pictures.flip(2, 3), pictures)
    return _where(quarters % 2 == 1, pictures.transpose(2, 3).flip(2), pictures)


def translate(pictures: torch.Tensor, chances: Chances, p: float) -> torch.Tensor:
    """By whole pixels in both directions; what is missing at the edge is mirrored."""
    moved, side = chances.happens(p), pictures.shape[2]
    for dim, shape in ((2, (-1, 1, side, 1)), (3, (-1, 1, 1, side))):
        offset = (moved * chances.uniform(-TRANSLATION, TRANSLATION) * side).round().long()
        source = torch.arange(side, device=pictures.device) - offset[:, None]  # (N, S)
        source = torch.where(source < 0, -1 - source, source)
        source = torch.where(source >= side, 2 * side - 1 - source, source)
        pictures = pictures.gather(dim, source.view(shape).expand_as(pictures))
    return pictures


def geometry(pictures: torch.Tensor, chances: Chances, p: float) -> torch.Tensor:
    """Scale, rotation, stretching and fractional shift in one sampling; what is missing at the edge is mirrored."""
    scale = (chances.happens(p) * chances.normal(SCALE_STD)).exp2()
    angle = chances.happens(p) * chances.uniform(-ROTATION, ROTATION)
    stretch = (chances.happens(p) * chances.normal(STRETCH_STD)).exp2()
    shifted = chances.happens(p)
    # a picture is 2 wide in the coordinates of affine_grid
    across, down = (2 * shifted * chances.normal(SHIFT_STD) for _ in range(2))
    cos, sin, wide, high = angle.cos(), angle.sin(), scale * stretch, scale / stretch
    origins = torch.stack(
        [
            torch.stack([wide * cos, -high * sin, -wide * cos * across + high * sin * down], dim=1),
            torch.stack([wide * sin, high * cos, -wide * sin * across - high * cos * down], dim=1),
        ],
        dim=1,
    )  # (N, 2, 3): where in the old picture a place of the new one lies
    grid = F.affine_grid(origins, list(pictures.shape), align_corners=False)  # (N, S, S, 2)
    sampled = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    moved = (origins != torch.eye(2, 3, device=origins.device)).any(dim=2).any(dim=1)
    return _where(moved, sampled, pictures)


def color(pictures: torch.Tensor, chances: Chances, p: float) -> torch.Tensor:
    """Brightness, contrast and saturation in one affine map of the colours."""
    brightness = chances.happens(p) * chances.normal(BRIGHTNESS_STD)
    contrast = (chances.happens(p) * chances.normal(CONTRAST_STD)).exp2()
    saturation = (chances.happens(p) * chances.normal(SATURATION_STD)).exp2()
    grey, chroma, _ = _color_axes(pictures.device)
    matrix = contrast[:, None, None] * (grey + saturation[:, None, None] * chroma)  # (N, 3, 3)
    changed = (brightness != 0) | (contrast != 1) | (saturation != 1)
    return _where(changed, _recolored(pictures, matrix, contrast * brightness), pictures)


def hue(pictures: torch.Tensor, chances: Chances, p: float) -> torch.Tensor:
    """Turn the colours about the grey axis."""
    angle = chances.happens(p) * chances.uniform(-HUE, HUE)
    grey, chroma, quarter = _color_axes(pictures.device)
    matrix = grey + angle.cos()[:, None, None] * chroma + angle.sin()[:, None, None] * quarter  # (N, 3, 3)
    return _where(angle != 0, _recolored(pictures, matrix, torch.zeros_like(angle)), pictures)


def cutout(pictures: torch.Tensor, chances: Chances, p: float) -> torch.Tensor:
    """Blank a square, which may reach over the edge, to mid grey."""
    side = pictures.shape[2]
    centres = (torch.arange(side, device=pictures.device) + 0.5) / side
    cut = chances.happens(p)[:, None, None]
    rows, columns = ((centres - chances.uniform(0, 1)[:, None]).abs() < CUTOUT / 2 for _ in range(2))  # (N, S)
    return pictures * ~(cut & rows[:, :, None] & columns[:, None, :])[:, None]  # (N, 1, S, S)


TRANSFORMS: dict[TransformName, Callable[[torch.Tensor, Chances, float], torch.Tensor]] = {
    "flip": flip,
    "rotate90": rotate90,
    "translate": translate,
    "geometry": geometry,
    "color": color,
    "hue": hue,
    "cutout": cutout,
}
"""Each takes pictures, (N, 3, S, S), random numbers and p, and returns pictures of the same shape."""


def _where(chosen: torch.Tensor, changed: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    return torch.where(chosen[:, None, None, None], changed, pictures)


def _color_axes(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What takes a colour to its grey, to the rest of it, and to that rest turned by 90 degrees, (3, 3) each."""
    grey = torch.full((3, 3), 1 / 3, device=device)
    quarter = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=device) / math.sqrt(3)
    return grey, torch.eye(3, device=device) - grey, quarter


def _recolored(pictures: torch.Tensor, matrix: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    colors = matrix @ pictures.flatten(2) + offset[:, None, None]  # (N, 3, S * S)
    return colors.view(pictures.shape)
