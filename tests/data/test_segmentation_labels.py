"""Maps of a face's parts."""

import cv2
import numpy as np
import pytest

from gpen_plugin.data.segmentation_labels import (
    LABELS,
    PALETTE,
    check_palette,
    colorize_labels,
    hflip_labels,
    is_indexed,
    read_labels,
    resize_map,
)
from gpen_plugin.errors import DataError, OptionError


def everything(side: int = 19) -> np.ndarray:
    """A map with a column of each label."""
    return np.tile(np.arange(19, dtype=np.uint8), (side, 1))


def test_indices_and_colors_are_read_alike():
    labels = everything()
    indexed = cv2.cvtColor(labels, cv2.COLOR_GRAY2BGR)
    assert is_indexed(indexed)
    assert not is_indexed(colorize_labels(labels))
    np.testing.assert_array_equal(read_labels(indexed, "a"), labels)
    np.testing.assert_array_equal(read_labels(colorize_labels(labels), "a"), labels)


def test_colors_are_rgb_in_the_palette_and_bgr_in_images():
    skin = colorize_labels(np.full((1, 1), LABELS.index("skin"), np.uint8))[0, 0]
    assert (PALETTE[LABELS.index("skin")], skin.tolist()) == ((204, 0, 0), [0, 0, 204])


def test_another_palette():
    palette = [[12 * i, 200, 7] for i in range(19)]
    labels = everything()
    np.testing.assert_array_equal(read_labels(colorize_labels(labels, palette), "a", palette), labels)
    with pytest.raises(DataError, match=r"a: holds the color \[0, 200, 7\] at \(0, 0\), which is no label's"):
        read_labels(colorize_labels(labels, palette), "a")


def test_of_labels_that_share_a_color_the_first_is_read():
    palette = [*PALETTE]
    palette[LABELS.index("right eye")] = palette[LABELS.index("left eye")]
    read = read_labels(colorize_labels(everything(), palette), "a", palette)
    assert set(np.unique(read)) == set(range(19)) - {LABELS.index("right eye")}


def test_the_mirror_changes_the_names_of_the_sides():
    labels = np.array([[LABELS.index(name) for name in ("left eye", "nose", "right brow", "left ear")]], np.uint8)
    seen = [LABELS[label] for label in hflip_labels(labels)[0]]
    assert seen == ["right ear", "left brow", "nose", "right eye"]
    every = everything()
    np.testing.assert_array_equal(hflip_labels(hflip_labels(every)), every)
    moved = [LABELS[i] for i in range(19) if hflip_labels(np.full((1, 1), i, np.uint8))[0, 0] != i]
    assert moved == ["left eye", "right eye", "left brow", "right brow", "left ear", "right ear"]


def test_resizing_makes_no_new_labels_and_keeps_positions():
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 10:30] = 1  # the left half of the central square
    labels[:, 30:] = 17
    small = resize_map(labels, 8)
    assert small.tolist() == [[1] * 4 + [17] * 4] * 8
    np.testing.assert_array_equal(resize_map(small, 32), np.repeat(np.repeat(small, 4, 0), 4, 1))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.full((4, 4, 3), 19, np.uint8), r"map.png: holds the color \[19, 19, 19\] at \(0, 0\)"),
        (np.full((4, 4, 3), (1, 2, 3), np.uint8), r"map.png: holds the color \[3, 2, 1\].*Save maps as PNG"),
        (np.zeros((4, 4, 3), np.uint8), "map.png: is background everywhere; expected the parts.*16-bit"),
    ],
)
def test_invalid_map_is_an_error(image, words):
    with pytest.raises(DataError, match=words):
        read_labels(image, "map.png")


@pytest.mark.parametrize("palette", [PALETTE[:18], [*PALETTE[:18], (1, 2)], [*PALETTE[:18], (0, 0, 256)]])
def test_a_palette_is_nineteen_colors(palette):
    with pytest.raises(OptionError, match=r"at:palette: got 1\d entries; expected 19 colors"):
        check_palette(palette, "at:palette")
    check_palette(PALETTE, "at:palette")
