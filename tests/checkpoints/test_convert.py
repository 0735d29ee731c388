import argparse
import os

import pytest
import torch
from basicsr.archs.stylegan2_arch import StyleGAN2Discriminator, StyleGAN2Generator
from helpers.small_networks import NETWORKS, OF_D, SMALL, built, discriminator_weights, same, saved, weights

from gpen_plugin.archs.key_maps import to_authors
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.checkpoints.convert import to_layout
from gpen_plugin.cli.convert import main

each_network = pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)


def convert(source, target, to, *more):
    return main([str(source), "-o", str(target), "--to", to, *map(str, more)])


@each_network
@pytest.mark.parametrize("over", ["basicsr", "authors", "modelscope", "stylegan2"])
def test_there_and_back_through_files(tmp_path, build, over, capsys):
    ours = weights(build)
    source = saved(tmp_path / "ours.pth", ours)
    if over == "stylegan2" and build not in (NETWORKS["GPENPrior add"], NETWORKS["GPENDiscriminator"]):
        assert convert(source, tmp_path / "there.pth", over) == 1
        assert "expected for StyleGAN2's names a GPENPrior with noise_mode add" in capsys.readouterr().err
        assert os.listdir(tmp_path) == ["ours.pth"]
        return
    assert convert(source, tmp_path / "there.pth", over) == 0
    assert convert(tmp_path / "there.pth", tmp_path / "back.pth", "ours") == 0
    assert same(torch.load(tmp_path / "back.pth"), ours)
    assert same(checkpoint.read(tmp_path / "there.pth"), ours) == (over == "basicsr")


def test_a_training_file_there_and_back(tmp_path):
    raw, averaged, discriminator = (
        weights(NETWORKS["GPEN concat"], 1),
        weights(NETWORKS["GPEN concat"], 2),
        discriminator_weights(32),
    )
    saved(tmp_path / "net_g.pth", {"params": raw, "params_ema": averaged})
    saved(tmp_path / "net_d.pth", {"params": discriminator})
    theirs = tmp_path / "train.pth"
    assert convert(tmp_path / "net_g.pth", theirs, "authors-training", "--discriminator", tmp_path / "net_d.pth") == 0
    content = torch.load(theirs)
    assert set(content) == {"g", "g_ema", "d"}
    assert same(content["g"], to_authors(raw))
    assert same(content["g_ema"], to_authors(averaged))
    assert same(content["d"], to_authors(discriminator))
    assert convert(theirs, tmp_path / "back_g.pth", "basicsr") == 0
    assert convert(theirs, tmp_path / "back_d.pth", "basicsr", "--key", "d") == 0
    back = torch.load(tmp_path / "back_g.pth")
    assert same(back["params"], raw)
    assert same(back["params_ema"], averaged)
    assert same(torch.load(tmp_path / "back_d.pth")["params"], discriminator)
    assert convert(theirs, tmp_path / "again.pth", "authors-training") == 0
    assert all(same(state, content[name]) for name, state in torch.load(tmp_path / "again.pth").items())


def test_flat_file_holds_the_averaged_weights(tmp_path, capsys):
    raw, averaged = weights(NETWORKS["GPEN concat"], 1), weights(NETWORKS["GPEN concat"], 2)
    source = saved(tmp_path / "net.pth", {"params": raw, "params_ema": averaged, "iter": 3})
    assert convert(source, tmp_path / "a.pth", "ours") == 0
    assert same(torch.load(tmp_path / "a.pth"), averaged)
    shown = capsys.readouterr().out
    assert f"flat: GPEN 32 px, narrow 0.04, noise concat, 2 mapping layers of 8, from {source} [params_ema]" in shown
    assert "left out: iter, params (GPEN 32 px" in shown
    assert convert(source, tmp_path / "b.pth", "ours", "--key", "params") == 0
    assert same(torch.load(tmp_path / "b.pth"), raw)


@pytest.mark.parametrize("key", ["params", "params_ema", None])
def test_missing_average_is_replaced_by_the_raw_weights(tmp_path, key):
    ours = weights(NETWORKS["GPEN without noise"])
    source = saved(tmp_path / "net.pth", ours if key is None else {key: ours})
    assert convert(source, tmp_path / "host.pth", "basicsr") == 0
    content = torch.load(tmp_path / "host.pth")
    assert list(content) == ["params", "params_ema"]
    assert same(content["params"], ours)
    assert same(content["params_ema"], ours)
    assert os.path.getsize(tmp_path / "host.pth") < 1.5 * os.path.getsize(source), "equal weights are stored once"


def test_a_file_for_the_authors_restores_the_same_image(tmp_path):
    net = built(NETWORKS["GPEN concat"])
    saved(tmp_path / "net_g.pth", {"params": weights(NETWORKS["GPEN concat"], 5), "params_ema": net.state_dict()})
    assert convert(tmp_path / "net_g.pth", tmp_path / "authors.pth", "authors") == 0
    theirs = torch.load(tmp_path / "authors.pth")
    assert theirs["ecd1.0.0.kernel"].shape == (4, 4)
    fresh = built(NETWORKS["GPEN concat"], 7)
    fresh.load_state_dict(theirs, strict=True)
    lq = torch.rand(2, 3, 24, 24) * 2 - 1
    with torch.no_grad():
        assert torch.equal(fresh(lq), net(lq))


def test_a_public_stylegan2_becomes_a_prior_and_the_hosts_files(tmp_path, capsys):
    """Rosinality's training file; what comes out loads strictly into the host's own networks."""
    raw, averaged = weights(NETWORKS["GPENPrior add"], 1), weights(NETWORKS["GPENPrior add"], 2)
    discriminator = discriminator_weights(64)
    noise = {f"noises.noise_{i}": torch.randn(1, 1, 4, 4) for i in range(9)}
    content = {"g": to_authors(raw) | noise, "g_ema": to_authors(averaged) | noise, "d": to_authors(discriminator)}
    content |= {"g_optim": {"state": {}}, "args": argparse.Namespace(size=64), "ada_aug_p": 0.0}
    source = saved(tmp_path / "550000.pt", content)
    assert convert(source, tmp_path / "host.pth", "stylegan2") == 0
    assert "left out: g_optim, args, ada_aug_p, d (GPENDiscriminator 64 px" in capsys.readouterr().out
    assert convert(source, tmp_path / "host_d.pth", "stylegan2", "--key", "d") == 0
    made = torch.load(tmp_path / "host.pth")
    for name, expected in {"params": raw, "params_ema": averaged}.items():
        StyleGAN2Generator(64, **SMALL).load_state_dict(made[name], strict=True)
        assert same(to_layout(made[name], "ours"), expected)
    StyleGAN2Discriminator(64, **OF_D).load_state_dict(torch.load(tmp_path / "host_d.pth")["params"], strict=True)
    assert convert(tmp_path / "host.pth", tmp_path / "prior.pth", "ours") == 0
    assert same(torch.load(tmp_path / "prior.pth"), averaged)


@each_network
def test_safetensors_both_ways(tmp_path, build):
    pytest.importorskip("safetensors")
    ours = weights(build)
    assert convert(saved(tmp_path / "a.pt", ours), tmp_path / "b.safetensors", "authors") == 0
    assert convert(tmp_path / "b.safetensors", tmp_path / "c.pt", "ours") == 0
    assert same(torch.load(tmp_path / "c.pt"), ours)


def test_nested_files_do_not_fit_into_safetensors(tmp_path, capsys):
    pytest.importorskip("safetensors")
    source = saved(tmp_path / "a.pth", weights(NETWORKS["GPENDiscriminator"]))
    assert convert(source, tmp_path / "b.safetensors", "basicsr") == 1
    assert "Name a .pth file, or choose a flat layout." in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["a.pth"]


def test_prefixes_are_removed_and_half_precision_stays(tmp_path):
    ours = {key: tensor.half() for key, tensor in weights(NETWORKS["GPEN concat"]).items()}
    wrapped = {f"module._orig_mod.{key}": tensor for key, tensor in to_authors(ours).items()}
    assert convert(saved(tmp_path / "a.pth", wrapped), tmp_path / "b.pth", "ours") == 0
    made = torch.load(tmp_path / "b.pth")
    assert same(made, ours)
    assert {tensor.dtype for tensor in made.values()} == {torch.float16}


def test_part_of_a_tensor_is_written_without_the_rest(tmp_path):
    ours = weights(NETWORKS["GPENDiscriminator"])
    everything = torch.cat([tensor.flatten() for tensor in ours.values()])
    parts = everything.split([tensor.numel() for tensor in ours.values()])
    views = {key: part.view_as(ours[key]) for part, key in zip(parts, ours, strict=True)}
    assert convert(saved(tmp_path / "a.pth", views), tmp_path / "b.pth", "ours") == 0
    made = torch.load(tmp_path / "b.pth")
    assert same(made, ours)
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in made.values())


def test_other_filters_are_stored_and_printed(tmp_path, capsys):
    ours = weights(NETWORKS["GPENPrior concat"])
    source = saved(tmp_path / "a.pth", to_authors(ours, (1, 2, 2, 1)))
    assert convert(source, tmp_path / "b.pth", "authors") == 0
    assert same(torch.load(tmp_path / "b.pth"), torch.load(source))
    assert "resample_kernel" not in capsys.readouterr().out
    assert convert(source, tmp_path / "c.pth", "ours") == 0
    assert "build it with resample_kernel: [1, 2, 2, 1]" in capsys.readouterr().out
    assert convert(tmp_path / "c.pth", tmp_path / "d.pth", "authors", "--resample-kernel", 2, 4, 4, 2) == 0
    assert same(torch.load(tmp_path / "d.pth"), torch.load(source))
    assert convert(source, tmp_path / "e.pth", "authors", "--resample-kernel", 1, 3, 3, 1) == 1
    assert "--resample-kernel: got 1 3 3 1; expected 1 2 2 1, as" in capsys.readouterr().err


def test_nothing_is_overwritten_unless_forced(tmp_path, capsys):
    ours = weights(NETWORKS["GPENDiscriminator"])
    source, other = saved(tmp_path / "a.pth", ours), saved(tmp_path / "b.pth", {"x": torch.ones(1)})
    before = other.read_bytes()
    assert convert(source, other, "authors") == 1
    assert f"--output: {other} is there already; expected a free name. Pass --force" in capsys.readouterr().err
    assert other.read_bytes() == before
    assert convert(source, other, "authors", "--force") == 0
    assert same(torch.load(other), to_authors(ours))


@pytest.mark.parametrize(("target", "more"), [("g.pth", []), ("d.pth", ["--force"]), ("link.pth", ["--force"])])
def test_an_input_is_never_overwritten(tmp_path, capsys, target, more):
    source = saved(tmp_path / "g.pth", {"params": weights(NETWORKS["GPEN concat"]), "iter": 3})
    discriminator = saved(tmp_path / "d.pth", discriminator_weights(32))
    (tmp_path / "link.pth").symlink_to(source)
    before = [file.read_bytes() for file in (source, discriminator)]
    target = tmp_path / target
    assert convert(source, target, "authors-training", "--discriminator", discriminator, *more) == 1
    assert f"--output: {target} is an input; expected another file." in (shown := capsys.readouterr().err)
    assert "--force" not in shown
    assert [file.read_bytes() for file in (source, discriminator)] == before


def test_folders_of_the_output_are_made(tmp_path, capsys):
    source = saved(tmp_path / "a.pth", discriminator_weights(16))
    assert convert(source, tmp_path / "not" / "there" / "b.pth", "authors") == 0
    assert same(torch.load(tmp_path / "not" / "there" / "b.pth"), to_authors(discriminator_weights(16)))
    assert convert(source, source / "c.pth", "authors") == 1
    shown = capsys.readouterr().err
    assert f"{source}: cannot be created" in shown
    assert "resume" not in shown
    assert same(torch.load(source), discriminator_weights(16))


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        ({"a": torch.ones(1)}, ["ours"], "a.pth: holds a; expected weights of a GPEN"),
        ({"params": {"a": torch.ones(1)}, "iter": 1}, ["ours"], "a.pth: holds params, iter; expected weights of a"),
        (
            {"params": discriminator_weights(16)},
            ["ours", "--key", "d"],
            "no entry 'd'; expected an entry that the file has. Name",
        ),
        (discriminator_weights(16), ["ours", "--key", "params"], "The file is flat: name no entry"),
        (
            discriminator_weights(16),
            ["authors-training"],
            "holds no generator; expected a generator and a discriminator",
        ),
        (weights(NETWORKS["GPEN concat"]), ["authors-training"], "Name its file with --discriminator."),
        (
            {"g": weights(NETWORKS["GPEN concat"]), "d": discriminator_weights(16)},
            ["authors-training"],
            "takes 16 px, but",
        ),
        (
            {key: tensor for key, tensor in discriminator_weights(16).items() if key != "hidden.bias"},
            ["authors"],
            "with other tensors than its own (hidden.bias is missing); expected all tensors of one network",
        ),
        (discriminator_weights(16) | {"more": torch.ones(1)}, ["authors"], "(more is not of this network)"),
        (discriminator_weights(16), ["authors", "--resample-kernel", "0", "0"], "resample_kernel: got [0.0, 0.0]"),
    ],
)
def test_invalid_input_is_refused(tmp_path, capsys, content, more, message):
    assert main([str(saved(tmp_path / "a.pth", content)), "-o", str(tmp_path / "b.pth"), "--to", *more]) == 1
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["a.pth"]


def test_a_generator_is_no_discriminator(tmp_path, capsys):
    source = saved(tmp_path / "a.pth", weights(NETWORKS["GPEN concat"]))
    assert convert(source, tmp_path / "b.pth", "authors-training", "--discriminator", source) == 1
    assert f"--discriminator: {source}: holds GPEN 32 px" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.pth"], "give one input, --output and --to; or --inspect"),
        (["a.pth", "b.pth", "-o", "c.pth", "--to", "ours"], "give one input"),
        (["a.pth", "-o", "c.pth", "--to", "ours", "--discriminator", "d.pth"], "convert the discriminator on its own"),
        (["a.pth", "-o", "c.pth", "--to", "onnx"], "invalid choice"),
    ],
)
def test_invalid_command_lines(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_an_output_of_an_unknown_kind(tmp_path, capsys):
    source = saved(tmp_path / "a.pth", discriminator_weights(16))
    assert convert(source, tmp_path / "b.onnx", "ours") == 1
    assert "--output: got b.onnx; expected a name that ends in .pth, .pt or .safetensors." in capsys.readouterr().err


@each_network
def test_half_precision_is_half_the_size_and_rounds_each_value(tmp_path, build):
    net = built(build)
    source = saved(tmp_path / "net.pth", net.state_dict())
    for name, more in (("whole.safetensors", []), ("half.safetensors", ["--half"])):
        assert convert(source, tmp_path / name, "ours", *more) == 0
    sizes = [(tmp_path / name).stat().st_size for name in ("half.safetensors", "whole.safetensors")]
    assert sizes[0] < 0.62 * sizes[1]  # names and shapes take their room in both
    again = build()
    assert checkpoint.load_into(again, tmp_path / "half.safetensors") == []
    for one, other in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert other.dtype == torch.float32
        assert torch.equal(other, one.half().float())


def test_half_precision_refuses_large_values(tmp_path, capsys):
    tensors = weights(NETWORKS["GPENPrior concat"])
    tensors["constant"][0, 0, 0, 0] = 1e6
    source = saved(tmp_path / "net.pth", tensors)
    assert convert(source, tmp_path / "half.pth", "ours", "--half") == 1
    assert "constant has values beyond half precision" in capsys.readouterr().err
    assert not (tmp_path / "half.pth").exists()
