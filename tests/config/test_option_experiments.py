"""Which experiments the option files make: none takes another's folder, and what one starts from fits."""

import re
from collections import Counter

import pytest
import yaml
from helpers import REPOSITORY
from test_preflight import OPTION_FILES

from gpen_plugin.sweep.options import SweepOptions
from gpen_plugin.sweep.plan import plan

SWEEPS = sorted((REPOSITORY / "options").rglob("sweep_*.yml"))
LOADED = {file: yaml.safe_load(file.read_text()) for file in OPTION_FILES}
TRAININGS = {file: options for file, options in LOADED.items() if "train" in options}


def test_no_option_file_makes_the_experiment_of_another():
    names = Counter(options["name"] for options in LOADED.values())
    assert [name for name, count in names.items() if count > 1] == []


def test_sweeps_make_no_experiment_of_another_option_file(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    made = Counter()
    for file in SWEEPS:
        options = SweepOptions.from_mapping(yaml.safe_load(file.read_text()))
        own = {training.name for training in plan(options)}
        others = {each["name"] for path, each in LOADED.items() if path != REPOSITORY / options.base}
        assert own & others == set()
        made.update(own)
    assert made.total() == len(made) >= 3


@pytest.mark.parametrize("file", TRAININGS, ids=lambda file: file.stem)
def test_what_a_training_starts_from_has_its_size(file):
    """Where that is the experiment of another option file."""
    sizes = {options["name"]: options["network_g"]["out_size"] for options in TRAININGS.values()}
    options = TRAININGS[file]
    for path in filter(None, (options["path"].get(f"pretrain_{name}") for name in ("prior", "network_g", "network_d"))):
        found = re.fullmatch(r"experiments/(\w+)/models/net_[gd]_latest\.pth", path.format(**options["network_g"]))
        if found and found[1] in sizes:
            assert sizes[found[1]] == options["network_g"]["out_size"], path
