"""Which trainings a sweep makes, under which names, and which it holds for finished."""

import os
import re
from pathlib import Path

import pytest
import yaml
from basicsr.utils import options as hosts_options
from helpers import REPOSITORY

from gpen_plugin.errors import OptionError
from gpen_plugin.host.run_hooks import _reads_yaml
from gpen_plugin.sweep.options import SweepOptions, forced
from gpen_plugin.sweep.plan import Training, plan

BASE = {"name": "base", "manual_seed": 0, "train": {"total_iter": 9, "freeze_decoder": False}, "network_g": {}}
SWEEPS = sorted((REPOSITORY / "options").rglob("sweep_*.yml"))
SWEEP = {
    "base": "base.yml",
    "name": "small_{variant}_s{seed}",
    "variants": {"GPEN": {}, "GPEN-w/o-ft": {"train:freeze_decoder": True}},
}


@pytest.fixture(autouse=True)
def base(tmp_path, monkeypatch) -> Path:
    """The base, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    Path("base.yml").write_text(yaml.safe_dump(BASE))
    return Path("base.yml")


def planned(**changes: object) -> list[Training]:
    return plan(SweepOptions.from_mapping(SWEEP | changes))


def test_every_variant_is_trained_before_the_next_seed():
    names = [training.name for training in planned(seeds=[0, 7])]
    assert names == ["small_gpen_s0", "small_gpen_w_o_ft_s0", "small_gpen_s7", "small_gpen_w_o_ft_s7"]


def test_words_of_a_training_are_those_that_a_user_would_type():
    training = planned(seeds=[7])[1]
    words = "-opt base.yml --auto_resume --force_yml name=small_gpen_w_o_ft_s7 manual_seed=7 train:freeze_decoder=true"
    assert training.words == tuple(words.split())
    assert (training.variant, training.total_iter) == ("GPEN-w/o-ft", 9)
    assert training.weights == Path("experiments/small_gpen_w_o_ft_s7/models/net_g_latest.pth")


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_the_sweeps_of_the_project_are_right(file, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    name = file.relative_to(REPOSITORY)
    assert file.read_text().splitlines()[0] == f"# python -m gpen_plugin.sweep -opt {name}"
    trainings = plan(SweepOptions.from_mapping(yaml.safe_load(file.read_text())))
    assert len({training.name for training in trainings}) == len(trainings) >= 3


def test_there_are_sweeps():
    assert len(SWEEPS) >= 3


def test_a_variant_may_train_for_longer():
    variants = {"short": {"train:total_iter": 3}, "long": {}}
    assert [training.total_iter for training in planned(variants=variants)] == [3, 9]


def test_some_variants():
    options = SweepOptions.from_mapping(SWEEP)
    assert [training.variant for training in plan(options, ["GPEN-w/o-ft"])] == ["GPEN-w/o-ft"]
    with pytest.raises(OptionError, match="--only: got GPEM; expected some of GPEN, GPEN-w/o-ft"):
        plan(options, ["GPEM"])


def test_a_variant_may_be_a_number_in_yaml():
    options = SweepOptions.from_mapping(SWEEP | {"variants": {64: {}, 128: {}}})
    assert [training.variant for training in plan(options, ["128"])] == ["128"]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        *((value, value) for value in (True, False, None, 0, -3, 2.5, 1e-4, 1e-7, "add", {"type": "Adam", "lr": 1e-4})),
        *((value, value) for value in ([100, 10, 1], ["flip", "color"], [True, None, 0.5])),
        ("1e-4", 1e-4),  # what YAML takes for a text, --force_yml does not
    ],
)
def test_the_host_reads_what_the_file_says(value, read):
    key, _, text = forced("section:key", value).partition("=")
    assert key == "section:key"
    found = _reads_yaml(hosts_options._postprocess_yml_value, [f"{key}={text}"])(text)
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sead": [1]}, "sead: unknown key.*Did you mean 'seeds'"),
        ({"seeds": []}, r"seeds: got \[\]; expected different numbers from 0"),
        ({"seeds": [1, 1]}, r"seeds: got \[1, 1\]; expected different"),
        ({"seeds": [-1]}, r"seeds: got \[-1\]"),
        ({"seeds": 3}, "seeds: got 3"),
        ({"processes": 0}, "processes: got 0; expected 1 or more"),
        ({"devices": [0, 0]}, r"devices: got \[0, 0\]"),
        ({"variants": {}}, "variants: got none"),
        ({"variants": {"GPEN": None}}, "variants:GPEN: got None; expected a mapping"),
        ({"variants": {"GPEN": {"train freeze": 1}}}, "variants:GPEN:train freeze: no key"),
        ({"variants": {"GPEN": {"manual_seed": 1}}}, "variants:GPEN:manual_seed: got 1; expected manual_seed from the"),
        ({"name": "x_{variant}_{sede}"}, r"name: got x_\{variant\}_\{sede\}; expected in braces only"),
        ({"name": "{}"}, "name: got .*in braces only"),
        ({"name": "a/{variant}"}, "name: makes the folder 'a/gpen'; expected a letter"),
        ({"name": "64_{seed}"}, "name: makes the folder '64_0'; expected a letter"),  # YAML: the number 640
        ({"name": "debug_{variant}"}, "name: makes the folder 'debug_gpen'.*short run"),
        ({"name": "x_{seed}"}, "name: 'GPEN-w/o-ft' of seed 0 and 'GPEN' of seed 0 would share the folder x_0"),
        ({"name": "x_{variant}", "seeds": [0, 1]}, "'GPEN' of seed 1 and 'GPEN' of seed 0 would share"),
        ({"variants": {"a/b": {}, "A-b": {}}}, "'A-b' of seed 0 and 'a/b' of seed 0 would share the folder small_a_b"),
        ({"base": "nowhere.yml"}, "base: nowhere.yml cannot be read"),
        ({"variants": {"GPEN": {"name:x": 1}}}, "--force_yml name:x=1: 'name' is 'small_gpen_s0' in the option file"),
    ],
)
def test_mistakes_are_told(changes, message):
    with pytest.raises(OptionError, match=message):
        planned(**changes)


def test_several_mistakes_are_told_at_once():
    with pytest.raises(OptionError, match=r"(?s)^2 problems:.*seeds: .*processes: |^2 problems:.*processes: .*seeds: "):
        planned(seeds=[-1], processes=0)


def test_a_base_without_an_end(base):
    base.write_text(yaml.safe_dump(BASE | {"train": {}}))
    with pytest.raises(OptionError, match=re.escape("base.yml: train:total_iter: missing")):
        planned()


@pytest.mark.parametrize(
    ("processes", "devices", "number"), [(None, [], 1), (3, [], 3), (None, [0, 1], 2), (4, [0, 1], 4)]
)
def test_how_many_at_a_time(processes, devices, number):
    assert SweepOptions.from_mapping(SWEEP | {"processes": processes, "devices": devices}).side_by_side == number


def left(training: Training, *, start: int, end: int | None = None, states=(6,), asked=9, forced=None) -> None:
    """What a run leaves: the copy of its option file from its start, and from its end the networks."""
    folder = Path("experiments") / training.name
    (folder / "models").mkdir(parents=True)
    (folder / "training_states").mkdir()
    for iteration in states:
        (folder / "training_states" / f"{iteration}.state").touch()
    if asked is not None:
        command = "train.py -opt base.yml --force_yml name=x" + (f" train:total_iter={forced}" if forced else "")
        text = yaml.safe_dump(BASE | {"train": {"total_iter": asked}})
        (folder / "base.yml").write_text(f"# GENERATE TIME: today\n# CMD:\n# {command}\n\n{text}")
        os.utime(folder / "base.yml", (start, start))
    if end is not None:
        training.weights.touch()
        os.utime(training.weights, (end, end))


@pytest.mark.parametrize(
    ("run", "finished"),
    [
        ({"start": 10, "end": 20}, True),
        ({"start": 10}, False),  # stopped
        ({"start": 30, "end": 20}, False),  # the networks are of the run before, and the last one was stopped
        ({"start": 10, "end": 20, "asked": 8}, False),  # total_iter was raised, within a checkpoint's interval
        ({"start": 10, "end": 20, "asked": 5, "forced": 9}, True),
        ({"start": 10, "end": 20, "asked": 9, "forced": 5}, False),
        ({"start": 10, "end": 20, "asked": None}, False),  # of another option file
        ({"start": 30, "end": 20, "states": ()}, True),  # brought here without states
        ({"start": 30, "end": 20, "states": (), "asked": None}, True),  # networks alone were brought here
        ({"start": 10, "end": 20, "states": (), "asked": 8}, False),
    ],
)
def test_what_is_finished(run, finished):
    training = planned()[0]
    assert not training.is_finished()
    left(training, **run)
    assert training.is_finished() is finished


def test_a_copy_that_a_kill_cut_short_is_of_no_finished_run():
    training = planned()[0]
    left(training, start=10, end=20)
    Path("experiments", training.name, "base.yml").write_text("# GENERATE TIME: today\n# CMD:\n# x\n\ntrain: [")
    os.utime(Path("experiments", training.name, "base.yml"), (10, 10))
    assert not training.is_finished()


def test_it_goes_on_from_the_newest_state():
    training = planned()[0]
    assert training.resumes_at == 0
    left(training, start=10, states=(3, 12, 6))
    assert training.resumes_at == 12
