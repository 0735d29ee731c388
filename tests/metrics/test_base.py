"""The accumulator in the host's validation, metrics without their weights, checks of images, the cache."""

import inspect
import logging
import math
import pickle
from typing import Literal

import numpy as np
import pytest

from gpen_plugin.config import schema
from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError, ShapeError
from gpen_plugin.metrics import base
from gpen_plugin.metrics.base import (
    ContentCache,
    SetAccumulator,
    check_better,
    check_image,
    check_pair,
    nan_if_weights_missing,
)


class Lengths(SetAccumulator):
    """Gives how often its words begin with the first one: something that only the whole set can tell."""

    def __init__(self, word: str, language: str = "en"):
        super().__init__(word.encode(), word)
        self.language = language

    def check_fits(self, other: "Lengths") -> None:
        if self.language != other.language:
            raise ValueError("two languages")

    def value(self) -> float:
        words = self.records()
        return float(sum(word.startswith(words[0]) for word in words))


WORDS = ("noise", "no", "now", "yes")


def test_the_hosts_sum():
    total = 0
    for word in WORDS:
        total += Lengths(word)
    total /= len(WORDS)
    assert total == 3.0
    assert sum(map(Lengths, WORDS)) / 4 == 3.0


def test_records_come_in_an_order_of_their_own():
    assert sum(map(Lengths, WORDS)).records() == sum(map(Lengths, reversed(WORDS))).records() == sorted(WORDS)


def test_adding_in_place_changes_the_sum_and_nothing_else():
    first, second = Lengths("no"), Lengths("now")
    total = 0
    total += first
    held = total
    total += second
    assert total is held
    assert (len(total), len(first), len(second)) == (2, 1, 1)


def test_adding_leaves_both_as_they_are():
    first, second = Lengths("no"), Lengths("now")
    both = first + second
    both += Lengths("yes")
    assert (len(both), len(first), len(second)) == (3, 1, 1)


def test_ranks_of_which_one_saw_nothing():
    shares = [Lengths("now") + Lengths("no"), 0, Lengths("yes")]
    received = [pickle.loads(pickle.dumps(share)) for share in shares]
    assert sum(received) / 3 == 2.0
    total = received[2]
    total += 0
    assert total is received[2]
    assert len(total) == 1


@pytest.mark.parametrize("position", [0, 1, 2])
def test_incomplete_set_has_no_value(position):
    """A pair has no value if its weights arrive in the middle of a validation."""
    pairs = [Lengths("now"), Lengths("no")]
    pairs.insert(position, math.nan)
    total = 0
    for pair in pairs:
        total += pair
    assert math.isnan(total / 3)
    assert math.isnan(sum(pairs) / 3)


@pytest.mark.parametrize("other", [3, "no", None])
def test_nothing_else_can_be_added(other):
    with pytest.raises(TypeError, match="unsupported operand"):
        Lengths("no") + other
    with pytest.raises(TypeError, match=r"unsupported operand|can only concatenate str"):
        other + Lengths("no")
    total = Lengths("no")
    with pytest.raises(TypeError, match="unsupported operand"):
        total += other


def test_unlike_accumulators_cannot_be_added():
    with pytest.raises(ValueError, match="two languages"):
        Lengths("no") + Lengths("non", "fr")


def test_wrong_count_fails():
    with pytest.raises(AssertionError, match="2 pairs were added up, and 3 counted"):
        (Lengths("no") + Lengths("now")) / 3


@nan_if_weights_missing
def calculate_brightness(img: np.ndarray, img2: np.ndarray | None = None, file: str = "a.pth", better: Literal[1] = 1):
    """The mean of an image."""
    if file.startswith("missing"):
        raise MissingFileError("weights", f"{file} is not there.")
    if file.startswith("damaged"):
        raise CheckpointError(file, "cannot be read.")
    if file == "wrong":
        raise OptionError("file", "is wrong")
    return float(img.mean())


IMAGE = np.full((4, 4, 3), 7, np.uint8)


@pytest.fixture(autouse=True)
def forget_warnings():
    base._warn_once.cache_clear()


def test_missing_file_is_logged_once(caplog):
    with caplog.at_level(logging.WARNING, "basicsr"):
        for file in ("missing_a.pth", "missing_b.pth", "missing_a.pth"):
            assert math.isnan(calculate_brightness(img=IMAGE, file=file))
    assert [record.getMessage() for record in caplog.records] == [
        f"calculate_brightness gives no values. weights: {file} is not there."
        for file in ("missing_a.pth", "missing_b.pth")
    ]


def test_damaged_file_gives_nan_until_replaced(caplog):
    with caplog.at_level(logging.WARNING, "basicsr"):
        for _ in range(2):
            assert math.isnan(calculate_brightness(img=IMAGE, file="damaged.pth"))
    assert [record.getMessage() for record in caplog.records] == [
        "calculate_brightness gives no values. damaged.pth: cannot be read."
    ]
    assert calculate_brightness(img=IMAGE) == 7
    with pytest.raises(CheckpointError, match=r"damaged.pth: cannot be read"):
        inspect.unwrap(calculate_brightness)(IMAGE, file="damaged.pth")


def test_the_rest_is_as_it_was():
    assert calculate_brightness(IMAGE) == 7
    with pytest.raises(OptionError, match="file: is wrong"):
        calculate_brightness(IMAGE, file="wrong")
    with pytest.raises(MissingFileError, match="missing is not there"):
        inspect.unwrap(calculate_brightness)(IMAGE, file="missing")


def test_the_signature_is_the_schema():
    problems = schema.validate(calculate_brightness, {"img": None, "fiel": "x"}, "val:metrics:brightness")
    assert any("Did you mean 'file'" in str(problem) for problem in problems)
    assert calculate_brightness.__name__ == "calculate_brightness"
    assert calculate_brightness.__module__ == __name__


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((8, 8), np.uint8), r"img: got shape \(8, 8\) of uint8"),
        (np.zeros((8, 8, 4), np.uint8), r"got shape \(8, 8, 4\)"),
        (np.zeros((8, 8, 3), np.float32), "of float32; expected .* of uint8"),
        (np.zeros((8, 7, 3), np.uint8), "got 8 x 7 px; expected at least 8 px"),
    ],
)
def test_invalid_image(image, words):
    with pytest.raises(ShapeError, match=words):
        check_image("img", image, 8)


def test_a_pair_has_one_size():
    one, other = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)
    check_pair(one, one, 8)
    with pytest.raises(ShapeError, match="got 8 x 8 px beside 8 x 9 px of img2"):
        check_pair(one, other)


def test_better_must_be_the_metrics_own():
    check_better(None, "lower", "")
    check_better("lower", "lower", "")
    with pytest.raises(OptionError, match="better: got 'higher'; expected lower"):
        check_better("higher", "lower", "")


def flat(value: int) -> np.ndarray:
    return np.full((2, 3, 3), value, np.uint8)


def test_equal_images_are_one():
    asked, store = [], ContentCache(4)
    compute = lambda pixels: asked.append(int(pixels[0, 0, 0]))  # noqa: E731 - its value, None, is kept as any other
    for value in (1, 2, 1, 2):
        store.get_or_compute(flat(value), "a", compute)
    assert asked == [1, 2]
    store.get_or_compute(flat(1), "b", compute)
    store.get_or_compute(flat(1).reshape(3, 2, 3), "a", compute)
    assert asked == [1, 2, 1, 1]


def test_the_longest_unused_goes_first():
    asked, store = [], ContentCache(2)
    for value in (1, 2, 1, 3, 1, 2):
        store.get_or_compute(flat(value), None, lambda pixels: asked.append(int(pixels[0, 0, 0])))
    assert asked == [1, 2, 3, 2]
    assert len(store) == 2
