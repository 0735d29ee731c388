import re
from collections.abc import Mapping, Sequence
from typing import Literal

import pytest

from gpen_plugin.config import schema
from gpen_plugin.config.schema import read_options
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


TEXT = "name: x\nprotocol: {type: bfr, out_size: 64}\nempty:\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "options.yml"
    path.write_text(TEXT)
    return path


def test_what_the_file_says(file):
    assert read_options(file) == {"name": "x", "protocol": {"type": "bfr", "out_size": 64}, "empty": None}


@pytest.mark.parametrize(
    ("entry", "section", "value"),
    [
        ("protocol:out_size=32", "protocol", {"type": "bfr", "out_size": 32}),
        ("protocol:num_images=~", "protocol", {"type": "bfr", "out_size": 64, "num_images": None}),
        ("empty:a:b = [1, 2]", "empty", {"a": {"b": [1, 2]}}),
        ("new:lr=1e-4", "new", {"lr": 1e-4}),
        ("new:lr=!!float1e-4", "new", {"lr": 1e-4}),
        ("name=a=b", "name", "a=b"),
        ("metrics={}", "metrics", {}),
    ],
)
def test_forced(file, entry, section, value):
    assert read_options(file, [entry])[section] == value


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("protocol:out_size", "key=value"),
        ("=3", "key=value"),
        ("name:x=3", "'name' is 'x' in the option file"),
        ("name=[1", "no YAML"),
    ],
)
def test_a_wrong_entry_is_named(file, entry, words):
    with pytest.raises(OptionError, match="--force_yml") as caught:
        read_options(file, [entry])
    assert entry in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: [1\nc: 2\n", "options.yml, line 3"),
        ("a: 1\nb: {c: 1, c: 2}\n", "options.yml, line 2: the key 'c' is there twice"),
        ("- a\n", "holds list"),
        ("", "holds NoneType"),
        ("a: !!python/object/apply:os.getcwd []\n", "line 1"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(file, text, words):
    file.write_text(text)
    with pytest.raises(OptionError, match=re.escape(words)):
        read_options(file)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(OptionError, match=r"nothing\.yml"):
        read_options(tmp_path / "nothing.yml")


def test_merged_sections_may_be_merged_again(file):
    file.write_text("a: &a {x: 1, z: 0}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3}\n")
    assert read_options(file)["c"] == {"x": 3, "z": 0}
