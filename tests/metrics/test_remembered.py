"""A value is worked out once per picture and settings, and few are kept."""

import numpy as np

from gpen_plugin.metrics.remembered import Remembered


def picture(value: int) -> np.ndarray:
    return np.full((2, 3, 3), value, np.uint8)


def test_equal_pictures_are_one():
    asked, store = [], Remembered(4)
    work_out = lambda image: asked.append(int(image[0, 0, 0]))  # noqa: E731 - its value, None, is kept as any other
    for value in (1, 2, 1, 2):
        store.of(picture(value), "a", work_out)
    assert asked == [1, 2]
    store.of(picture(1), "b", work_out)
    store.of(picture(1).reshape(3, 2, 3), "a", work_out)
    assert asked == [1, 2, 1, 1]


def test_the_longest_unused_goes_first():
    asked, store = [], Remembered(2)
    for value in (1, 2, 1, 3, 1, 2):
        store.of(picture(value), None, lambda image: asked.append(int(image[0, 0, 0])))
    assert asked == [1, 2, 3, 2]
    assert len(store) == 2
