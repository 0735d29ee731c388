"""What weight files state of themselves: written, read, checked, and used whatever the file is called."""

import json
import struct
from hashlib import sha256

import numpy as np
import pytest
import torch
from helpers.published_folders import lonely_machine
from helpers.small_networks import OF_D, SMALL, built, saved

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.checkpoints import checkpoint, metadata
from gpen_plugin.checkpoints.checkpoint import describe
from gpen_plugin.checkpoints.metadata import Conventions, Metadata
from gpen_plugin.cli.convert import main
from gpen_plugin.cli.grow import main as grow
from gpen_plugin.errors import CheckpointError
from gpen_plugin.restore.network import load, open_network
from gpen_plugin.restore.restorer import Restorer
from gpen_plugin.version import __version__

UNUSUAL = {"lr_mlp": 0.1, "resample_kernel": (1, 2, 1), "value_range": (0, 1)}
CONVENTIONS = metadata.stated(Conventions((0, 1), "seg2face", "dlib", 0.8))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    return lonely_machine(tmp_path, monkeypatch)


def unusual():
    return built(lambda: GPEN(32, in_size=16, **SMALL, **UNUSUAL))


def written(path, net, content=None, **facts):
    facts = {"conventions": CONVENTIONS, "license": "CC0", "data": "drawn faces", "title": "Faces"} | facts
    checkpoint.write(path, dict(net.state_dict()) if content is None else content, describe(net, **facts))
    return path


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_stated_facts_are_read_again(name, tmp_path):
    net = unusual()
    stated = metadata.read(written(tmp_path / name, net))
    assert stated.version == __version__
    assert (stated.architecture, stated.license, stated.data, stated.title) == ("GPEN", "CC0", "drawn faces", "Faces")
    assert stated.conventions == CONVENTIONS
    assert stated.arguments == {
        **{"out_size": 32, "in_size": 16, "num_style_feat": 8, "num_mlp": 2, "narrow": 0.04, "noise_mode": "concat"},
        **{"lr_mlp": 0.1, "resample_kernel": [1, 2, 1], "value_range": [0, 1]},
    }
    assert stated.weights_sha256 == metadata.digest(net.state_dict())
    assert checkpoint.read(tmp_path / name).keys() == net.state_dict().keys()


def test_safetensors_header_has_the_keys_of_other_programs(tmp_path):
    path = written(tmp_path / "a.safetensors", built(lambda: GPEN(16, **SMALL)))
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    texts = json.loads(content[8 : 8 + length])["__metadata__"]
    assert texts["format"] == "pt"
    assert texts["modelspec.hash_sha256"] == f"0x{sha256(content[8 + length :]).hexdigest()}"
    expected = {"architecture": "GPEN", "title": "Faces", "license": "CC0", "resolution": "16x16"}
    assert {key: texts[f"modelspec.{key}"] for key in expected} == expected
    assert length % 8 == 0


def test_loaders_of_other_programs_see_only_tensors(tmp_path):
    net = built(lambda: GPEN(16, **SMALL))
    GPEN(16, **SMALL).load_state_dict(torch.load(written(tmp_path / "a.pth", net), weights_only=True))
    both = {"params": net.state_dict(), "params_ema": net.state_dict()}
    assert torch.load(written(tmp_path / "b.pth", net, both), weights_only=True).keys() == both.keys()


def test_network_is_used_as_the_file_states_whatever_its_name(tmp_path):
    net = unusual()
    network = open_network(written(tmp_path / "GPEN-BFR-512.safetensors", net), device="cpu")
    assert (network.task, network.template, network.alpha) == ("seg2face", "dlib", 0.8)
    image = np.random.default_rng(0).random((16, 16, 3), dtype=np.float32)
    with torch.no_grad():
        wanted = net.eval()(torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None])[0].clamp(0, 1)
    difference = network([image])[0] - wanted.permute(1, 2, 0).numpy()[..., ::-1]
    assert np.abs(difference).max() < 1e-5
    assert load(tmp_path / "GPEN-BFR-512.safetensors").value_range == (0, 1)


def test_option_wins_over_the_file_and_a_warning_says_so(tmp_path):
    path = written(tmp_path / "a.pth", unusual(), conventions=metadata.stated(Conventions(template="dlib")))
    with pytest.warns(UserWarning, match=r"template: got ffhq, which is used; .*a\.pth states .* is dlib"):
        restorer = Restorer(path, template="ffhq", device="cpu")
    assert restorer.network.template == "dlib"
    assert not np.array_equal(restorer.template, Restorer(path, device="cpu").template)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"gpen.arguments": '{"lr_mlp": -1}'}, "gpen.arguments: lr_mlp: got -1; expected a number above 0"),
        ({"gpen.arguments": '{"lr_mlp": 1e999}'}, "gpen.arguments: lr_mlp: got inf"),
        ({"gpen.arguments": '{"resample_kernel": [1]}'}, "gpen.arguments: resample_kernel: got .1.; expected the taps"),
        ({"gpen.arguments": '{"stddev_group": "os"}'}, "gpen.arguments: stddev_group: got os"),
        ({"gpen.arguments": "[" * 5000}, "gpen.arguments: got .*; expected arguments of a network by name, as JSON"),
        ({"gpen.arguments": '{"out_size": 2048}'}, "states out_size 2048, but its tensors have 16"),
        (
            {"gpen.arguments": '{"prior": {"type": "os.system"}}', "gpen.architecture": "os"},
            "states os, but holds GPEN",
        ),
        ({"gpen.alpha": "nan"}, "gpen.alpha: got nan; expected a number from 0 to 1"),
        ({"gpen.value_range": "[1, 0]"}, "gpen.value_range: got .1, 0.; expected two numbers"),
        ({"gpen.task": "unlock"}, "gpen.task: got 'unlock'; expected one of restore"),
        ({"gpen.template": "../x"}, "gpen.template: got '../x'; expected one of ffhq"),
    ],
)
def test_untrusted_metadata_are_refused(texts, message, tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, dict(built(lambda: GPEN(16, **SMALL)).state_dict()))
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header, data = json.loads(path.read_bytes()[8 : 8 + length]), path.read_bytes()[8 + length :]
    text = json.dumps(header | {"__metadata__": texts}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    with pytest.raises(CheckpointError, match=f"a.safetensors: {message}"):
        open_network(path, device="cpu")


def test_unknown_argument_of_the_metadata_builds_nothing(tmp_path):
    net = built(lambda: GPEN(16, **SMALL))
    stated = Metadata(architecture="GPEN", arguments={"prior": {"type": "os.system"}, "checkpoint": "/etc/passwd"})
    checkpoint.write(tmp_path / "a.pth", dict(net.state_dict()), stated)
    assert type(load(tmp_path / "a.pth").decoder) is GPENPrior


def test_file_without_metadata_is_used_as_before(tmp_path, capsys):
    path = saved(tmp_path / "a.pth", built(lambda: GPEN(16, **SMALL)).state_dict())
    assert metadata.read(path) == Metadata()
    network = open_network(path, device="cpu")
    assert (network.task, network.template, network.alpha, network.value_range) == ("restore", "ffhq", 1, (-1, 1))
    assert main([str(path), "-o", str(tmp_path / "b.pth"), "--to", "ours"]) == 0
    assert "--template states another" in capsys.readouterr().out


def test_converted_file_states_what_its_input_states(tmp_path, capsys):
    net = unusual()
    both = {"params": GPEN(32, in_size=16, **SMALL).state_dict(), "params_ema": net.state_dict()}
    source = written(tmp_path / "net_g_latest.pth", net, both)
    for name, to in (("b.safetensors", "ours"), ("c.pth", "authors"), ("d.pth", "basicsr")):
        assert main([str(source), "-o", str(tmp_path / name), "--to", to]) == 0
        assert metadata.read(tmp_path / name) == metadata.read(source)
    assert torch.load(tmp_path / "c.pth")["generator.convs.0.conv.blur.kernel"].shape == (3, 3)
    capsys.readouterr()
    assert main(["--inspect", *(str(tmp_path / name) for name in ("b.safetensors", "c.pth", "d.pth"))]) == 0
    printed = capsys.readouterr().out
    for line in ("license: CC0", "data: drawn faces", "template: dlib", "task: seg2face", "alpha: 0.8", "lr_mlp: 0.1"):
        assert printed.count(line) >= 3
    assert printed.count(": as stated") == 3


def test_options_of_convert_are_stated(tmp_path, capsys):
    source, target = written(tmp_path / "a.pth", unusual()), tmp_path / "b.safetensors"
    words = ["--template", "arcface", "--alpha", "0.5", "--value-range", "-1", "1", "--task", "restore"]
    words += ["--license", "MIT", "--data", "photographs"]
    assert main([str(source), "-o", str(target), "--to", "ours", *words]) == 0
    stated = metadata.read(target)
    assert stated.conventions == metadata.stated(Conventions((-1, 1), "restore", "arcface", 0.5))
    assert (stated.license, stated.data) == ("MIT", "photographs")
    assert "template: arcface; the input states dlib" in capsys.readouterr().err
    prior = saved(tmp_path / "prior.pth", built(lambda: GPENPrior(16, **SMALL)).state_dict())
    assert main([str(prior), "-o", str(tmp_path / "c.pth"), "--to", "ours", "--template", "ffhq"]) == 1
    assert "--template: got it for a GPENPrior; expected a GPEN" in capsys.readouterr().err


def test_released_name_is_stated_by_a_converted_file(tmp_path, monkeypatch):
    net = built(lambda: GPEN(16, **SMALL))
    source = saved(tmp_path / "GPEN-BFR-256.pth", net.state_dict())
    assert main([str(source), "-o", str(tmp_path / "mine.pth"), "--to", "ours"]) == 0
    stated = metadata.read(tmp_path / "mine.pth")
    assert (stated.conventions["template"], stated.license[:5]) == ("arcface", "none:")


def test_changed_weights_are_seen(tmp_path, capsys):
    net = built(lambda: GPEN(16, **SMALL))
    stated = describe(net)
    with torch.no_grad():
        net.encoder.stem.bias.add_(1)
    checkpoint.write(tmp_path / "a.pth", dict(net.state_dict()), stated)
    assert main(["--inspect", str(tmp_path / "a.pth")]) == 1
    assert ": DIFFERS" in capsys.readouterr().out


def test_metadata_of_other_weights_are_left_out(tmp_path, capsys):
    path = tmp_path / "a.pth"
    checkpoint.write(path, dict(built(lambda: GPEN(16, **SMALL)).state_dict()), describe(unusual(), license="CC0"))
    assert main([str(path), "-o", str(tmp_path / "b.pth"), "--to", "ours"]) == 0
    assert "states out_size 32, but its tensors have 16" in capsys.readouterr().err
    assert metadata.read(tmp_path / "b.pth").license is None


def test_grown_file_states_the_larger_network(tmp_path):
    source = written(tmp_path / "a.pth", unusual())
    assert grow([str(source), "-o", str(tmp_path / "b.pth"), "--out-size", "64"]) == 0
    stated = metadata.read(tmp_path / "b.pth")
    assert (stated.arguments["out_size"], stated.arguments["lr_mlp"]) == (64, 0.1)
    assert stated.arguments["resample_kernel"] == [1, 2, 1]
    assert (stated.conventions, stated.license) == (CONVENTIONS, "CC0")


def test_digest_depends_on_values_and_neither_on_order_nor_on_layout(tmp_path):
    net = built(lambda: GPENDiscriminator(16, **OF_D))
    state = dict(net.state_dict())
    assert metadata.digest(state) == metadata.digest(dict(reversed(state.items())))
    assert metadata.digest(state) != metadata.digest({name: tensor.half() for name, tensor in state.items()})


def test_training_that_starts_from_other_arguments_is_warned(tmp_path, caplog):
    path = written(tmp_path / "a.pth", unusual())
    with caplog.at_level("WARNING", logger="basicsr"):
        checkpoint.load_into(GPEN(32, in_size=16, **SMALL, resample_kernel=(1, 2, 1)), path)
    assert "a.pth: states lr_mlp 0.1. The options' 0.01 is used" in caplog.text
    assert "resample_kernel" not in caplog.text
