"""Option files of commands without a host: what is read, what --force_yml changes, and every clear refusal."""

import re

import pytest

from gpen_plugin.config.yaml_io import read_options
from gpen_plugin.errors import OptionError

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
