"""Every method of every option file builds and restores a face, with random weights and small widths."""

import dataclasses
import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from helpers import REPOSITORY
from helpers.faces_to_restore import degraded, method
from helpers.published_psp import published
from helpers.small_networks import SMALL, saved

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.config.schema import check
from gpen_plugin.evaluate.methods import TYPES
from gpen_plugin.evaluate.options import runs_of

NARROW = {"out_size": 64, "narrow": 0.0625, "num_style_feat": 16, "num_mlp": 2}
SMALL_NETWORKS = {  # type -> arguments, and the input that they take
    "Pix2PixHD": ({"num_feat": 4}, 64),
    "SuperFAN": ({"num_feat": 4}, 64),
    "HiFaceGAN": ({"num_feat": 4}, 64),
    "HiFaceGANPaper": ({"num_feat": 4}, 64),
    "GFPGANv1Clean": (NARROW, 64),
    "GFPGANBilinear": (NARROW, 64),
    "gfpgan.archs.restoreformer_arch.RestoreFormer": (
        {"ch": 32, "ch_mult": [1, 2], "resolution": 32, "n_embed": 8, "embed_dim": 32, "z_channels": 32},
        32,
    ),
    "GFRNet": ({"out_size": 32, "num_feat": 2}, "native"),
    "GWAInet": ({"out_size": 32, "num_feat": 4, "warper_blocks": 1, "blocks": 1}, "native"),
}
SMALL_SEARCHES = {
    "pulse": {"iterations": 2},
    "mganprior": {"iterations": 2, "codes": 2, "compose_at": 8, "perceptual_weight": 0},
    "psp": {},
}
SMALL_TRAINING = {"io_backend": {"type": "disk"}, "iterations": 2, "batch_size": 2, "workers": 0, "scales": [2, 4]}
FILES = sorted((REPOSITORY / "options" / "evaluate").glob("*.yml"))
ENTRIES = {
    f"{file.stem}: {name}": runs_of(name, entry)[0].entry
    for file in FILES
    for name, entry in yaml.safe_load(file.read_text())["methods"].items()
}
OF_FILES = ("weights", "dictionary", "prior")  # keys that `in_small` replaces
DISTINCT = {  # one of the entries that are alike
    yaml.safe_dump({key: value for key, value in entry.items() if key not in OF_FILES}): name
    for name, entry in ENTRIES.items()
    if entry["type"] != "folder"
}


def in_small(entry: dict, folder: Path, faces: Path) -> dict:
    """An entry that needs no file but those that the test writes into `folder`, and `faces` to train on."""
    entry, kind = deepcopy(entry), entry["type"]
    if kind == "gpen":
        entry |= {"weights": "random", "network": {"out_size": 32, **SMALL}}
    elif kind == "dfdnet":
        entry |= {"weights": "random", "dictionary": "random"}
    elif kind == "arch":
        arguments, input_size = SMALL_NETWORKS[entry["network"]["type"]]
        entry["network"] |= arguments
        entry |= {"weights": "random", "input_size": input_size}
        entry |= {"reference_size": 32} if "reference_size" in entry else {}
    elif kind == "psp" and "prior" not in entry:
        entry |= {"weights": str(saved(folder / "psp.pt", published()))}
    elif kind in SMALL_SEARCHES:
        torch.manual_seed(0)
        prior = saved(folder / "prior.pth", GPENPrior(32, **SMALL).state_dict())
        entry |= {"prior": str(prior), **SMALL_SEARCHES[kind]}
        if "train" in entry:
            entry["train"] |= {"dataroot_gt": str(faces), **SMALL_TRAINING}
    return entry


def test_there_is_something_to_build():
    assert {"table1", "table2", "table3", "wild"} <= {file.stem for file in FILES}
    assert len(DISTINCT) > 20
    assert set(TYPES) == {entry["type"] for entry in ENTRIES.values()}
    networks = {entry["network"]["type"] for entry in ENTRIES.values() if entry["type"] == "arch"}
    assert networks == set(SMALL_NETWORKS)


@pytest.mark.parametrize("name", DISTINCT.values())
def test_entry_restores_a_face(name, faces, tmp_path):
    entry = in_small(ENTRIES[name], tmp_path, faces)
    if "gfpgan" in str(entry):
        pytest.importorskip("gfpgan")
    restore = method(entry, tmp_path)
    if entry["type"] == "dfdnet":
        restore.io = dataclasses.replace(restore.io, input_size=128)  # a sixteenth of the time of 512 px
    restored = restore(degraded(size=32, ref=degraded(1, 32, 32).lq))
    assert restored.shape == (32, 32, 3)
    # the initial weights of HiFaceGAN's authors are so small that the image is black
    assert (restored.std() > 0) == ("HiFaceGANPaper" not in str(entry))


def examples(text: str) -> dict[str, list[dict]]:
    """The methods that stand in a file's comments, by name: lines ``# NAME:`` and the keys that are indented below."""
    lines = [line.removeprefix("  # ") for line in text.splitlines() if line.startswith("  # ")]
    names = re.compile(r"[\w+-]+:$")
    keys = re.compile(r" +\w+: *\S*")
    kept = [line for line in lines if names.match(line) or keys.match(line)]
    starts = [index for index, line in enumerate(kept) if names.match(line)]
    found: dict[str, list[dict]] = {}
    for begin, end in zip(starts, [*starts[1:], len(kept)], strict=True):
        ((name, entry),) = yaml.safe_load("\n".join(kept[begin:end])).items()
        found.setdefault(name, []).append(entry)
    return found


def test_examples_in_comments_are_valid():
    found = examples((REPOSITORY / "options" / "evaluate" / "table2.yml").read_text())
    assert {"CodeFormer", "VQFR", "RestoreFormer++", "GFRNet-authors"} == set(found)
    for name, entries in found.items():
        for entry in entries:
            options_class, _ = TYPES[entry["type"]]
            check(options_class, {key: value for key, value in entry.items() if key != "type"}, name)
    assert {entry["type"] for entry in found["CodeFormer"]} == {"folder", "arch"}
