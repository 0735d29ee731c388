"""Which experiments the option files make: none takes another's folder, and what one starts from fits."""

import re
import subprocess
from collections import Counter

import pytest
import yaml
from helpers import REPOSITORY
from test_preflight import OPTION_FILES

from gpen_plugin.config.schema import read_options

LOADED = {file: yaml.safe_load(file.read_text()) for file in OPTION_FILES}
TRAININGS = {file: options for file, options in LOADED.items() if "train" in options}


def test_no_option_file_makes_the_experiment_of_another():
    names = Counter(options["name"] for options in LOADED.values())
    assert [name for name, count in names.items() if count > 1] == []


@pytest.fixture(scope="module")
def documented() -> list[tuple[str, list[str]]]:
    """What the loops of docs/EVIDENCE.md train: (option file, its ``--force_yml``)."""
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "docs" / "EVIDENCE.md").read_text(), re.DOTALL)
    script = "\n".join(['python() { echo "$@"; }; torchrun() { :; }', *blocks])
    printed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert printed.stderr == ""
    commands = [line.split() for line in printed.stdout.splitlines() if line.startswith("-m gpen_plugin.train ")]
    checked = [[word for word in words if word != "--dry-run"] for words in commands if "--dry-run" in words]
    trained = [words for words in commands if "--dry-run" not in words]
    assert checked == trained
    return [(words[words.index("-opt") + 1], words[words.index("--force_yml") + 1 :]) for words in trained]


def test_documented_trainings_make_no_experiment_of_another_option_file(documented):
    made = Counter()
    for file, changes in documented:
        name = read_options(REPOSITORY / file, changes)["name"]
        assert name not in {each["name"] for path, each in LOADED.items() if path != REPOSITORY / file}
        made[name] += 1
    assert made.total() == len(made) == 3 + 6 * 3 + 4


def test_documented_trainings_change_keys_that_are_there(documented):
    for file, changes in documented:
        before = LOADED[REPOSITORY / file]
        for change in changes:
            *sections, key = change.partition("=")[0].split(":")
            section = before
            for name in sections:
                section = section[name]
            assert key in section, change


@pytest.mark.parametrize("file", TRAININGS, ids=lambda file: file.stem)
def test_what_a_training_starts_from_has_its_size(file):
    """Where that is the experiment of another option file."""
    sizes = {options["name"]: options["datasets"]["train"]["out_size"] for options in TRAININGS.values()}
    options = TRAININGS[file]
    for path in filter(None, (options["path"].get(f"pretrain_{name}") for name in ("prior", "network_g", "network_d"))):
        found = re.fullmatch(r"experiments/(\w+)/models/net_[gd]_latest\.pth", path.format(**options["network_g"]))
        whole = options["path"].get("strict_load_g", True)  # part of a network may be of another size
        if found and found[1] in sizes and whole:
            assert sizes[found[1]] == options["datasets"]["train"]["out_size"], path
