"""What is said of images that a metric cannot take."""

import numpy as np
import pytest

from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.metrics.base import check_better, check_image, check_pair


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((8, 8), np.uint8), r"img: got shape \(8, 8\) of uint8"),
        (np.zeros((8, 8, 4), np.uint8), r"got shape \(8, 8, 4\)"),
        (np.zeros((8, 8, 3), np.float32), "of float32; expected .* of uint8"),
        (np.zeros((8, 7, 3), np.uint8), "got 8 x 7 px; expected at least 8 px"),
    ],
)
def test_a_image_that_cannot_be_taken(image, words):
    with pytest.raises(ShapeError, match=words):
        check_image("img", image, 8)


def test_a_pair_has_one_size():
    one, other = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)
    check_pair(one, one, 8)
    with pytest.raises(ShapeError, match="got 8 x 8 px beside 8 x 9 px of img2"):
        check_pair(one, other)


def test_the_host_is_not_told_to_look_for_the_worst():
    check_better(None, "lower", "")
    check_better("lower", "lower", "")
    with pytest.raises(OptionError, match="better: got 'higher'; expected lower"):
        check_better("higher", "lower", "")
