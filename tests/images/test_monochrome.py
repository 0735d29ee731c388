"""A monochrome photograph stays monochrome, whatever tints it, and a color photograph stays in color."""

import numpy as np
import pytest
from helpers.restorer_parts import FACES, photograph, restorer

from gpen_plugin.cli.demo import portrait
from gpen_plugin.images.color import LUMA, is_monochrome, keep_tint
from gpen_plugin.images.photograph import Photograph


def gray(seed=0) -> np.ndarray:
    """(240, 320, 1) uint8, one channel of smooth shades with grain."""
    return photograph(seed=seed)[:, :, :1]


def to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def scan_in_color(channel: np.ndarray) -> np.ndarray:
    """Gray within two levels."""
    return to_uint8(channel + np.random.default_rng(0).integers(-1, 2, (*channel.shape[:2], 3)))


def yellowed(channel: np.ndarray) -> np.ndarray:
    """Paper that is yellow, more so to the right."""
    yellow = np.linspace(10, 40, channel.shape[1])[None, :, None] * [-1, 0, 0.2]
    return to_uint8(channel * 0.8 + 40 + yellow)


def sepia(channel: np.ndarray) -> np.ndarray:
    """Brown shadows and cream highlights: the tint is a curve of the brightness."""
    value = channel / 255
    return to_uint8(255 * np.concatenate([value**1.5, value**1.1, value**0.8], axis=2))


COLORED = np.array([-0.1, 0, 0.15], np.float32)
MONOCHROME = [scan_in_color, yellowed, sepia]


def chroma(pixels: np.ndarray) -> np.ndarray:
    """How far the channels of each pixel are apart, in levels of 255."""
    return (pixels.max(axis=2).astype(float) - pixels.min(axis=2)) * 255 / np.iinfo(pixels.dtype).max


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("make", MONOCHROME)
def test_scans_of_black_and_white_photographs_are_monochrome(make, dtype):
    assert is_monochrome(make(gray()).astype(dtype) * dtype(np.iinfo(dtype).max // 255))


def test_photographs_in_color_are_not_monochrome():
    assert not is_monochrome(photograph())
    assert not is_monochrome(portrait())
    faded = to_uint8(portrait() * 0.5 + portrait().mean(axis=2, keepdims=True) * 0.5)
    assert not is_monochrome(faded)


def test_a_small_stamp_in_color_does_not_count():
    pixels = scan_in_color(gray())
    pixels[:24, :24] = 0, 0, 200  # 0.75 % of the image
    assert is_monochrome(pixels)


@pytest.mark.parametrize("make", MONOCHROME)
def test_restored_faces_gain_no_color_and_keep_the_tint(make):
    def colored(face):  # what a network does that has seen color photographs alone
        return face + COLORED

    before = make(gray())
    result = restorer(colored).restore(before)
    after = result.photograph.pixels
    for face in result.faces:
        assert face.skip_reason is None
    difference = after.astype(int) - before
    assert np.abs(difference).max() > 3  # something was restored
    # The luma changed and the offsets of the channels did not: they lie within the noise of the scan (1 level for
    # each channel), the rounding, and what the curve misses between its levels.
    assert np.abs(difference - difference.mean(axis=2, keepdims=True)).max() <= 6
    assert chroma(after).max() <= chroma(before).max() + 4


def test_a_photograph_in_color_takes_the_colors_of_the_network():
    result = restorer(lambda face: face + COLORED).restore(photograph())
    difference = result.photograph.pixels.astype(int) - photograph()
    assert (difference[:, :, 2] - difference[:, :, 0]).max() > 40


def test_monochrome_flag_overrides_detection():
    def colored(face):
        return face + COLORED

    frame = photograph()
    restored = restorer(colored).restore(Photograph(frame, monochrome=True), faces=FACES).photograph.pixels
    difference = restored.astype(int) - frame
    assert np.abs(difference - difference.mean(axis=2, keepdims=True)).mean() < 2
    scan = scan_in_color(gray())
    restored = restorer(colored).restore(Photograph(scan, monochrome=False), faces=FACES).photograph.pixels
    assert chroma(restored).max() > 40


def test_tint_keeps_the_luma():
    crop = sepia(gray()).astype(np.float32) / 255
    restored = photograph(seed=3).astype(np.float32) / 255 * 0.5 + 0.2
    tinted = keep_tint(restored, crop)
    # The weights of the luma add up to one, so offsets that came from a luma add nothing to it, up to float32.
    np.testing.assert_allclose(tinted @ LUMA, restored @ LUMA, atol=1e-5)
