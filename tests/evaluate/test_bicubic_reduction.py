"""Bicubic reduction against closed forms, Pillow, and the host's copy of MATLAB's imresize."""

import numpy as np
import pytest
from basicsr.utils.matlab_functions import imresize
from PIL import Image

from gpen_plugin.evaluate.protocols import reduce_bicubic


def noise(size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize(("size", "smaller"), [(64, 8), (64, 1), (50, 7), (33, 32), (5, 5)])
@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_constant_stays(size, smaller, value):
    reduced = reduce_bicubic(np.full((size, size, 3), value, np.uint8), smaller)
    assert reduced.shape == (smaller, smaller, 3)
    assert reduced.dtype == np.uint8
    assert (reduced == value).all()


def test_same_size_is_the_same_image():
    np.testing.assert_array_equal(reduce_bicubic(noise(16), 16), noise(16))


@pytest.mark.parametrize("scale", [4, 8])
def test_ramp_is_sampled_at_pixel_centers(scale):
    ramp = np.broadcast_to(2 * np.arange(128, dtype=np.uint8)[:, None, None], (128, 128, 3))
    reduced = reduce_bicubic(ramp, 128 // scale)
    centers = 2 * ((np.arange(128 // scale) + 0.5) * scale - 0.5)
    np.testing.assert_array_equal(reduced[2:-2, 5, 0], centers[2:-2])


def test_half_black_half_white_is_rounded_up():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255
    assert reduce_bicubic(image, 1).ravel().tolist() == [128, 128, 128]


@pytest.mark.parametrize(("size", "smaller"), [(128, 16), (96, 12), (101, 13)])
def test_agrees_with_pillow_away_from_the_border(size, smaller):
    image = noise(size)
    pillow = np.asarray(Image.fromarray(image).resize((smaller, smaller), Image.Resampling.BICUBIC))
    inner = np.s_[2:-2, 2:-2]
    difference = reduce_bicubic(image, smaller)[inner].astype(int) - pillow[inner]
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(("size", "scale"), [(128, 8), (128, 16), (128, 64), (96, 3)])
def test_bicubic_equals_host_version(size, scale):
    reduced = reduce_bicubic(noise(size), size // scale)
    host = np.clip(imresize(noise(size).astype(np.float32), 1 / scale), 0, 255)
    assert np.abs(reduced - host).max() <= 0.501


def test_bicubic_reduces_to_one_pixel():
    with pytest.raises(RuntimeError, match="must match the size"):
        imresize(noise(64).astype(np.float32), 1 / 64)
    assert reduce_bicubic(noise(64), 1).shape == (1, 1, 3)
