"""Published priors: a file in each layout gives the images of its own code base."""

import pytest
import torch
from helpers import published_priors as published
from helpers.small_networks import saved

from gpen_plugin.archs.key_maps import detect_layout
from gpen_plugin.checkpoints.checkpoint import build, infer_spec, load_into
from gpen_plugin.errors import CheckpointError


def z(batch=2):
    return torch.randn(batch, published.CODE)


def maps(size):
    return [torch.randn(1, 1, resolution, resolution) for resolution in published.sizes_of(size)]


def loaded(tensors, tmp_path, entry="generator_smooth"):
    """The network of a file, as the file's tensors determine it."""
    net = build(infer_spec(tensors))
    load_into(net, saved(tmp_path / "theirs.pth", {entry: tensors}))
    return net.eval()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def assert_same_images(ours, theirs, tolerance=1e-4):
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * theirs.std().item())


@pytest.mark.parametrize("size", [16, 64])
def test_pggan_of_genforce(size, tmp_path):
    tensors, code = published.pggan_genforce(size), z()
    assert_same_images(loaded(tensors, tmp_path)(code), published.run_pggan_genforce(tensors, code))


@pytest.mark.parametrize("fused", [False, True])
def test_pggan_of_mganprior(fused, tmp_path):
    tensors, code = published.pggan_genforce(32), z()
    net = loaded(published.pggan_mganprior(tensors, fused), tmp_path)
    assert_same_images(net(code), published.run_pggan_genforce(tensors, code))


@pytest.mark.parametrize("module", ["module.", ""])
def test_pggan_of_gan_zoo(module, tmp_path):
    torch.manual_seed(1)
    tensors, code = published.pggan_gan_zoo(64), z()
    named = {name.replace("module.", module): tensor for name, tensor in tensors.items()}
    assert_same_images(loaded(named, tmp_path, "avgG")(code), published.run_pggan_gan_zoo(tensors, code))


@pytest.mark.parametrize("size", [16, 128])  # the latter has a fused layer
def test_stylegan1_of_genforce(size, tmp_path):
    tensors, code, noise = published.stylegan1_genforce(size), z(), maps(size)
    expected = published.run_stylegan1_genforce(tensors, code, noise)
    assert_same_images(loaded(tensors, tmp_path)(code, noise), expected)


def test_stylegan1_of_pulse(tmp_path):
    tensors, code, noise = published.stylegan1_genforce(128), z(), maps(128)
    synthesis, mapping = published.stylegan1_pulse(tensors)
    expected = published.run_stylegan1_genforce(tensors, code, noise)
    assert_same_images(loaded({**synthesis, **mapping}, tmp_path)(code, noise), expected)
    with pytest.raises(CheckpointError, match=r"mapping network is in a second file, mapping\.pt"):
        infer_spec(synthesis)


@pytest.mark.parametrize(("size", "trained"), [(16, 16), (128, 128), (128, 32)])
def test_stylegan1_of_rosinality(size, trained, tmp_path):
    """Its instance norm has another epsilon: 1e-5 of variances near 1."""
    tensors, code, noise = published.stylegan1_rosinality(size, trained), z(), maps(trained)
    net = loaded(tensors, tmp_path, "g_running")
    assert net.out_size == trained
    expected = published.run_stylegan1_rosinality(tensors, code, noise, trained)
    assert_same_images(net(code, noise), expected, tolerance=1e-3)


def test_unknown_tensors_of_a_layout_are_reported(tmp_path):
    tensors = published.pggan_genforce(16) | {"label.weight": torch.zeros(2)}
    net = build(infer_spec(published.pggan_genforce(16)))
    with pytest.raises(CheckpointError, match=r"label.weight is not of this network"):
        load_into(net, saved(tmp_path / "x.pth", tensors))


def test_incomplete_file_is_refused():
    tensors = published.stylegan1_genforce(16)
    del tensors["synthesis.layer3.style.bias"]
    with pytest.raises(
        CheckpointError, match=r"a StyleGAN1Prior in the layout of genforce with tensors missing.*layer3.style"
    ):
        infer_spec(tensors)


def test_network_amid_its_growing_is_refused():
    tensors = published.pggan_genforce(16) | {"lod": torch.tensor(1.5)}
    with pytest.raises(CheckpointError, match=r"its lod is 1.5: the network had not grown"):
        infer_spec(tensors)


def test_stylegan3_is_refused_with_the_reason():
    tensors = {"synthesis.input.freqs": torch.zeros(3, 2), "synthesis.L0_36_512.weight": torch.zeros(3)}
    with pytest.raises(
        CheckpointError, match="is a StyleGAN3, which has neither blocks per resolution nor noise inputs"
    ):
        infer_spec(tensors)


def test_layouts_are_told_apart():
    assert detect_layout(published.pggan_genforce(16)) == ("PGGANPrior", "genforce")
    assert detect_layout(published.pggan_gan_zoo(16)) == ("PGGANPrior", "gan_zoo")
    assert detect_layout(published.stylegan1_genforce(16)) == ("StyleGAN1Prior", "genforce")
    assert detect_layout(published.stylegan1_pulse(published.stylegan1_genforce(16))[0]) == ("StyleGAN1Prior", "pulse")
    assert detect_layout(published.stylegan1_rosinality(16, 16)) == ("StyleGAN1Prior", "rosinality")


@pytest.mark.parametrize("layout", ["nvlabs", "genforce"])
@pytest.mark.parametrize("size", [16, 64])
def test_stylegan2(layout, size, tmp_path):
    tensors, code, noise = published.stylegan2_nvlabs(size), z(), maps(size)
    expected = published.run_stylegan2_nvlabs(tensors, code, noise)
    given = tensors if layout == "nvlabs" else published.stylegan2_genforce(tensors)
    assert detect_layout(given) == ("GPENPrior", layout)
    net = loaded(given, tmp_path, "G_ema")
    wide = [
        map_.expand(-1, block.noise_channels, -1, -1) for map_, block in zip(noise, net.blocks.values(), strict=True)
    ]
    assert_same_images(net(code, wide), expected)


def test_discriminator_of_nvlabs(tmp_path):
    tensors = published.discriminator_nvlabs(64)
    net = loaded(tensors, tmp_path, "D")
    assert (net.out_size, type(net).__name__) == (64, "GPENDiscriminator")
    held = net.state_dict()
    pairs = {
        "b64.fromrgb.bias": "stem.bias",
        "b64.conv1.weight": "blocks.64.conv2.weight",
        "b8.conv0.bias": "blocks.8.conv1.bias",
        "b16.skip.weight": "blocks.16.skip.weight",
        "b4.conv.weight": "final_conv.weight",
        "b4.fc.weight": "hidden.weight",
        "b4.out.bias": "logit.bias",
    }
    assert all(torch.equal(tensors[theirs], held[ours]) for theirs, ours in pairs.items())


def test_class_conditional_stylegan2_is_refused(tmp_path):
    tensors = published.stylegan2_nvlabs(16)
    net = build(infer_spec(tensors))
    with pytest.raises(CheckpointError, match=r"mapping\.embed\.weight is not of this network"):
        load_into(net, saved(tmp_path / "x.pth", tensors | {"mapping.embed.weight": torch.zeros(2)}))


def test_stylegan2_with_another_filter_is_refused():
    tensors = published.stylegan2_nvlabs(16)
    tensors["synthesis.b8.resample_filter"] = torch.ones(4, 4) / 16
    with pytest.raises(CheckpointError, match=r"synthesis\.b8\.resample_filter is no filter of 1 3 3 1"):
        infer_spec(tensors)
