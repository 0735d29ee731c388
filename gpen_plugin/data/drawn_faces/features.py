"""Eyes, brows, nose, mouth, beard and glasses of a drawn face."""

import numpy as np

from gpen_plugin.data.drawn_faces.canvas import Canvas, bump
from gpen_plugin.data.drawn_faces.traits import FaceTraits

_DARK = (0.10, 0.06, 0.05)


def eye_centres(traits: FaceTraits) -> list[tuple[int, float, float]]:
    """(side, x, y) of both eyes; the one that is turned away is a little nearer to the nose."""
    return [
        (side, side * traits.eye_distance * (1 - 0.04 * side * traits.yaw) + 0.03 * traits.yaw, -0.06)
        for side in (-1, 1)
    ]


def paint_eyes(canvas: Canvas, traits: FaceTraits) -> None:
    """Eyeball, iris, pupil, reflection, lids and lashes."""
    for side, x, y in eye_centres(traits):
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
    colour = [0.75 * channel for channel in traits.hair]
    for side, x, y in eye_centres(traits):
        u = (canvas.x - x) * side / 0.15
        v = canvas.y - y + traits.brow_height + 0.012 * max(traits.smile, 0)
        line = -traits.brow_arch * (1 - (u - 0.25) ** 2) + traits.brow_arch * 0.5
        weight = traits.brow_weight * np.clip(1.15 - 0.45 * (u + 0.8), 0.1, 1.3) * canvas.ramp(1.05 - np.abs(u), 0.25)
        shape = canvas.mask(np.abs(v - line) - weight, 0.016) * canvas.ramp(1.02 - np.abs(u), 0.12)
        hairs = 0.6 + 0.5 * canvas.strands(np.clip(6 * u + 30 * v, -np.pi, np.pi), 40)
        canvas.paint(colour, shape * np.clip(hairs, 0, 1) * 0.88)


def paint_nose(canvas: Canvas, traits: FaceTraits) -> None:
    """Nostrils and the shadow under the tip; the rest is relief."""
    centre, base = 0.05 * traits.yaw, traits.nose_tip + 0.05
    shadow = bump(canvas.x - centre, canvas.y - base - 0.018, traits.nose_width, 0.022)
    canvas.tint((0.72, 0.6, 0.56), shadow * 0.6)
    for side in (-1, 1):
        x = centre + side * 0.52 * traits.nose_width
        nostril = canvas.ellipse(x, base - 0.004, 0.30 * traits.nose_width, 0.013)
        canvas.tint((0.32, 0.2, 0.18), canvas.mask(nostril, 0.014) * 0.85)
        wing = canvas.x - centre - side * traits.nose_width * (1.02 - 6 * (canvas.y - base + 0.03) ** 2)
        canvas.tint((0.74, 0.62, 0.58), bump(wing, canvas.y - base + 0.025, 0.012, 0.035) * 0.8)


def paint_mouth(canvas: Canvas, traits: FaceTraits) -> None:
    """Lips around a line, or around teeth; corners go up with the smile."""
    centre = 0.035 * traits.yaw
    u = (canvas.x - centre) / traits.mouth_width
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
    canvas.paint(red, lips * (0.35 + 0.6 * traits.lip_colour), light=light)
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
    centres = eye_centres(traits)
    radius = 0.86 * traits.eye_distance * 0.9
    for side, x, y in centres:
        distance = np.sqrt(((canvas.x - x) / 1.05) ** 2 + (canvas.y - y - 0.015) ** 2) - radius
        canvas.paint(frame, canvas.mask(np.abs(distance) - 0.011) * 0.92)
        canvas.paint((1, 1, 1), canvas.mask(distance) * 0.10 * canvas.ramp(-canvas.y + y + 0.4 * (canvas.x - x), 0.2))
        temple = np.maximum(np.abs(canvas.y - y + 0.03) - 0.011, radius - (canvas.x - x) * side)
        temple = np.maximum(temple, side * canvas.x - traits.head_width + 0.005)
        canvas.paint(frame, canvas.mask(temple) * 0.92)
    (_, left, y), (_, right, _) = centres
    bridge = np.abs(canvas.y - y + 0.01 + 0.02 * bump(canvas.x - (left + right) / 2, 0 * canvas.y, 0.05, 1)) - 0.01
    canvas.paint(
        frame, canvas.mask(np.maximum(bridge, np.maximum(left + radius - canvas.x, canvas.x - right + radius))) * 0.92
    )
