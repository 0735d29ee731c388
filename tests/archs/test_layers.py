import math

import pytest
import torch

from gpen_plugin.archs.layers import (
    DownConv2d,
    EqualConv2d,
    EqualLinear,
    StyledConv,
    channels_of,
    check_size,
    normalize_2nd_moment,
    resolutions,
)
from gpen_plugin.errors import OptionError


@pytest.mark.parametrize(
    ("channel_multiplier", "narrow", "expected"),
    [
        (1, 0.5, {4: 256, 32: 256, 64: 128, 128: 64, 256: 32}),
        (2, 1, {4: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32, 2048: 16}),
        (1, 0.25, {32: 128, 64: 64}),
        (1, 0.3, {32: 153, 64: 76, 256: 19}),
    ],
)
def test_channels(channel_multiplier, narrow, expected):
    assert {size: channels_of(size, channel_multiplier, narrow) for size in expected} == expected


def test_no_channel_left():
    with pytest.raises(OptionError, match=r"narrow: got 0\.01.*at least 0\.0625"):
        channels_of(2048, 2, 0.01)


def test_resolutions():
    assert resolutions(4) == [4]
    assert resolutions(64) == [4, 8, 16, 32, 64]


@pytest.mark.parametrize("size", [16, 64, 2048])
def test_valid_sizes(size):
    check_size("out_size", size)


@pytest.mark.parametrize(("size", "nearest"), [(500, 512), (8, 16), (4096, 2048), (0, 16), (-64, 16)])
def test_invalid_size_names_the_nearest_valid_one(size, nearest):
    message = rf"^out_size: got {size}; expected a power of two from 16 to 2048\. Use {nearest}\.$"
    with pytest.raises(OptionError, match=message):
        check_size("out_size", size)


def test_normalize_gives_unit_mean_square():
    out = normalize_2nd_moment(torch.randn(3, 64) * 7)
    torch.testing.assert_close(out.square().mean(dim=1), torch.ones(3))


def test_linear_is_equalized():
    layer = EqualLinear(9, 2, bias_init=0.5, lr_mul=0.1)
    x = torch.randn(4, 9)
    expected = x @ layer.weight.t() * 0.1 / 3 + 0.05
    torch.testing.assert_close(layer(x), expected)
    assert layer.weight.std() > 3, "drawn wider by 1 / lr_mul"


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("activate", [True, False])
def test_downsampling_is_blur_then_every_second_pixel(size, activate):
    torch.manual_seed(0)
    down = DownConv2d(2, 3, size, (1, 3, 3, 1), activate)
    same = EqualConv2d(2, 3, size, activate)
    same.load_state_dict(down.state_dict())
    x = torch.randn(1, 2, 16, 16)
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    blurred = torch.nn.functional.conv2d(x[0, :, None], torch.outer(line, line)[None, None], padding=2)
    blurred = blurred.reshape(1, 2, 17, 17)  # an even filter: each pixel lies between two of `x`
    torch.testing.assert_close(down(x), same(blurred)[:, :, 1:-1:2, 1:-1:2])


@pytest.mark.parametrize(("noise_mode", "width"), [("concat", 8), ("add", 4), ("none", 4)])
def test_noise_input(noise_mode, width):
    torch.manual_seed(0)
    layer = StyledConv(3, 4, 5, noise_mode)
    x, latent, noise = torch.randn(2, 3, 6, 6), torch.randn(2, 5), torch.randn(1, 4, 6, 6)
    silent = layer(x, latent, None)
    assert silent.shape == (2, width, 6, 6)
    assert torch.equal(silent, layer(x, latent, noise)), "weights start at zero"
    if noise_mode == "none":
        assert layer.noise_weight is None
        return
    layer.noise_weight.data.fill_(0.5)
    loud = layer(x, latent, noise)
    assert torch.equal(layer(x, latent, torch.zeros_like(noise)), silent)
    if noise_mode == "concat":
        assert torch.equal(loud[:, :4], silent[:, :4])
        half = 0.5 * noise.expand(2, -1, -1, -1)
        torch.testing.assert_close(loud[:, 4:], torch.where(half > 0, half, 0.2 * half) * math.sqrt(2))
    else:
        assert not torch.equal(loud, silent)


def test_a_linear_layer_stays_in_single_precision_under_autocasting():
    layer, x = EqualLinear(8, 4, activate=True), torch.randn(3, 8)
    outside = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), outside)
        assert layer(x.bfloat16()).dtype == torch.float32
