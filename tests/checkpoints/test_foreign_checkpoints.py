"""Files of others, StyleGAN2's above all, and whole networks where a prior is wanted."""

import argparse
import logging
import os
import pickle
from types import SimpleNamespace

import pytest
import torch

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.key_maps import to_authors
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.checkpoints.convert import to_layout
from gpen_plugin.errors import CheckpointError

OF_D = {"channel_multiplier": 1, "narrow": 0.04}
SMALL = {"num_style_feat": 8, "num_mlp": 2, **OF_D}
COMMAND_LINE = argparse.Namespace(size=16, lr=0.002, arch="stylegan2", betas=(0, 0.99), path=None)


def prior(seed=0, **arguments):
    torch.manual_seed(seed)
    return GPENPrior(16, **SMALL | arguments)


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def stylegan2_training_file(path):
    """What rosinality's training saves: the names of the authors, fixed noise, and its command line."""
    noise = {f"noises.noise_{i}": torch.randn(1, 1, 4, 4) for i in range(5)}
    average, raw = (to_authors(prior(seed, noise_mode="add").state_dict()) | noise for seed in range(2))
    optimizer = {"state": {}, "param_groups": [{"lr": 0.002}]}
    content = {"g": raw, "d": to_authors(GPENDiscriminator(16, **OF_D).state_dict()), "g_ema": average}
    content |= {"g_optim": optimizer, "d_optim": optimizer, "args": COMMAND_LINE, "ada_aug_p": 0.0}
    torch.save(content, path)
    return content


def test_the_training_file_of_stylegan2(tmp_path):
    content = stylegan2_training_file(tmp_path / "550000.pt")
    assert checkpoint.read_whole(tmp_path / "550000.pt")["args"] == COMMAND_LINE
    net, discriminator = prior(9, noise_mode="add"), GPENDiscriminator(16, **OF_D)
    assert checkpoint.load_into(net, tmp_path / "550000.pt") == []
    checkpoint.load_into(discriminator, tmp_path / "550000.pt")
    assert same(to_authors(net.state_dict()), {k: t for k, t in content["g_ema"].items() if "noises" not in k})
    assert same(to_authors(discriminator.state_dict()), content["d"])
    checkpoint.load_into(net, tmp_path / "550000.pt", "g")
    assert torch.equal(net.constant, content["g"]["input.input"])


def test_the_released_file_of_stylegan2(tmp_path):
    source, target = prior(1, noise_mode="add"), prior(2, noise_mode="add")
    torch.save({"g_ema": to_authors(source.state_dict()), "latent_avg": torch.zeros(8)}, tmp_path / "ffhq.pt")
    checkpoint.load_into(target, tmp_path / "ffhq.pt")
    assert same(source.state_dict(), target.state_dict())


@pytest.mark.parametrize("build", [lambda seed: prior(seed, noise_mode="add"), lambda _: GPENDiscriminator(16, **OF_D)])
def test_the_hosts_stylegan2_file(tmp_path, build):
    source, target = build(1), build(2)
    average = to_layout(source.state_dict(), "stylegan2")
    raw = {key: tensor + 1 for key, tensor in average.items()}
    torch.save({"params": raw, "params_ema": average}, tmp_path / "net.pth")
    checkpoint.load_into(target, tmp_path / "net.pth")
    assert same(source.state_dict(), target.state_dict())


def test_stylegan2_layout_refuses_concatenated_noise(tmp_path):
    torch.save(to_layout(prior(noise_mode="add").state_dict(), "stylegan2"), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"holds GPENPrior 16 px.*noise add.*; expected GPENPrior.*noise concat"):
        checkpoint.load_into(prior(), tmp_path / "net.pth")


@pytest.mark.parametrize("layout", ["ours", "authors"])
@pytest.mark.parametrize("wrap", [lambda weights: weights, lambda weights: {"params": {}, "params_ema": weights}])
def test_a_prior_takes_the_decoder_of_a_whole_network(tmp_path, caplog, layout, wrap):
    torch.manual_seed(1)
    whole, net = GPEN(16, **SMALL), prior(2)
    checkpoint.write(tmp_path / "net.pth", wrap(to_layout(whole.state_dict(), layout)))
    with caplog.at_level(logging.INFO, "basicsr"):
        assert checkpoint.load_into(net, tmp_path / "net.pth", where="path:pretrain_prior") == []
    assert same(net.state_dict(), whole.decoder.state_dict())
    assert f"path:pretrain_prior: {tmp_path / 'net.pth'}: holds a whole GPEN; its decoder is taken." in caplog.text


def test_a_whole_network_does_not_take_a_decoder(tmp_path):
    checkpoint.write(tmp_path / "net.pth", prior().state_dict())
    with pytest.raises(CheckpointError, match=r"holds GPENPrior 16 px.*expected GPEN 16 px"):
        checkpoint.load_into(GPEN(16, **SMALL), tmp_path / "net.pth")


def test_the_part_of_a_decoder_that_fits(tmp_path):
    torch.manual_seed(1)
    whole, net = GPEN(32, **SMALL), prior(2)
    checkpoint.write(tmp_path / "net.pth", whole.state_dict())
    assert checkpoint.load_into(net, tmp_path / "net.pth", strict=False) == []
    assert torch.equal(net.constant, whole.decoder.constant)


def test_a_decoder_with_another_filter_is_refused(tmp_path):
    torch.manual_seed(1)
    checkpoint.write(tmp_path / "net.pth", to_authors(GPEN(16, **SMALL).state_dict(), (1, 2, 2, 1)))
    with pytest.raises(CheckpointError, match=r"convs\.0\.conv\.blur\.kernel: another FIR filter"):
        checkpoint.load_into(prior(), tmp_path / "net.pth")


class Malice:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("carry", [lambda trace: argparse.Namespace(x=Malice(trace)), lambda _: SimpleNamespace(x=1)])
def test_only_a_namespace_is_unpickled(tmp_path, carry):
    path, trace = tmp_path / "net.pth", tmp_path / "trace"
    torch.save({"g_ema": {}, "args": carry(str(trace))}, path)
    with pytest.raises(CheckpointError, match=r"net\.pth: holds code besides weights \((\w+\.mkdir|types\.Simple)"):
        checkpoint.read(path)
    assert not trace.exists()


def test_namespace_is_safe_only_while_reading(tmp_path):
    torch.save({"args": COMMAND_LINE}, tmp_path / "net.pth")
    assert checkpoint.read_whole(tmp_path / "net.pth")["args"] == COMMAND_LINE
    with pytest.raises(pickle.UnpicklingError, match=r"argparse\.Namespace"):
        torch.load(tmp_path / "net.pth", weights_only=True)
