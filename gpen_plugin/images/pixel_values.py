"""Pixels as files store them, uint8 or uint16, and as networks take them, float32 in [0, 1]."""

import numpy as np


def to_float(pixels: np.ndarray) -> np.ndarray:
    """uint8, uint16 or float32 in [0, 1] to float32 in [0, 1]; float32 as it is."""
    if pixels.dtype == np.float32:
        return pixels
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def from_float(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float32 in [0, 1] as `dtype` stores it: uint8 or uint16, clipped and rounded; float32 as it is."""
    if dtype == np.float32:
        return image
    most = np.iinfo(dtype).max
    return np.rint(np.clip(image, 0, 1) * np.float32(most)).astype(dtype)


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """uint8 as it is; of uint16 the upper byte."""
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
