"""Synthetic faces: portraits made of shapes, as many as needed, for the demo, the tests and the benchmarks.

A face is a set of smooth surfaces and outlines. Skin is a height field that is lit from one side; hair, eyes, lips and
clothes are painted over it back to front, each through a mask with soft edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Color = tuple[float, float, float]
HairStyle = Literal["bald", "short", "crop", "bob", "long", "afro", "bun"]

# (skin, hair colors and iris colors that are seen with it): from light to dark
_COMPLEXIONS = (
    ("f6d7c3", ("e6c27a", "b5743a", "8a4f2a", "5a3a22", "c9a063"), ("6f9fc4", "7ba37b", "8a8f98", "6b4a2b")),
    ("efc7a8", ("6b4326", "3c2718", "a8743f", "d0a45e"), ("5f8fb8", "6d8f5f", "5c3d22", "7a5a35")),
    ("e3b48e", ("2b1d14", "1c1512", "4a2f1d"), ("4a2f1a", "3a2414", "6b6a3c")),
    ("cb9a75", ("1b1411", "2c1d15", "3a261a"), ("3d2615", "55381f")),
    ("a97856", ("16110f", "211713"), ("33200f", "402813")),
    ("825640", ("120e0d", "1d1512"), ("2b1a0f", "38220f")),
    ("5f3f30", ("0f0c0b", "191310"), ("24160d", "2e1b0e")),
)
_GRAY_HAIR = ("b9b6b2", "8f8c8a", "d8d5cf")
_CLOTHES = ("2f4a6d", "7c2f3a", "e9e4d8", "2c2c34", "4d6b57", "c58b3b", "6a4c7d", "a8b8c8", "b6584a", "35606b")
_BACKGROUNDS = ("9fb4c7", "cdbfa8", "6f7f76", "d9d6d0", "51647a", "b78f78", "8aa089", "39424e", "c7a9a1", "a8a4b8")
_STYLES: tuple[HairStyle, ...] = ("short", "crop", "bob", "long", "afro", "bun", "bald")
_STYLE_SHARES = (0.27, 0.15, 0.17, 0.21, 0.07, 0.09, 0.04)


@dataclass(frozen=True)
class FaceTraits:
    """All that differs between two faces; the ranges are in `sample_traits`.

    Lengths are in half sides of the image, with (0, 0) in its middle and y downwards; colors are RGB in [0, 1].
    """

    head_width: float
    head_height: float
    jaw: float
    skin: Color
    hair: Color
    iris: Color
    clothes: Color
    background: tuple[Color, Color]
    hair_style: HairStyle
    hairline: float
    parting: float
    eye_distance: float
    eye_width: float
    eye_opening: float
    eye_tilt: float
    gaze: tuple[float, float]
    brow_height: float
    brow_weight: float
    brow_arch: float
    nose_width: float
    nose_tip: float
    mouth_y: float
    mouth_width: float
    lips: float
    lip_color: float
    smile: float
    teeth: float
    beard: float
    age: float
    freckles: float
    glasses: bool
    shift: tuple[float, float]
    scale: float
    roll: float
    yaw: float
    light: tuple[float, float]
    warmth: float


def sample_traits(rng: np.random.Generator) -> FaceTraits:
    """Sample a face. Traits that are correlated in people are loosely so here, such as gray hair and folds."""
    skin, hairs, irises = _COMPLEXIONS[rng.choice(len(_COMPLEXIONS), p=(0.2, 0.19, 0.17, 0.14, 0.12, 0.1, 0.08))]
    age = float(rng.beta(1.3, 2.2))
    hair = _pick(rng, _GRAY_HAIR if rng.random() < max(0, age - 0.35) * 1.5 else hairs)
    style = _STYLES[rng.choice(len(_STYLES), p=_STYLE_SHARES)]
    bearded = style in ("short", "crop", "bald", "afro") and rng.random() < 0.4
    smile = float(rng.uniform(-0.1, 1.0))
    return FaceTraits(
        head_width=rng.uniform(0.52, 0.59),
        head_height=rng.uniform(0.71, 0.8),
        jaw=rng.uniform(0.0, 1.0),
        skin=_vary(rng, _rgb(skin), 0.035),
        hair=_vary(rng, _rgb(hair), 0.03),
        iris=_vary(rng, _rgb(_pick(rng, irises)), 0.04),
        clothes=_vary(rng, _rgb(_pick(rng, _CLOTHES)), 0.05),
        background=tuple(_vary(rng, _rgb(_pick(rng, _BACKGROUNDS)), 0.06) for _ in range(2)),
        hair_style=style,
        hairline=rng.uniform(-0.56, -0.44) - 0.08 * age * (style in ("short", "crop")),
        parting=rng.uniform(-0.6, 0.6),
        eye_distance=rng.uniform(0.232, 0.265),
        eye_width=rng.uniform(0.11, 0.13),
        eye_opening=rng.uniform(0.36, 0.56),
        eye_tilt=rng.uniform(-0.08, 0.14),
        gaze=(rng.uniform(-0.2, 0.2), rng.uniform(-0.06, 0.08)),
        brow_height=rng.uniform(0.13, 0.17),
        brow_weight=rng.uniform(0.014, 0.032),
        brow_arch=rng.uniform(0.01, 0.05),
        nose_width=rng.uniform(0.075, 0.12),
        nose_tip=rng.uniform(0.2, 0.26),
        mouth_y=rng.uniform(0.42, 0.48),
        mouth_width=rng.uniform(0.185, 0.23) + 0.03 * max(0, smile),
        lips=rng.uniform(0.04, 0.07),
        lip_color=rng.uniform(0.3, 1.0) * (0.5 if bearded else 1),
        smile=smile,
        teeth=rng.uniform(0.4, 1.0) if smile > 0.45 and rng.random() < 0.6 else 0.0,
        beard=rng.uniform(0.25, 1.0) if bearded else 0.0,
        age=age,
        freckles=rng.uniform(0.3, 1) if skin == "f6d7c3" and rng.random() < 0.3 else 0.0,
        glasses=bool(rng.random() < 0.14),
        shift=(rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)),
        scale=rng.uniform(0.96, 1.05),
        roll=rng.normal(0, 0.05),
        yaw=rng.uniform(-1, 1),
        light=(rng.uniform(-0.75, 0.75), rng.uniform(-0.7, -0.15)),
        warmth=rng.uniform(-0.5, 1.0),
    )


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[rng.integers(len(choices))]


def _rgb(code: str) -> Color:
    return tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))


def _vary(rng: np.random.Generator, color: Color, amount: float) -> Color:
    """Change brightness, and each channel a little for itself."""
    brightness = 1 + rng.normal(0, 1.5 * amount)
    return tuple(float(np.clip(c * brightness + rng.normal(0, 0.2 * amount), 0, 1)) for c in color)


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

    def move_to(self, center: tuple[float, float], scale: float, roll: float) -> None:
        """Put the origin elsewhere, enlarge by `scale` and turn by `roll` radians."""
        x, y = self.frame_x - center[0], self.frame_y - center[1]
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
        color: Sequence[float],
        alpha: np.ndarray | float,
        light: np.ndarray | float = 1.0,
        tint: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        """Lay a color, times `tint` and `light`, over the image where `alpha` is 1."""
        layer = np.asarray(color, np.float32) * np.asarray(tint, np.float32)
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


_OVERSAMPLING = 2


def render_face(seed: int, size: int) -> np.ndarray:
    """Render a portrait, (size, size, 3) BGR uint8, in the framing of FFHQ: eyes at 47 % of the height, 25 % apart.

    The same seed gives the same face at any size, in more or less detail.
    """
    rng = np.random.default_rng(seed)
    traits = sample_traits(rng)
    canvas = Canvas(size * _OVERSAMPLING, rng)
    _paint_background(canvas, traits)
    canvas.move_to(traits.shift, traits.scale, traits.roll)
    paint_hair_behind(canvas, traits)
    _paint_body(canvas, traits)
    _paint_head(canvas, traits)
    paint_eyes(canvas, traits)
    paint_brows(canvas, traits)
    paint_nose(canvas, traits)
    paint_mouth(canvas, traits)
    paint_beard(canvas, traits, head_outline(canvas, traits))
    paint_hair_in_front(canvas, traits)
    if traits.glasses:
        paint_glasses(canvas, traits)
    image = cv2.resize(_finish(canvas, traits), (size, size), interpolation=cv2.INTER_AREA)
    return np.rint(np.clip(image[:, :, ::-1], 0, 1) * 255).astype(np.uint8)


def _paint_background(canvas: Canvas, traits: FaceTraits) -> None:
    near, far = traits.background
    across = 0.5 + 0.35 * canvas.x * np.sign(traits.light[0]) + 0.3 * canvas.y
    canvas.paint(near, 1)
    canvas.paint(far, np.clip(across, 0, 1))
    canvas.shade(1 + 0.16 * canvas.noise(3))


def _paint_body(canvas: Canvas, traits: FaceTraits) -> None:
    x, y = canvas.x, canvas.y
    half_neck = 0.72 * traits.head_width * (0.8 + 0.25 * traits.jaw)
    neck = np.maximum(np.abs(x) - half_neck * (1 + 0.35 * np.clip(y - 0.75, 0, 1)), 0.3 - y)
    fall = 0.62 + 0.3 * (x / half_neck * 0.45) ** 2  # light is lost below the chin and towards the sides
    light = np.clip(1.08 - 0.45 * fall + 0.3 * traits.light[0] * x, 0.35, 1)
    shadow = 1 - 0.4 * np.exp(-((np.clip(head_outline(canvas, traits), 0, 1) / 0.13) ** 2))
    canvas.paint(traits.skin, canvas.mask(neck), light=light * shadow)
    collar = 0.93 - 0.16 * np.clip(np.abs(x) / half_neck, 0, 1.4) ** 2
    outline = np.maximum(collar, 0.82 + 0.28 * np.abs(x) ** 2.2) - y
    light = 0.8 + 0.25 * traits.light[0] * x + 0.12 * canvas.noise(7)
    canvas.paint(traits.clothes, canvas.mask(outline), light=light)


def head_outline(canvas: Canvas, traits: FaceTraits) -> np.ndarray:
    """Signed distance to the outline of the head, negative inside: an egg whose jaw is more or less square."""
    x, y = canvas.x - 0.025 * traits.yaw, canvas.y - 0.07
    lower = np.clip(y / traits.head_height, 0, 1)
    narrowing = 1 - (0.30 - 0.16 * traits.jaw) * lower**1.6
    power = 2 + (0.3 + 0.45 * traits.jaw) * lower
    radius = (np.abs(x / (traits.head_width * narrowing)) ** power + np.abs(y / traits.head_height) ** power) ** (
        1 / power
    )
    return (radius - 1) * traits.head_width


def _paint_head(canvas: Canvas, traits: FaceTraits) -> None:
    for side in (-1, 1):
        ear = canvas.ellipse(side * (traits.head_width + 0.005) + 0.05 * traits.yaw, 0.06, 0.062, 0.13)
        light = 0.78 + 0.2 * side * traits.light[0] - 0.25 * canvas.mask(ear + 0.028)
        canvas.paint(traits.skin, canvas.mask(ear), light=light, tint=(1.0, 0.93, 0.9))
    outline = head_outline(canvas, traits)
    inside = canvas.mask(outline)
    light = canvas.lit(_relief(canvas, traits, outline), traits.light)
    blood = _blood(canvas, traits)
    canvas.paint(traits.skin, inside, light=light * (1 + 0.02 * canvas.noise(60)))
    canvas.tint((1.06, 0.90, 0.88), inside * blood)
    if traits.freckles:
        spots = np.clip(canvas.noise(90) - 0.55, 0, 1) * traits.freckles
        canvas.tint((0.78, 0.62, 0.5), inside * np.clip(spots * 2, 0, 1) * np.exp(-(((canvas.y - 0.15) / 0.17) ** 2)))


def _relief(canvas: Canvas, traits: FaceTraits, outline: np.ndarray) -> np.ndarray:
    """Height of the skin above the image plane."""
    x, y, yaw = canvas.x, canvas.y, traits.yaw
    depth = np.clip(-outline / traits.head_width, 0, 1)
    height = 0.5 * np.sqrt(1 - (1 - depth) ** 2 + 1e-3)
    nose_x, tip = 0.05 * yaw, traits.nose_tip
    along = np.clip((y + 0.1) / (tip + 0.1), 0, 1)
    ridge = np.exp(-(((x - nose_x * along) / (0.045 + 0.035 * along)) ** 2)) * along**1.2 * 0.075
    height = height + ridge * canvas.ramp(tip + 0.05 - y, 0.09)
    height += 0.035 * bump(x - nose_x, y - tip, 0.06, 0.055)
    for side in (-1, 1):
        eye_x = side * traits.eye_distance + 0.03 * yaw
        height += 0.025 * bump(x - nose_x - side * traits.nose_width * 0.75, y - tip - 0.02, 0.04, 0.04)
        height -= 0.05 * bump(x - eye_x, y + 0.05, 0.15, 0.085)
        height += 0.02 * bump(x - eye_x, y + 0.06, 0.1, 0.05)
        height += 0.02 * bump(x - eye_x, y + 0.19, 0.16, 0.05)
        height += (0.035 + 0.02 * max(traits.smile, 0)) * bump(x - side * 0.29, y - 0.2, 0.15, 0.13)
        fold = x - side * (0.115 + 0.30 * (y - 0.22)) - 0.02 * yaw
        height -= (0.003 + 0.009 * traits.age + 0.006 * max(traits.smile, 0)) * bump(fold, y - 0.34, 0.03, 0.08)
        height -= 0.014 * traits.age * bump(x - eye_x, y - 0.05, 0.1, 0.02)
    height += 0.03 * bump(x - 0.035 * yaw, y - traits.mouth_y, 0.2, 0.1)
    height -= 0.03 * bump(x - 0.035 * yaw, y - traits.mouth_y - 0.12, 0.13, 0.025)
    height += 0.035 * bump(x - 0.03 * yaw, y - 0.68, 0.12, 0.09)
    wrinkles = np.sin((y + 0.4 + 0.06 * x**2) * 75) * bump(x, y + 0.33, 0.25, 0.08)
    return height + 0.0035 * np.clip(traits.age - 0.3, 0, 1) * wrinkles


def _blood(canvas: Canvas, traits: FaceTraits) -> np.ndarray:
    """Where skin is redder: cheeks, tip of the nose, chin."""
    x, y = canvas.x, canvas.y
    cheeks = sum(bump(x - side * 0.29, y - 0.2, 0.15, 0.12) for side in (-1, 1))
    return np.clip(0.7 * cheeks + 0.5 * bump(x - 0.05 * traits.yaw, y - traits.nose_tip, 0.07, 0.06), 0, 1)


def _finish(canvas: Canvas, traits: FaceTraits) -> np.ndarray:
    """Color of the light and a little loss of light towards the corners."""
    tone = np.array((1 + 0.035 * traits.warmth, 1.0, 1 - 0.05 * traits.warmth), np.float32)
    radius = canvas.frame_x**2 + canvas.frame_y**2
    return canvas.image * tone * (1.03 - 0.1 * radius)[:, :, None]


_DARK = (0.10, 0.06, 0.05)


def eye_centers(traits: FaceTraits) -> list[tuple[int, float, float]]:
    """(side, x, y) of both eyes; the one that is turned away is a little nearer to the nose."""
    return [
        (side, side * traits.eye_distance * (1 - 0.04 * side * traits.yaw) + 0.03 * traits.yaw, -0.06)
        for side in (-1, 1)
    ]


def paint_eyes(canvas: Canvas, traits: FaceTraits) -> None:
    """Eyeball, iris, pupil, reflection, lids and lashes."""
    for side, x, y in eye_centers(traits):
        width = traits.eye_width * (1 - 0.05 * side * traits.yaw)
        u, v = (canvas.x - x) / width, (canvas.y - y) / width
        v = v + traits.eye_tilt * u * side
        arch = np.clip(1 - np.abs(u) ** 2.2, 0, 1)
        upper, lower = -traits.eye_opening * arch**0.75, 0.55 * traits.eye_opening * arch
        open_part = canvas.mask(np.maximum(np.maximum(upper - v, v - lower), np.abs(u) - 1) * width)
        under_lid = np.exp(-np.clip(v - upper, 0, 9) / 0.16)
        canvas.paint((0.93, 0.91, 0.89), open_part, light=1 - 0.45 * under_lid - 0.22 * u**2)
        _paint_iris(canvas, traits, u, v, width, open_part, under_lid)
        canvas.tint((0.9, 0.62, 0.58), open_part * bump(u + side * 0.95, v - 0.02, 0.13, 0.2))
        lid = np.abs(v - upper) - (0.045 + 0.035 * np.clip(u * side + 0.6, 0, 1.6))
        inside = np.clip(1.12 - np.abs(u), 0, 0.12) / 0.12
        canvas.paint(_DARK, canvas.mask(lid * width, 0.006) * inside * 0.88)
        crease = np.abs(v - upper * 1.1 + 0.2) - 0.02
        canvas.tint((0.72, 0.62, 0.6), canvas.mask(crease * width, 0.018) * np.clip(1.1 - np.abs(u), 0, 0.4) * 1.6)
        rim = np.abs(v - lower - 0.03) - 0.025
        canvas.tint((0.75, 0.62, 0.6), canvas.mask(rim * width, 0.012) * inside * 0.6)


def _paint_iris(
    canvas: Canvas,
    traits: FaceTraits,
    u: np.ndarray,
    v: np.ndarray,
    width: float,
    open_part: np.ndarray,
    under_lid: np.ndarray,
) -> None:
    """`u` and `v` are coordinates in half widths of the eye; `open_part` is where the eyeball is seen."""
    u, v = u - traits.gaze[0] - 0.12 * traits.yaw, v - traits.gaze[1] + 0.06
    radius = np.sqrt(u * u + v * v)
    iris = canvas.mask((radius - 0.43) * width) * open_part
    rays = 0.12 * canvas.strands(np.arctan2(v, u), 60)
    light = 0.62 + 0.75 * np.clip(v + 0.25, 0, 0.5) + rays - 0.55 * canvas.ramp(radius - 0.39, 0.1) - 0.3 * under_lid
    canvas.paint(traits.iris, iris, light=light)
    canvas.paint((0.03, 0.02, 0.02), canvas.mask((radius - 0.19) * width, 0.004) * open_part)
    spot = np.sqrt((u - 0.16 * np.sign(traits.light[0])) ** 2 + (v + 0.15) ** 2)
    canvas.paint((1, 1, 1), canvas.mask((spot - 0.09) * width, 0.004) * open_part * 0.95)


def paint_brows(canvas: Canvas, traits: FaceTraits) -> None:
    """Two arcs of short hairs, thick towards the nose."""
    color = [0.75 * channel for channel in traits.hair]
    for side, x, y in eye_centers(traits):
        u = (canvas.x - x) * side / 0.15
        v = canvas.y - y + traits.brow_height + 0.012 * max(traits.smile, 0)
        line = -traits.brow_arch * (1 - (u - 0.25) ** 2) + traits.brow_arch * 0.5
        weight = traits.brow_weight * np.clip(1.15 - 0.45 * (u + 0.8), 0.1, 1.3) * canvas.ramp(1.05 - np.abs(u), 0.25)
        shape = canvas.mask(np.abs(v - line) - weight, 0.016) * canvas.ramp(1.02 - np.abs(u), 0.12)
        hairs = 0.6 + 0.5 * canvas.strands(np.clip(6 * u + 30 * v, -np.pi, np.pi), 40)
        canvas.paint(color, shape * np.clip(hairs, 0, 1) * 0.88)


def paint_nose(canvas: Canvas, traits: FaceTraits) -> None:
    """Nostrils and the shadow under the tip; the rest is relief."""
    center, base = 0.05 * traits.yaw, traits.nose_tip + 0.05
    shadow = bump(canvas.x - center, canvas.y - base - 0.018, traits.nose_width, 0.022)
    canvas.tint((0.72, 0.6, 0.56), shadow * 0.6)
    for side in (-1, 1):
        x = center + side * 0.52 * traits.nose_width
        nostril = canvas.ellipse(x, base - 0.004, 0.30 * traits.nose_width, 0.013)
        canvas.tint((0.32, 0.2, 0.18), canvas.mask(nostril, 0.014) * 0.85)
        wing = canvas.x - center - side * traits.nose_width * (1.02 - 6 * (canvas.y - base + 0.03) ** 2)
        canvas.tint((0.74, 0.62, 0.58), bump(wing, canvas.y - base + 0.025, 0.012, 0.035) * 0.8)


def paint_mouth(canvas: Canvas, traits: FaceTraits) -> None:
    """Lips around a line, or around teeth; corners go up with the smile."""
    center = 0.035 * traits.yaw
    u = (canvas.x - center) / traits.mouth_width
    arch = np.clip(1 - u * u, 0, 1)
    line = traits.mouth_y - 0.045 * traits.smile * (u * u - 0.35)
    gap = 0.042 * traits.teeth * arch
    bow = 1 - 0.22 * np.exp(-((u / 0.16) ** 2)) + 0.1 * np.exp(-(((np.abs(u) - 0.25) / 0.18) ** 2))
    top = line - 0.25 * gap - traits.lips * 0.75 * arch**0.9 * bow
    bottom = line + gap + traits.lips * arch**0.7
    lips = canvas.mask(np.maximum(np.maximum(top - canvas.y, canvas.y - bottom), (np.abs(u) - 1) * 0.1), 0.008)
    height = (canvas.y - line) / traits.lips
    light = 0.9 + 0.1 * np.tanh(3 * height) + 0.13 * bump(u - 0.2 * traits.light[0], height - 0.6, 0.45, 0.25)
    red = [channel * factor for channel, factor in zip(traits.skin, (0.9, 0.55, 0.56), strict=True)]
    canvas.paint(red, lips * (0.35 + 0.6 * traits.lip_color), light=light)
    parted = canvas.mask(np.maximum(line - 0.25 * gap - canvas.y, canvas.y - line - gap) + 0.001, 0.006)
    within = canvas.ramp(1.0 - np.abs(u), 0.12)
    if traits.teeth:
        canvas.paint((0.3, 0.12, 0.11), parted * within)
        teeth = parted * canvas.mask(canvas.y - line - 0.82 * gap, 0.01) * canvas.ramp(0.86 - np.abs(u), 0.2)
        canvas.paint((0.95, 0.93, 0.89), teeth, light=1 - 0.3 * u * u - 0.05 * np.cos(u * 22))
    else:
        canvas.paint((0.25, 0.1, 0.09), canvas.mask(np.abs(canvas.y - line) - 0.004, 0.008) * within * 0.75)
    for side in (-1, 1):
        corner = bump(u - side * 1.02, canvas.y - line, 0.07, 0.018)
        canvas.tint((0.6, 0.48, 0.46), corner * 0.7)


def paint_beard(canvas: Canvas, traits: FaceTraits, outline: np.ndarray) -> None:
    """From stubble to a full beard, by `beard`, inside the head's `outline`; the mouth stays free."""
    if not traits.beard:
        return
    x, y = canvas.x - 0.03 * traits.yaw, canvas.y
    cheek_line = 0.33 - 0.55 * np.clip(np.abs(x) - 0.16, 0, 1)
    cheeks = canvas.ramp(y - cheek_line, 0.12) * canvas.mask(outline - 0.012, 0.02)
    lip = traits.mouth_y - 0.045 * traits.smile * ((x / traits.mouth_width) ** 2 - 0.35)
    free = canvas.mask(np.sqrt((x / (traits.mouth_width * 0.95)) ** 2 + ((y - lip - 0.02) / 0.085) ** 2) - 1, 0.35)
    moustache = bump(x, y - lip + 0.075, 0.17, 0.04)
    grain = 0.9 + 0.2 * canvas.noise(110)
    alpha = np.clip(np.maximum(cheeks * (1 - free), moustache * 1.1) * grain, 0, 1) * (0.25 + 0.65 * traits.beard)
    canvas.paint(
        traits.hair, alpha, light=0.8 + 0.15 * canvas.noise(100) + 0.1 * canvas.noise(20) + 0.25 * traits.light[0] * x
    )


def paint_glasses(canvas: Canvas, traits: FaceTraits) -> None:
    """Round frames, a bridge, temples and a weak reflection."""
    frame = (0.12, 0.1, 0.1)
    centers = eye_centers(traits)
    radius = 0.86 * traits.eye_distance * 0.9
    for side, x, y in centers:
        distance = np.sqrt(((canvas.x - x) / 1.05) ** 2 + (canvas.y - y - 0.015) ** 2) - radius
        canvas.paint(frame, canvas.mask(np.abs(distance) - 0.011) * 0.92)
        canvas.paint((1, 1, 1), canvas.mask(distance) * 0.10 * canvas.ramp(-canvas.y + y + 0.4 * (canvas.x - x), 0.2))
        temple = np.maximum(np.abs(canvas.y - y + 0.03) - 0.011, radius - (canvas.x - x) * side)
        temple = np.maximum(temple, side * canvas.x - traits.head_width + 0.005)
        canvas.paint(frame, canvas.mask(temple) * 0.92)
    (_, left, y), (_, right, _) = centers
    bridge = np.abs(canvas.y - y + 0.01 + 0.02 * bump(canvas.x - (left + right) / 2, 0 * canvas.y, 0.05, 1)) - 0.01
    canvas.paint(
        frame, canvas.mask(np.maximum(bridge, np.maximum(left + radius - canvas.x, canvas.x - right + radius))) * 0.92
    )


_VOLUME = {"bald": 0.0, "short": 0.07, "crop": 0.035, "bob": 0.11, "long": 0.1, "afro": 0.2, "bun": 0.05}
_LENGTH = {"bob": 0.62, "long": 1.3}  # how far down it falls


def paint_hair_behind(canvas: Canvas, traits: FaceTraits) -> None:
    """Long hair, an afro or a bun, all behind head and shoulders."""
    if traits.hair_style == "bun":
        bun = canvas.ellipse(0.02 * traits.yaw, -0.84, 0.2, 0.16)
        _paint_strands(canvas, traits, canvas.mask(bun, 0.02), depth=0.85)
    if traits.hair_style == "afro":
        cloud = canvas.ellipse(0.02 * traits.yaw, -0.22, 0.8, 0.72) + 0.03 * canvas.noise(22)
        _paint_strands(canvas, traits, canvas.mask(cloud, 0.03), depth=0.8)
    if traits.hair_style in _LENGTH:
        end = _LENGTH[traits.hair_style]
        half = traits.head_width + _VOLUME[traits.hair_style] + 0.03 * np.sin(4 * canvas.y + traits.parting * 3)
        curtain = np.maximum(
            np.abs(canvas.x) - half + 0.12 * np.clip(canvas.y - end + 0.25, 0, 1) ** 1.5, canvas.y - end
        )
        curtain = np.maximum(curtain, -0.2 - canvas.y)
        _paint_strands(canvas, traits, canvas.mask(curtain, 0.02), depth=0.6)


def paint_hair_in_front(canvas: Canvas, traits: FaceTraits) -> None:
    """The cap of hair, less the opening in which the face is seen."""
    if traits.hair_style == "bald":
        return
    volume = _VOLUME[traits.hair_style]
    ragged = 0.02 * canvas.noise(26)
    cap = canvas.ellipse(0.02 * traits.yaw, -0.07, traits.head_width + volume, traits.head_height - 0.02 + volume)
    if traits.hair_style == "afro":
        cap = canvas.ellipse(0.02 * traits.yaw, -0.22, 0.8, 0.72) + 1.5 * ragged
    parted = 0.09 * np.tanh(4 * (canvas.x - 0.35 * traits.parting)) * np.sign(traits.parting or 1)
    opening_top = traits.hairline - parted * (traits.hair_style in ("short", "bob", "long"))
    opening_half = traits.head_width * (0.9 if traits.hair_style in _LENGTH else 0.965)
    middle = 0.25
    opening = np.sqrt(
        (np.abs(canvas.x - 0.03 * traits.yaw) / opening_half) ** 2.6
        + (np.clip(middle - canvas.y, 0, 9) / (middle - opening_top)) ** 2.6
    )
    edge = (opening - 1) * 0.5 + ragged
    sideburn = {"bob": 0.6, "long": 0.95}.get(traits.hair_style, 0.03 + 0.06 * traits.age)
    below = canvas.y - sideburn + ragged
    if traits.hair_style in _LENGTH:
        half = traits.head_width + volume + 0.03 * np.sin(4 * canvas.y + traits.parting * 3)
        side = np.maximum(np.abs(canvas.x) - half, -0.1 - canvas.y)
        cap = np.minimum(cap, side)
    soft = 0.03 if traits.hair_style != "crop" else 0.07
    shown = canvas.mask(cap, 0.02) * canvas.mask(-edge, soft) * canvas.mask(below, 0.06)
    face = canvas.mask(cap + 0.02)
    canvas.tint(
        (0.66, 0.58, 0.55), face * np.exp(-((np.clip(-edge, 0, 9) / 0.05) ** 2)) * canvas.mask(below, 0.1) * 0.7
    )
    _paint_strands(canvas, traits, shown, depth=1.0)


def _paint_strands(canvas: Canvas, traits: FaceTraits, alpha: np.ndarray, depth: float) -> None:
    """Hair as strands that fall from the parting, with a band of light across; an afro as a fine curl."""
    x, y = canvas.x - 0.3 * traits.parting * (traits.hair_style != "bun"), canvas.y + 0.72
    if traits.hair_style == "afro":
        light = 0.8 + 0.3 * canvas.noise(75) + 0.15 * canvas.noise(35)
    else:
        angle = np.arctan2(x, y + 0.12 + 0.9 * np.abs(x))
        wave = angle + 0.03 * canvas.noise(9)
        radius = np.sqrt(x**2 + y**2)
        strands = canvas.strands(wave, 70) + canvas.strands(wave, 240) - 1
        light = 0.85 + 0.35 * strands * canvas.ramp(radius - 0.16, 0.3)
        light = light + (0.3 + 0.25 * canvas.strands(wave, 90)) * bump(
            radius - 0.33 - 0.06 * canvas.noise(8), 0 * y, 0.11, 1
        )
    light = light + 0.3 * traits.light[0] * canvas.x - 0.12 * canvas.y * (depth == 1.0)
    canvas.paint(traits.hair, alpha, light=np.clip(light, 0.25, 1.8) * depth)
    canvas.paint((1, 1, 1), alpha * np.clip(light - 1, 0, 1) * 0.12)
