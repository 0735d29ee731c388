"""A GPEN's decoder in fewer passes over its features, for runtimes that run one operator after the other.

The numbers are the same. Features and noise stay apart instead of being concatenated, each with its own part of the
next kernel, so that a runtime adds the second convolution's result to the first's in place. The gain of the leaky ReLU,
which commutes with positive factors, moves into the demodulation, the noise weight and the bias. Demodulation comes
before the blur, with which a factor per channel commutes, so that blur, bias and leaky ReLU can be one operator. An
image is one product of matrices with the scaled kernel, which is small, instead of scaled features.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.layers import StyledConv, ToRGB, upsample2x
from gpen_plugin.ops import upfirdn2d
from gpen_plugin.ops.modulated_conv import blur_padding, demodulation, kernel_power

_SLOPE, _GAIN = 0.2, math.sqrt(2)

Parts = tuple[torch.Tensor, ...]  # features and noise, each (N, C, H, W), that stand for their concatenation


def fuse_decoder(net: GPEN) -> GPEN:
    """Copy a network, for evaluation alone, and put the layers of this module into its decoder.

    Args:
        net: in float32, or as `half_precision.to_half_precision` made it; it is left as it is.
    Returns:
        A network that is called as `net` is, and gives what `net` gives.
    """
    net = copy.deepcopy(net)
    for block in net.decoder.blocks.values():
        block.conv0 = None if block.conv0 is None else _StyledConv(block.conv0)
        block.conv1, block.to_rgb = _StyledConv(block.conv1), _ToRGB(block.to_rgb)
    return net


class _StyledConv(nn.Module):
    """`StyledConv`, of and to `Parts`."""

    def __init__(self, layer: StyledConv):
        super().__init__()
        self.layer, self.out_channels = layer, layer.out_channels

    def forward(self, x: torch.Tensor | Parts, latent: torch.Tensor, noise: torch.Tensor | None) -> Parts:
        """Features (N, I, H, W), the constant's as one tensor; otherwise see `StyledConv`."""
        layer, parts = self.layer, x if isinstance(x, tuple) else (x,)
        style = layer.modulation(latent) * layer.scale  # (N, I)
        gain = demodulation(kernel_power(layer.weight), style) * _GAIN  # (N, O)
        x = self._convolve(parts, style.to(layer.weight.dtype)[:, :, None, None])
        x = x * gain.to(x.dtype)[:, :, None, None]
        if layer.up:
            x = upfirdn2d(x, layer.kernel, pad=blur_padding(layer.weight, layer.kernel))
        return self._activate(x, noise)

    def _convolve(self, parts, style):
        weight = self.layer.weight
        if self.layer.up:  # transposed convolutions are not added in place, and read a quarter of the pixels
            return F.conv_transpose2d(torch.cat(parts, dim=1) * style, weight.transpose(0, 1), stride=2)
        widths = [part.shape[1] for part in parts]
        slices = zip(parts, style.split(widths, dim=1), weight.split(widths, dim=1), strict=True)
        return sum(F.conv2d(part * scale, kernel, padding=kernel.shape[2] // 2) for part, scale, kernel in slices)

    def _activate(self, x, noise):
        layer, bias = self.layer, (self.layer.bias * _GAIN).to(x.dtype)[:, None, None]  # (O', 1, 1)
        if layer.noise_mode == "none":
            return (F.leaky_relu(x + bias, _SLOPE),)
        noise = x.new_zeros(1, 1, 1, 1) if noise is None else noise.to(x.dtype)
        weighted = noise * (layer.noise_weight * _GAIN).to(x.dtype)
        if layer.noise_mode == "add":
            return (F.leaky_relu(x + bias + weighted, _SLOPE),)
        of_features, of_noise = bias.chunk(2)
        drawn = F.leaky_relu(weighted + of_noise, _SLOPE)
        return F.leaky_relu(x + of_features, _SLOPE), drawn.expand_as(x)


class _ToRGB(nn.Module):
    """`ToRGB`, of `Parts`."""

    def __init__(self, layer: ToRGB):
        super().__init__()
        self.layer = layer

    def forward(self, parts: Parts, latent: torch.Tensor, earlier: torch.Tensor | None) -> torch.Tensor:
        """See `ToRGB`."""
        layer, widths = self.layer, [part.shape[1] for part in parts]
        style = (layer.modulation(latent) * layer.scale).to(layer.weight.dtype)  # (N, I)
        kernels = (layer.weight.flatten(1) * style[:, None]).split(widths, dim=2)  # (N, 3, C) each
        image = sum(kernel @ part.flatten(2) for kernel, part in zip(kernels, parts, strict=True))  # (N, 3, H * W)
        image = image.unflatten(2, parts[0].shape[2:]) + layer.bias[:, None, None]  # (N, 3, H, W)
        return image if earlier is None else image + upsample2x(earlier, layer.kernel)
