"""The files of docs/EXTENDING.md, in one small training each, and a sweep over two seeds that ends in a table."""

import importlib
import re
import sys

import pytest
import yaml
from basicsr.utils import registry
from helpers import REPOSITORY

from gpen_plugin.cli.evaluate import main as evaluate

BLOCK = re.compile(r"```(python|yaml)\n# (\S+).*?\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall((REPOSITORY / "docs" / "EXTENDING.md").read_text())
FILES = {name: code for kind, name, code in BLOCKS if kind == "python"}
MAX_LINES = 40


@pytest.fixture
def page(tmp_path, monkeypatch, faces):
    """The files in a folder. Returns what the page writes into an option file: for `name`, below `option_file`."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    modules, kinds = {*sys.modules}, [getattr(registry, f"{kind}_REGISTRY")._obj_map for kind in KINDS]
    before = [{**held} for held in kinds]
    yield lambda name, option_file: lines_for(name, option_file)
    for held, names in zip(kinds, before, strict=True):
        held.clear()
        held.update(names)
    for name in {*sys.modules} - modules:
        if name.startswith("own_"):
            del sys.modules[name]


KINDS = ("ARCH", "DATASET", "LOSS", "METRIC", "MODEL")


def lines_for(name: str, option_file: str) -> dict:
    """The YAML that follows the file `name` on the page and belongs to `option_file`."""
    found, after = {}, False
    for kind, of, text in BLOCKS:
        if kind == "python":
            after = of == name
        elif after and option_file in of:
            found = yaml.safe_load(text)
    assert found, (name, option_file)
    return found


def add(options: dict, more: dict) -> None:
    """Write sections of the page into an option file: a section with a `type` of its own takes the place of another."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(options.get(key), dict) and "type" not in value:
            add(options[key], value)
        else:
            options[key] = value


def imports(tmp_path, *names: str) -> list[str]:
    return [str(tmp_path / f"{name}.py") for name in names]


def test_each_file_is_short():
    assert len(FILES) == 8
    for name, code in FILES.items():
        assert len(code.splitlines()) < MAX_LINES, name


def test_own_loss_model_data_and_metric_over_two_seeds_in_a_table(page, options, faces, train, tmp_path):
    options["imports"] = imports(tmp_path, "own_loss", "own_model", "own_dataset", "own_metric")
    for name in ("own_loss.py", "own_model.py", "own_dataset.py", "own_metric.py"):
        add(options, page(name, "gpen_finetune"))
    for name, data in options["datasets"].items():
        data |= {"name": name, "dataroot_gt": str(faces), "out_size": 32}
    options["datasets"]["train"] |= {"num_worker_per_gpu": 0, "batch_size_per_gpu": 2}
    options["train"] |= {"total_iter": 2, "decoder_from": 2}
    options["val"] |= {"val_freq": 2}
    for seed in (0, 1):
        folder = train(options | {"name": f"own_s{seed}", "manual_seed": seed})
    log = next(folder.glob("train_*.log")).read_text()
    assert "l_g_edge: " in log
    assert "# mae: " in log
    table = next(yaml.safe_load(text) for kind, name, text in BLOCKS if name == "own_table.yml")
    table["protocol"] |= {"dataroot_gt": str(faces), "out_size": 32, "num_images": 2}
    (tmp_path / "own_table.yml").write_text(yaml.safe_dump(table))
    assert evaluate(["-opt", "own_table.yml"]) == 0
    latex = (tmp_path / "results/evaluate/own/table.tex").read_text()
    assert "MAE" in latex
    assert re.search(r"Ours.*\\pm", latex)


def test_the_decoder_learns_late(page, options, train, tmp_path):
    import torch

    options |= {"imports": imports(tmp_path, "own_model"), "val": None}
    add(options, page("own_model.py", "gpen_finetune"))
    options["train"] |= {"total_iter": 2, "decoder_from": 3}
    options["logger"]["save_checkpoint_freq"] = 1
    folder = train(options) / "models"
    first, second = (torch.load(folder / f"net_g_{n}.pth", weights_only=True)["params"] for n in (1, 2))
    same = {key for key in first if torch.equal(first[key], second[key])}
    assert same == {key for key in first if key.startswith("decoder.")}


def test_own_term_of_the_loss(page, options, train, tmp_path):
    options |= {"imports": imports(tmp_path, "own_consistency"), "model_type": "ConsistentModel", "val": None}
    options["train"]["total_iter"] = 1
    assert "l_g_consistency: " in next(train(options).glob("train_*.log")).read_text()


def test_own_network(page, rival_options, train, tmp_path):
    rival_options |= {"imports": imports(tmp_path, "own_network"), "val": None}
    add(rival_options, page("own_network.py", "pix2pixhd"))
    rival_options["train"]["total_iter"] = 1
    assert (train(rival_options) / "models/net_g_latest.pth").exists()


def test_own_prior_in_both_stages(page, prior_options, options, train, tmp_path):
    for each in (prior_options, options):
        each |= {"imports": imports(tmp_path, "own_prior"), "val": None}
        each["train"]["total_iter"] = 1
    size = {"out_size": 32, "num_style_feat": 16, "num_mlp": 2, "narrow": 0.03125}
    prior_options["network_g"] = page("own_prior.py", "gpen_prior")["network_g"] | size
    prior = train(prior_options) / "models/net_g_latest.pth"
    add(options, page("own_prior.py", "gpen_finetune"))
    options["path"]["pretrain_prior"] = str(prior)
    assert (train(options) / "models/net_g_latest.pth").exists()


def test_own_loop(page, faces, tmp_path):
    import torch

    from gpen_plugin import GPENDiscriminator, GPENPrior

    own_loop = importlib.import_module("own_loop")
    torch.manual_seed(0)
    size = {"out_size": 32, "narrow": 0.0625, "channel_multiplier": 1}
    prior = GPENPrior(**size, num_style_feat=16, num_mlp=2)
    for name, net in (("prior.pth", prior), ("d.pth", GPENDiscriminator(**size))):
        torch.save(net.state_dict(), tmp_path / name)
    net_g = own_loop.train(str(faces), "prior.pth", "d.pth", iterations=2, batch_size=2)
    moved = (net_g.decoder.constant - prior.constant).abs().max()
    assert 0 < moved <= 2.5 * 0.0002  # Adam's second step is at most 1.41 times the rate here
    assert all(parameter.isfinite().all() for parameter in net_g.parameters())
