"""Pix2PixHD: sizes, names and formulas of the authors' networks."""

import re

import pytest
import torch
import torch.nn.functional as F
from helpers.small_networks import built, same, saved

from gpen_plugin.baselines.pix2pixhd_arch import Pix2PixHD, Pix2PixHDDiscriminator, halve
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.errors import CheckpointError, OptionError, ShapeError

SMALL = {"num_feat": 4, "num_down": 2, "num_block": 2}


def count(build) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


@pytest.mark.parametrize(
    ("build", "millions"),
    [
        (Pix2PixHD, 182.4),
        (lambda: Pix2PixHD(num_feat=32), 45.6),
        (lambda: Pix2PixHD(enhancer=True), 182.7),
        (lambda: Pix2PixHDDiscriminator(num_d=1), 2.77),
    ],
)
def test_parameters_are_as_many_as_the_authors(build, millions):
    assert count(build) / 1e6 == pytest.approx(millions, abs=0.05)


def published_generator() -> dict[str, tuple[int, ...]]:
    """The key list of a checkpoint of the global generator with SMALL's sizes."""
    shapes = {"model.1": (4, 3, 7, 7), "model.4": (8, 4, 3, 3), "model.7": (16, 8, 3, 3)}
    for block in (10, 11):
        shapes |= {f"model.{block}.conv_block.{index}": (16, 16, 3, 3) for index in (1, 5)}
    shapes |= {"model.12": (16, 8, 3, 3), "model.15": (8, 4, 3, 3), "model.19": (3, 4, 7, 7)}
    transposed = ("model.12", "model.15")
    biases = {f"{name}.bias": (shape[1 if name in transposed else 0],) for name, shape in shapes.items()}
    return {f"{name}.weight": shape for name, shape in shapes.items()} | biases


def test_published_names_load_and_others_are_refused(tmp_path):
    content = {name: torch.randn(shape) for name, shape in published_generator().items()}
    net = Pix2PixHD(**SMALL)
    assert checkpoint.load_into(net, saved(tmp_path / "latest_net_G.pth", content)) == []
    assert same(net.state_dict(), content)
    other = saved(tmp_path / "d.pth", Pix2PixHDDiscriminator(num_feat=4).state_dict())
    with pytest.raises(CheckpointError, match="holds Pix2PixHD's discriminator; expected all tensors of Pix2PixHD"):
        checkpoint.load_into(net, other)
    content["model.19.weight"] = torch.zeros(36, 4, 7, 7)
    with pytest.raises(CheckpointError, match=re.escape("model.19.weight is (36, 4, 7, 7), not (3, 4, 7, 7)")):
        checkpoint.load_into(net, saved(tmp_path / "labels.pth", content))


def test_generator_starts_an_enhancer(tmp_path):
    """The enhancer takes the global generator's features; only its last convolution has no use."""
    trained = built(lambda: Pix2PixHD(**SMALL))
    path = saved(tmp_path / "g.pth", {"params": trained.state_dict()})
    net = Pix2PixHD(**SMALL, enhancer=True)
    left = checkpoint.load_into(net, path, strict=False)
    assert left
    assert all(name.startswith("model1_") for name in left)
    image = torch.rand(1, 3, 32, 32)
    # without the last padding, convolution and tanh
    assert torch.equal(net.model(image), trained.model[:-3](image))


def test_generator_follows_its_table():
    """Layer by layer, with PyTorch's functions."""
    net = built(lambda: Pix2PixHD(num_feat=4, num_down=1, num_block=1)).double()
    state = net.state_dict()
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64) * 2 - 1

    def conv(x, name, pad=0, **how):
        padded = F.pad(x, [pad] * 4, mode="reflect") if pad else x
        return F.conv2d(padded, state[f"{name}.weight"], state[f"{name}.bias"], **how)

    def norm(x):
        mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt()

    x = norm(conv(image, "model.1", 3)).relu()
    x = norm(conv(x, "model.4", stride=2, padding=1)).relu()
    y = norm(conv(x, "model.7.conv_block.1", 1)).relu()
    x = x + norm(conv(y, "model.7.conv_block.5", 1))
    up = state["model.8.weight"], state["model.8.bias"]
    x = norm(F.conv_transpose2d(x, *up, stride=2, padding=1, output_padding=1)).relu()
    torch.testing.assert_close(net(image), conv(x, "model.12", 3).tanh())


def test_discriminator_scales_see_the_image_and_its_half():
    net = built(lambda: Pix2PixHDDiscriminator(num_feat=4))
    pair = torch.rand(1, 6, 32, 32)
    logits, features = net(pair, return_features=True)
    halved = pair
    for scale, expected in zip((1, 0), logits, strict=True):
        y = halved
        for layer in range(5):
            y = getattr(net, f"scale{scale}_layer{layer}")(y)
        assert torch.equal(y, expected)
        halved = halve(pair)
    assert [each.shape[1] for each in features] == [4, 8, 16, 32] * 2


def test_halving_does_not_count_what_is_outside():
    assert torch.equal(halve(torch.ones(1, 1, 7, 7)), torch.ones(1, 1, 4, 4))


def test_value_range_is_only_a_change_of_scale():
    nets = [built(lambda bounds=bounds: Pix2PixHD(**SMALL, value_range=bounds)) for bounds in ((-1, 1), (0, 1))]
    image = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(nets[1](image), (nets[0](image * 2 - 1) + 1) / 2)


def test_wrong_sizes_and_channels_are_refused():
    with pytest.raises(ShapeError, match=r"lq: \(18, 16\) px; expected sides that are multiples of 4"):
        Pix2PixHD(**SMALL)(torch.zeros(1, 3, 18, 16))
    with pytest.raises(OptionError, match="num_feat: got 5; expected an even number"):
        Pix2PixHD(num_feat=5, enhancer=True)
    with pytest.raises(OptionError, match="num_d: got 0"):
        Pix2PixHDDiscriminator(num_d=0)
