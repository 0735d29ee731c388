"""Augmentation for a prior that learns from few images (StyleGAN2-ADA, DiffAugment)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from gpen_plugin.errors import OptionError

TransformName = Literal["flip", "rotate90", "translate", "geometry", "color", "hue", "cutout"]

# Ranges: Karras et al. 2020, Training Generative Adversarial Networks with Limited Data, appendix B.
TRANSLATION = 0.125  # farthest shift in whole pixels, as a fraction of the side (DiffAugment's too)
SHIFT_STD = 0.125  # standard deviation of the fractional shift, as a fraction of the side
SCALE_STD = 0.2  # of the base-2 logarithm of the scale
STRETCH_STD = 0.2  # of the base-2 logarithm of the stretching of one axis, by which the other shrinks
ROTATION = math.pi  # largest angle
BRIGHTNESS_STD = 0.2  # of what is added to an image in [-1, 1]
CONTRAST_STD = 0.5  # of the base-2 logarithm of the contrast
HUE = math.pi  # largest angle about the gray axis
SATURATION_STD = 1.0  # of the base-2 logarithm of the saturation
CUTOUT = 0.5  # side of the square that is blanked, as a fraction of the image's (DiffAugment's too)

NUMBERS = 32  # sampled per image; all transforms together use fewer


class SampleRNG:
    """Each call returns one number per image, (N,) on `device`, from the image's generator on any device."""

    def __init__(self, generators: Sequence[torch.Generator], device: torch.device):
        numbers = torch.stack([torch.rand(NUMBERS, generator=g, device=g.device) for g in generators])  # (N, NUMBERS)
        self._columns = iter(numbers.to(device).unbind(dim=1))

    def uniform(self, low: float, high: float) -> torch.Tensor:
        """From `low` up to `high`."""
        return low + (high - low) * next(self._columns)

    def normal(self, std: float) -> torch.Tensor:
        """N(0, std^2)."""
        return std * torch.special.ndtri(next(self._columns).clamp(min=2**-25))

    def bernoulli(self, p: float) -> torch.Tensor:
        """True with probability `p`."""
        return next(self._columns) < p


def flip(images: torch.Tensor, rng: SampleRNG, p: float) -> torch.Tensor:
    """Mirror left to right in half of the cases."""
    mirrored = rng.bernoulli(p) & rng.bernoulli(0.5)
    return _where(mirrored, images.flip(3), images)


def rotate90(images: torch.Tensor, rng: SampleRNG, p: float) -> torch.Tensor:
    """Rotate by zero to three quarter turns."""
    quarters = (rng.bernoulli(p) * rng.uniform(0, 4)).long()
    images = _where(quarters >= 2, images.flip(2, 3), images)
    return _where(quarters % 2 == 1, images.transpose(2, 3).flip(2), images)


def translate(images: torch.Tensor, rng: SampleRNG, p: float) -> torch.Tensor:
    """Shift by whole pixels in both directions, with reflection at the edges."""
    moved, side = rng.bernoulli(p), images.shape[2]
    for dim, shape in ((2, (-1, 1, side, 1)), (3, (-1, 1, 1, side))):
        offset = (moved * rng.uniform(-TRANSLATION, TRANSLATION) * side).round().long()
        source = torch.arange(side, device=images.device) - offset[:, None]  # (N, S)
        source = torch.where(source < 0, -1 - source, source)
        source = torch.where(source >= side, 2 * side - 1 - source, source)
        images = images.gather(dim, source.view(shape).expand_as(images))
    return images


def geometry(images: torch.Tensor, rng: SampleRNG, p: float) -> torch.Tensor:
    """Scale, rotate, stretch and shift in one resampling, with reflection at the edges."""
    scale = (rng.bernoulli(p) * rng.normal(SCALE_STD)).exp2()
    angle = rng.bernoulli(p) * rng.uniform(-ROTATION, ROTATION)
    stretch = (rng.bernoulli(p) * rng.normal(STRETCH_STD)).exp2()
    shifted = rng.bernoulli(p)
    # an image is 2 wide in the coordinates of affine_grid
    across, down = (2 * shifted * rng.normal(SHIFT_STD) for _ in range(2))
    cos, sin, wide, high = angle.cos(), angle.sin(), scale * stretch, scale / stretch
    origins = torch.stack(
        [
            torch.stack([wide * cos, -high * sin, -wide * cos * across + high * sin * down], dim=1),
            torch.stack([wide * sin, high * cos, -wide * sin * across - high * cos * down], dim=1),
        ],
        dim=1,
    )  # (N, 2, 3): from new to old coordinates
    grid = F.affine_grid(origins, list(images.shape), align_corners=False)  # (N, S, S, 2)
    sampled = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    moved = (origins != torch.eye(2, 3, device=origins.device)).any(dim=2).any(dim=1)
    return _where(moved, sampled, images)


def color(images: torch.Tensor, rng: SampleRNG, p: float) -> torch.Tensor:
    """Change brightness, contrast and saturation in one affine map of the colors."""
    brightness = rng.bernoulli(p) * rng.normal(BRIGHTNESS_STD)
    contrast = (rng.bernoulli(p) * rng.normal(CONTRAST_STD)).exp2()
    saturation = (rng.bernoulli(p) * rng.normal(SATURATION_STD)).exp2()
    gray, chroma, _ = _color_axes(images.device)
    matrix = contrast[:, None, None] * (gray + saturation[:, None, None] * chroma)  # (N, 3, 3)
    changed = (brightness != 0) | (contrast != 1) | (saturation != 1)
    return _where(changed, _recolored(images, matrix, contrast * brightness), images)


def hue(images: torch.Tensor, rng: SampleRNG, p: float) -> torch.Tensor:
    """Rotate the colors about the gray axis."""
    angle = rng.bernoulli(p) * rng.uniform(-HUE, HUE)
    gray, chroma, quarter = _color_axes(images.device)
    matrix = gray + angle.cos()[:, None, None] * chroma + angle.sin()[:, None, None] * quarter  # (N, 3, 3)
    return _where(angle != 0, _recolored(images, matrix, torch.zeros_like(angle)), images)


def cutout(images: torch.Tensor, rng: SampleRNG, p: float) -> torch.Tensor:
    """Blank a square, which may reach over the edge, to mid gray."""
    side = images.shape[2]
    centers = (torch.arange(side, device=images.device) + 0.5) / side
    cut = rng.bernoulli(p)[:, None, None]
    rows, columns = ((centers - rng.uniform(0, 1)[:, None]).abs() < CUTOUT / 2 for _ in range(2))  # (N, S)
    return images * ~(cut & rows[:, :, None] & columns[:, None, :])[:, None]  # (N, 1, S, S)


TRANSFORMS: dict[TransformName, Callable[[torch.Tensor, SampleRNG, float], torch.Tensor]] = {
    "flip": flip,
    "rotate90": rotate90,
    "translate": translate,
    "geometry": geometry,
    "color": color,
    "hue": hue,
    "cutout": cutout,
}
"""(images (N, 3, S, S), random numbers, p) -> images of the same shape."""


def _where(chosen: torch.Tensor, changed: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return torch.where(chosen[:, None, None, None], changed, images)


def _color_axes(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Matrices from a color to its gray, to its chroma, and to the chroma turned by 90 degrees, (3, 3) each."""
    gray = torch.full((3, 3), 1 / 3, device=device)
    quarter = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=device) / math.sqrt(3)
    return gray, torch.eye(3, device=device) - gray, quarter


def _recolored(images: torch.Tensor, matrix: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    colors = matrix @ images.flatten(2) + offset[:, None, None]  # (N, 3, S * S)
    return colors.view(images.shape)


@dataclass(frozen=True)
class AugmentOptions:
    """``train:augment_opt``."""

    # applied in this order; the default is the ADA paper's recommendation
    transforms: Sequence[TransformName] = ("flip", "rotate90", "translate", "geometry", "color", "hue")
    # probability of each transform per image; with a `target`, the initial value. Near 1 the generator learns the
    # changes of all transforms except translate, color and cutout
    p: float = 0.0
    # p is adapted until r_t, the mean sign of D's logits of real images, has this value; ~ for a constant p. The ADA
    # paper's is 0.6
    target: float | None = 0.6
    ramp_images: int = 500_000  # real images in which p can rise from 0 to 1. The ADA paper's is 500,000
    every: int = 4  # iterations between two adjustments. The ADA paper's is 4

    def __post_init__(self):
        if not self.transforms or len(set(self.transforms)) < len(self.transforms):
            expected = "one transform or several, each once"
            raise OptionError("transforms", f"got {list(self.transforms)}", expected, f"There are {_known()}.")
        for name in self.transforms:
            if name not in TRANSFORMS:
                raise OptionError("transforms", f"got {name!r}", f"some of {_known()}")
        if not 0 <= self.p <= 1:
            raise OptionError("p", f"got {self.p}", "a probability from 0 to 1", "Start at 0 where target is given.")
        if self.target is not None and not -1 < self.target < 1:
            hint = "The ADA paper's is 0.6; ~ fixes p."
            raise OptionError("target", f"got {self.target}", "a mean sign, above -1 and below 1", hint)
        for name, usual in (("ramp_images", "500,000 images"), ("every", "4 iterations")):
            if getattr(self, name) < 1:
                got = f"got {getattr(self, name)}"
                raise OptionError(name, got, "a whole number from 1", f"The ADA paper's is {usual}.")


class Augmentation:
    """Augments what D sees. It can be differentiated once, not twice, so R1 is taken at the augmented images."""

    def __init__(self, options: AugmentOptions):
        self.p = float(options.p)  # current probability of each transform
        self.every = options.every  # iterations between two calls of `update`
        self._target, self._ramp_images = options.target, options.ramp_images
        self._transforms = [TRANSFORMS[name] for name in options.transforms]

    @property
    def adaptive(self) -> bool:
        """Whether p follows the discriminator."""
        return self._target is not None

    def __call__(self, images: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Augment images, (N, 3, S, S), float32, in [-1, 1], each with its own generator; as they are if p is 0."""
        assert len(generators) == len(images)
        assert images.shape[2] == images.shape[3]
        if self.p == 0:
            return images
        rng = SampleRNG(generators, images.device)
        for transform in self._transforms:
            images = transform(images, rng, self.p)
        return images

    def update(self, sign_mean: float, images: int) -> None:
        """Raise p if r_t = `sign_mean` is above the target, else lower it.

        r_t is the mean sign of D's logits of `images` real images, on all ranks, since the last call.
        """
        assert self.adaptive
        direction = (sign_mean > self._target) - (sign_mean < self._target)
        self.p = min(max(self.p + direction * images / self._ramp_images, 0.0), 1.0)

    def state_dict(self) -> dict[str, float]:
        """For the training state."""
        return {"p": self.p}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore p if it is adaptive; a constant p is the option file's."""
        if self.adaptive:
            self.p = float(state["p"])


def _known() -> str:
    return ", ".join(TRANSFORMS)
