"""A value is worked out once per image and settings, and few are kept."""

import numpy as np

from gpen_plugin.metrics.base import ContentCache


def image(value: int) -> np.ndarray:
    return np.full((2, 3, 3), value, np.uint8)


def test_equal_images_are_one():
    asked, store = [], ContentCache(4)
    work_out = lambda pixels: asked.append(int(pixels[0, 0, 0]))  # noqa: E731 - its value, None, is kept as any other
    for value in (1, 2, 1, 2):
        store.of(image(value), "a", work_out)
    assert asked == [1, 2]
    store.of(image(1), "b", work_out)
    store.of(image(1).reshape(3, 2, 3), "a", work_out)
    assert asked == [1, 2, 1, 1]


def test_the_longest_unused_goes_first():
    asked, store = [], ContentCache(2)
    for value in (1, 2, 1, 3, 1, 2):
        store.of(image(value), None, lambda pixels: asked.append(int(pixels[0, 0, 0])))
    assert asked == [1, 2, 3, 2]
    assert len(store) == 2
