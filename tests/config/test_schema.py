from collections.abc import Mapping, Sequence
from typing import Literal

import pytest

from gpen_plugin.config import schema
from gpen_plugin.errors import CheckpointError, GPENError, OptionError, join_errors


def network(
    out_size: int,
    narrow: float = 1.0,
    noise_mode: Literal["concat", "add"] = "concat",
    taps: Sequence[int] = (1, 3),
    pair: tuple[float, float] = (0, 1),
    path: str | None = None,
    extra: Mapping | None = None,
    flag: bool = True,
):
    """Stands for any class that an option file names."""


@pytest.mark.parametrize(
    "given",
    [
        {"out_size": 64},
        {"out_size": 64, "narrow": 1, "taps": [1, 2, 3], "pair": [0, 1.5], "path": None, "extra": {}, "flag": False},
        {"out_size": 64, "noise_mode": "add", "path": "x"},
    ],
)
def test_right_values_pass(given):
    schema.check(network, given, "network_g")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"out_sise": 64, "out_size": 64}, "network_g:out_sise: unknown key.*Did you mean 'out_size'"),
        ({}, "network_g:out_size: missing; expected a whole number"),
        ({"out_size": "64"}, r"network_g:out_size: got '64' \(str\); expected a whole number. Write 64 without quotes"),
        ({"out_size": True}, "got True"),
        ({"out_size": 64, "narrow": "2"}, "narrow: got '2'.*Write 2 without quotes"),
        ({"out_size": 64, "narrow": "2e-3"}, "narrow: got '2e-3'.*write !!float 2e-3"),
        ({"out_size": 64, "noise_mode": "cat"}, "expected one of 'concat', 'add'"),
        ({"out_size": 64, "pair": [1]}, r"pair: got .*a list of 2 values: a number, a number.*The default is \[0, 1\]"),
        ({"out_size": 64, "taps": [1, "a"]}, "taps: got .*a list of a whole number"),
        ({"out_size": 64, "path": 3}, r"path: got 3 \(int\); expected a text or nothing"),
        ({"out_size": 64, "extra": [1]}, "extra: got .*a mapping"),
        ({"out_size": 64, "flag": 1}, "flag: got 1 .*true or false"),
        ([1], "network_g: got .*a mapping of keys to values"),
    ],
)
def test_each_mistake_says_where_what_and_how(given, message):
    with pytest.raises(OptionError, match=message):
        schema.check(network, given, "network_g")


def test_all_problems_come_at_once():
    with pytest.raises(OptionError, match=r"^3 problems:") as caught:
        schema.check(network, {"out_sizes": 1, "narrow": "x"}, "network_g")
    assert str(caught.value).count("\n  - ") == 3


def test_an_error_continues_its_key_path_and_survives_a_worker():
    error = OptionError("out_size", "got 500", "a power of two", "Use 512.").under("network_g")
    assert str(error) == "network_g:out_size: got 500; expected a power of two. Use 512."
    assert str(type(error)(str(error))) == str(error)  # how PyTorch brings errors of loader workers back
    assert isinstance(error, GPENError)
    assert isinstance(error, ValueError)


def test_joining_keeps_the_kind_of_the_first():
    assert join_errors([CheckpointError("a", "b")]).where == "a"
    assert isinstance(join_errors([CheckpointError("a", "b"), OptionError("c", "d")]), CheckpointError)
