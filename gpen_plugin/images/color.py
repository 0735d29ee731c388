"""Pixel values and colors: dtypes, luma, monochrome images and their tint, and the color of the input."""

import math

import cv2
import numpy as np

COARSE_SIGMA = 1 / 16  # of the side: standard deviation of the Gaussian that leaves stains and no features
# The same for what stays of the input: its light, where a 32nd leaves the shadow around an eye, and its chroma, where a
# 48th leaves the color of an iris. Smaller ones would leave the blocks and the noise of degraded faces, too.
LIGHT_SIGMA, CHROMA_SIGMA = 1 / 32, 1 / 48
LUMA = np.array([0.114, 0.587, 0.299], np.float32)  # of blue, green and red, Rec. 601
LEVELS = 17  # of luma, between which the tint is interpolated
FIT_PIXELS = 4096  # pixels, about, to which curve and surface are fitted
FIT_ROUNDS = 2  # of curve and surface in turn
MIN_SIDE = 64  # pixels: in smaller images a curve and a surface would fit colors, too
SAMPLE_SIDE = 128  # pixels: shorter side of the reduced image in which color is looked for
MAX_CHROMA = 12  # levels of 255: of 1,974 color photographs one has 11 and the next 14, a scan in sepia 10
MAX_COLORED_PERCENT = 2  # per cent of an image that may have more color, such as a stamp or a colored pen's marks


def to_float(pixels: np.ndarray) -> np.ndarray:
    """uint8, uint16 or float32 in [0, 1] to float32 in [0, 1]."""
    if pixels.dtype == np.float32:
        return pixels
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def from_float(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float32 in [0, 1] to uint8 or uint16, clipped and rounded; float32 unchanged."""
    if dtype == np.float32:
        return image
    most = np.iinfo(dtype).max
    return np.rint(np.clip(image, 0, 1) * np.float32(most)).astype(dtype)


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """uint8 unchanged; of uint16 the upper byte."""
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def luminance(image: np.ndarray) -> np.ndarray:
    """Y of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B: (H, W, 3) BGR float32 in [0, 1] to (H, W)."""
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def to_gray(image: np.ndarray) -> np.ndarray:
    """The luminance in all three channels."""
    return cv2.cvtColor(luminance(image), cv2.COLOR_GRAY2BGR)


def set_luma(
    image: np.ndarray,  # (H, W, 3) BGR float32 in [0, 1]: gives the chroma
    wanted: np.ndarray,  # (H, W) float32 in [0, 1]
) -> np.ndarray:
    """Replace the luminance exactly; the chroma (Cb and Cr) stays if the gamut allows it.

    Otherwise the color becomes paler, with the same hue; clipping would change the luminance.

    Returns: (H, W, 3) BGR float32 in [0, 1] of the luminance `wanted`.
    """
    chroma = image - luminance(image)[:, :, None]  # the same for all colors of the same Cb and Cr
    room = np.where(chroma > 0, 1 - wanted[:, :, None], wanted[:, :, None])
    share = np.minimum(1, room / np.maximum(np.abs(chroma), 1e-6)).min(axis=2, keepdims=True)  # (H, W, 1)
    return np.clip(wanted[:, :, None] + share * chroma, 0, 1)


def keep_color(
    restored: np.ndarray,  # (T, U, 3) float32 in [0, 1]
    crop: np.ndarray,  # (H, W, 3) float32 in [0, 1], the input before resizing
) -> np.ndarray:
    """Replace the low frequencies of a restored face by those of the input: its light, and more of its color.

    Returns: (T, U, 3) float32 in [0, 1].
    """
    height, width = restored.shape[:2]
    shown = cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR)
    luma, chroma = _split(shown - restored)
    side = min(height, width)
    light = cv2.GaussianBlur(luma, (0, 0), LIGHT_SIGMA * side, borderType=cv2.BORDER_REFLECT)
    color = cv2.GaussianBlur(chroma, (0, 0), CHROMA_SIGMA * side, borderType=cv2.BORDER_REFLECT)
    return (restored + light[:, :, None] + color).clip(0, 1)


def is_monochrome(
    pixels: np.ndarray,  # (H, W, 3) BGR, uint8 or uint16
) -> bool:
    """Whether an image has no colors except a tint, by toning or yellowed paper.

    The offsets of the channels may depend on the luma, as in a sepia print, and on a quadratic surface over the image,
    as in yellowed paper; not in images below 64 pixels, where colors would fit as well. The remainder must be at most
    12 levels of 255 for 98 % of the pixels.
    """
    scale = min(1, SAMPLE_SIDE / min(pixels.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    reduced = to_float(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))
    luma, remaining = _split(reduced)
    if min(height, width) >= MIN_SIDE:
        offsets, surface = cv2.blur(remaining, (3, 3)), 0
        for _ in range(FIT_ROUNDS):
            remaining = offsets - _tint(luma, _tint_curve(luma, offsets - surface))
            surface = _quadratic_surface(remaining)
        remaining = remaining - surface
    color = remaining.max(axis=2) - remaining.min(axis=2)
    return bool(np.percentile(color, 100 - MAX_COLORED_PERCENT) * 255 <= MAX_CHROMA)


def keep_tint(
    restored: np.ndarray,  # (T, U, 3) BGR float32 in [0, 1]
    crop: np.ndarray,  # (H, W, 3) BGR float32 in [0, 1], the input
) -> np.ndarray:
    """Give a restored monochrome face the tint of the input, and no color of the network.

    Returns: (T, U, 3) float32 in [0, 1], with the luma of `restored`.
    """
    height, width = restored.shape[:2]
    luma_before, offsets = _split(crop)
    curve = _tint_curve(luma_before, offsets)
    small = (
        round(2 / COARSE_SIGMA),
        round(2 / COARSE_SIGMA),
    )  # pixels: the blur is small there, whatever the size of the image
    stains = cv2.resize(offsets - _tint(luma_before, curve), small, interpolation=cv2.INTER_AREA)
    stains = cv2.GaussianBlur(stains, (0, 0), COARSE_SIGMA * small[0], borderType=cv2.BORDER_REFLECT)
    luma, _ = _split(restored)
    tinted = luma[:, :, None] + _tint(luma, curve)
    return (tinted + cv2.resize(stains, (width, height), interpolation=cv2.INTER_LINEAR)).clip(0, 1)


def _split(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The luma, (H, W), and the offsets of the channels from it, (H, W, 3)."""
    luma = pixels @ LUMA
    return luma, pixels - luma[:, :, None]


def _tint_curve(luma: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The median offsets at `LEVELS` of luma: the levels, (L,), and the offsets, (L, 3)."""
    step = math.ceil(math.sqrt(luma.size / FIT_PIXELS))
    luma, offsets = luma[::step, ::step], offsets[::step, ::step]
    nearest = np.rint(luma * (LEVELS - 1)).astype(np.intp)
    counts = np.bincount(nearest.ravel(), minlength=LEVELS)
    known = np.flatnonzero(counts >= counts.sum() / 1000)
    medians = np.stack([np.median(offsets[nearest == level], axis=0) for level in known])
    levels = np.array([luma[nearest == level].mean() for level in known])
    return levels, medians - (medians @ LUMA)[:, None]


def _tint(luma: np.ndarray, curve: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The offsets of a curve for each pixel, (H, W, 3) float32."""
    levels, offsets = curve
    return np.stack([np.interp(luma, levels, offsets[:, channel]) for channel in range(3)], axis=2).astype(np.float32)


def _quadratic_surface(offsets: np.ndarray) -> np.ndarray:
    """The quadratic function of the position that fits best, (H, W, 3) float32; strong colors are clipped."""
    height, width = offsets.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=2).reshape(-1, 6)
    values = offsets.reshape(-1, 3).clip(-2 * MAX_CHROMA / 255, 2 * MAX_CHROMA / 255)
    step = max(1, len(terms) // FIT_PIXELS)
    weights, *_ = np.linalg.lstsq(terms[::step], values[::step], rcond=None)
    return (terms @ weights).reshape(offsets.shape).astype(np.float32)
