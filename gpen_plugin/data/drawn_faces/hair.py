"""The hair of a drawn face: what falls behind the head, and what frames the forehead."""

import numpy as np

from gpen_plugin.data.drawn_faces.canvas import Canvas, bump
from gpen_plugin.data.drawn_faces.traits import FaceTraits

_VOLUME = {"bald": 0.0, "short": 0.07, "crop": 0.035, "bob": 0.11, "long": 0.1, "afro": 0.2, "bun": 0.05}
_LENGTH = {"bob": 0.62, "long": 1.3}  # how far down it falls


def paint_hair_behind(canvas: Canvas, traits: FaceTraits) -> None:
    """Long hair, an afro or a bun, all behind head and shoulders."""
    if traits.hair_style == "bun":
        bun = canvas.ellipse(0.02 * traits.yaw, -0.84, 0.2, 0.16)
        _paint(canvas, traits, canvas.mask(bun, 0.02), depth=0.85)
    if traits.hair_style == "afro":
        cloud = canvas.ellipse(0.02 * traits.yaw, -0.22, 0.8, 0.72) + 0.03 * canvas.noise(22)
        _paint(canvas, traits, canvas.mask(cloud, 0.03), depth=0.8)
    if traits.hair_style in _LENGTH:
        end = _LENGTH[traits.hair_style]
        half = traits.head_width + _VOLUME[traits.hair_style] + 0.03 * np.sin(4 * canvas.y + traits.parting * 3)
        curtain = np.maximum(
            np.abs(canvas.x) - half + 0.12 * np.clip(canvas.y - end + 0.25, 0, 1) ** 1.5, canvas.y - end
        )
        curtain = np.maximum(curtain, -0.2 - canvas.y)
        _paint(canvas, traits, canvas.mask(curtain, 0.02), depth=0.6)


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
    _paint(canvas, traits, shown, depth=1.0)


def _paint(canvas: Canvas, traits: FaceTraits, alpha: np.ndarray, depth: float) -> None:
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
