"""Portraits that are drawn, not photographed: images of nobody, as many as one likes, for the demo and for tests.

A face is a set of smooth surfaces and outlines. Skin is a height field that is lit from one side; hair, eyes, lips and
clothes are painted over it back to front, each through a mask with soft edges.
"""

import cv2
import numpy as np

from gpen_plugin.data.drawn_faces.canvas import Canvas, bump
from gpen_plugin.data.drawn_faces.features import (
    paint_beard,
    paint_brows,
    paint_eyes,
    paint_glasses,
    paint_mouth,
    paint_nose,
)
from gpen_plugin.data.drawn_faces.hair import paint_hair_behind, paint_hair_in_front
from gpen_plugin.data.drawn_faces.traits import FaceTraits, sample_traits

_OVERSAMPLING = 2


def draw_face(seed: int, size: int) -> np.ndarray:
    """Draw a portrait in the framing of FFHQ: eyes at 47 % of the height, a quarter of the width apart.

    Args:
        seed: which face; the same seed gives the same face at any size, in more or less detail.
        size: side of the image in pixels.
    Returns:
        (size, size, 3) BGR uint8.
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
    """Colour of the light and a little loss of light towards the corners."""
    tone = np.array((1 + 0.035 * traits.warmth, 1.0, 1 - 0.05 * traits.warmth), np.float32)
    radius = canvas.frame_x**2 + canvas.frame_y**2
    return canvas.image * tone * (1.03 - 0.1 * radius)[:, :, None]
