"""The arithmetic of the host's validation, on an accumulator that joins words in the order of its records."""

import math
import pickle

import pytest

from gpen_plugin.metrics.base import SetAccumulator


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


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_set_that_is_not_whole_has_no_value(place):
    """As where weights were put into their folder while a validation ran."""
    pairs = [Lengths("now"), Lengths("no")]
    pairs.insert(place, math.nan)
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


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="two languages"):
        Lengths("no") + Lengths("non", "fr")


def test_a_wrong_count_is_seen():
    with pytest.raises(AssertionError, match="2 pairs were added up, and 3 counted"):
        (Lengths("no") + Lengths("now")) / 3
