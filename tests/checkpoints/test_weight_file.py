"""What ``--inspect`` says about files."""

import argparse

import pytest
import torch
import yaml
from basicsr.archs import build_network
from helpers.small_networks import NETWORKS, discriminator_weights, saved, weights

from gpen_plugin.archs.key_maps import to_authors
from gpen_plugin.checkpoints.convert import to_layout
from gpen_plugin.cli.convert import main


def inspected(capsys, *paths):
    status = main(["--inspect", *map(str, paths)])
    return status, capsys.readouterr()


def option_lines(text, key):
    """The YAML of a report, as one would paste it."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip() == f"{key}:")
    depth = len(lines[start]) - len(lines[start].lstrip())
    end = start + 1
    while end < len(lines) and lines[end].startswith(" " * (depth + 1)):
        end += 1
    return yaml.safe_load("\n".join(line[depth:] for line in lines[start:end]))[key]


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("layout", ["ours", "authors"])
def test_inspect_prints_the_options(tmp_path, capsys, build, layout):
    ours = weights(build)
    path = saved(tmp_path / "a.pth", {"params": to_layout(ours, layout)})
    status, output = inspected(capsys, path)
    assert status == 0
    assert f"layout {layout}; {sum(t.numel() for t in ours.values()):,} parameters; float32; all finite" in output.out
    key = "network_d" if build is NETWORKS["GPENDiscriminator"] else "network_g"
    build_network(option_lines(output.out, key)).load_state_dict(ours, strict=True)


def test_inspect_names_every_entry(tmp_path, capsys):
    ours = weights(NETWORKS["GPENPrior add"])
    content = {"g_ema": to_layout(ours, "stylegan2"), "d": discriminator_weights(64), "latent_avg": torch.zeros(512)}
    content |= {"g_optim": {"state": {}, "param_groups": []}, "args": argparse.Namespace(x=1), "iter": 7}
    status, output = inspected(capsys, saved(tmp_path / "a.pth", content))
    assert status == 0
    assert "g_ema: GPENPrior 64 px, channel_multiplier 1, narrow 0.04, noise add" in output.out
    assert "layout stylegan2;" in output.out
    assert "d: GPENDiscriminator 64 px" in output.out
    besides = "besides: latent_avg (tensor of (512,)), g_optim (dict of 2), args (Namespace), iter (7)"
    assert besides in output.out


def test_inspect_prints_other_filters(tmp_path, capsys):
    path = saved(tmp_path / "a.pth", to_authors(weights(NETWORKS["GPEN concat"]), (1, 2, 2, 1)))
    _, output = inspected(capsys, path)
    net = build_network(option_lines(output.out, "network_g"))
    net.load_state_dict(torch.load(path), strict=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (discriminator_weights(16) | {"hidden.bias": torch.tensor([float("nan")] * 20)}, "NOT FINITE: hidden.bias"),
        (discriminator_weights(16) | {"logit.bias": torch.tensor([float("inf")])}, "NOT FINITE: logit.bias"),
        ({key: t for key, t in discriminator_weights(16).items() if key != "logit.bias"}, "(logit.bias is missing)"),
        ({"a": torch.ones(1)}, "no weights of a GPEN, GPENPrior or GPENDiscriminator\n  besides: holds a"),
        ({"optimizers": [], "iter": 4}, "besides: holds optimizers, iter"),
    ],
)
def test_inspect_fails_for_invalid_weights(tmp_path, capsys, content, message):
    sound = saved(tmp_path / "sound.pth", discriminator_weights(16))
    status, output = inspected(capsys, saved(tmp_path / "a.pth", content), tmp_path / "none.pth", sound)
    assert status == 1
    assert message in output.out
    assert "none.pth: there is no such file" in output.err
    assert f"{sound}\n  flat: GPENDiscriminator 16 px" in output.out, "the others go on"
    assert inspected(capsys, sound)[0] == 0


def test_inspect_names_folders_and_training_states(tmp_path, capsys):
    state = saved(tmp_path / "150.state", {"epoch": 2, "iter": 150, "optimizers": [], "schedulers": [], "guard": {}})
    status, output = inspected(capsys, tmp_path, state)
    assert status == 1
    assert f"{tmp_path}: is a folder; expected a weight file. Name a file in it.\n" in output.err
    found = f"{state}: is a training state of iteration 150; expected a weight file. "
    assert f"{found}Its weights are net_g_150.pth in models/, beside its folder.\n" in output.err
    assert output.out == ""
