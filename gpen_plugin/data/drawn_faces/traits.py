"""What one drawn face looks like, as numbers that are drawn from a seed.

Lengths are in half sides of the image, with (0, 0) in its middle and y downwards; colours are RGB in [0, 1].
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Colour = tuple[float, float, float]
HairStyle = Literal["bald", "short", "crop", "bob", "long", "afro", "bun"]

# (skin, hair colours and iris colours that are seen with it): from light to dark
_COMPLEXIONS = (
    ("f6d7c3", ("e6c27a", "b5743a", "8a4f2a", "5a3a22", "c9a063"), ("6f9fc4", "7ba37b", "8a8f98", "6b4a2b")),
    ("efc7a8", ("6b4326", "3c2718", "a8743f", "d0a45e"), ("5f8fb8", "6d8f5f", "5c3d22", "7a5a35")),
    ("e3b48e", ("2b1d14", "1c1512", "4a2f1d"), ("4a2f1a", "3a2414", "6b6a3c")),
    ("cb9a75", ("1b1411", "2c1d15", "3a261a"), ("3d2615", "55381f")),
    ("a97856", ("16110f", "211713"), ("33200f", "402813")),
    ("825640", ("120e0d", "1d1512"), ("2b1a0f", "38220f")),
    ("5f3f30", ("0f0c0b", "191310"), ("24160d", "2e1b0e")),
)
_GREY_HAIR = ("b9b6b2", "8f8c8a", "d8d5cf")
_CLOTHES = ("2f4a6d", "7c2f3a", "e9e4d8", "2c2c34", "4d6b57", "c58b3b", "6a4c7d", "a8b8c8", "b6584a", "35606b")
_BACKGROUNDS = ("9fb4c7", "cdbfa8", "6f7f76", "d9d6d0", "51647a", "b78f78", "8aa089", "39424e", "c7a9a1", "a8a4b8")
_STYLES: tuple[HairStyle, ...] = ("short", "crop", "bob", "long", "afro", "bun", "bald")
_STYLE_SHARES = (0.27, 0.15, 0.17, 0.21, 0.07, 0.09, 0.04)


@dataclass(frozen=True)
class FaceTraits:
    """Everything that tells one drawn face from another; see `sample_traits` for the ranges."""

    head_width: float
    head_height: float
    jaw: float
    skin: Colour
    hair: Colour
    iris: Colour
    clothes: Colour
    background: tuple[Colour, Colour]
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
    lip_colour: float
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
    """Draw a face. Traits that go together in people are drawn together, loosely: grey hair with folds, say."""
    skin, hairs, irises = _COMPLEXIONS[rng.choice(len(_COMPLEXIONS), p=(0.2, 0.19, 0.17, 0.14, 0.12, 0.1, 0.08))]
    age = float(rng.beta(1.3, 2.2))
    hair = _pick(rng, _GREY_HAIR if rng.random() < max(0, age - 0.35) * 1.5 else hairs)
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
        lip_colour=rng.uniform(0.3, 1.0) * (0.5 if bearded else 1),
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


def _rgb(code: str) -> Colour:
    return tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))


def _vary(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """Change brightness, and each channel a little for itself."""
    brightness = 1 + rng.normal(0, 1.5 * amount)
    return tuple(float(np.clip(c * brightness + rng.normal(0, 0.2 * amount), 0, 1)) for c in colour)
