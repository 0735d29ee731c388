# GPEN (Yang et al., "GAN Prior Embedded Network for Blind Face Restoration in the Wild", CVPR 2021), for inference.
#
# Written by the authors of gpen_plugin from the paper, and from the names and shapes of the tensors in the released
# files, as which the attributes are called. Licensed under Apache-2.0, see LICENSE.
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spandrel.util import store_hyperparameters

NoiseMode = Literal["concat", "add"]


def fir_kernel(gain: float = 1.0) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps)
    return kernel * (gain / kernel.sum())


def filter2d(x: Tensor, kernel: Tensor, pad: tuple[int, int]) -> Tensor:
    """Filter each channel; `pad` zeros are put before and after the rows and columns."""
    weight = kernel.to(x.dtype).flip(0, 1).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(x, (*pad, *pad)), weight, groups=x.shape[1])


class Fir(nn.Module):
    def __init__(self, pad: tuple[int, int], gain: float = 1.0):
        super().__init__()
        self.pad = pad
        self.kernel: Tensor
        self.register_buffer("kernel", fir_kernel(gain))

    def forward(self, x: Tensor) -> Tensor:
        return filter2d(x, self.kernel, self.pad)


class Upsample(Fir):
    """Double an image: zeros between the pixels, then the filter."""

    def __init__(self):
        super().__init__(pad=(2, 1), gain=4.0)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        stuffed = x.new_zeros(n, c, 2 * h, 2 * w)
        stuffed[:, :, ::2, ::2] = x
        return super().forward(stuffed)


class Activate(nn.Module):
    """Bias, leaky ReLU, and a gain of the root of 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias[:, None, None], 0.2) * math.sqrt(2)


class Linear(nn.Module):
    """
    A layer whose weights are scaled at run time (equalized learning rate).

    It computes in float32: codes are small, and their squares overflow in float16.
    """

    def __init__(self, i: int, o: int, lr_mul: float = 1.0, activate: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i) / lr_mul)
        self.bias = nn.Parameter(torch.zeros(o))
        self.lr_mul = lr_mul
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        scale = self.lr_mul / math.sqrt(self.weight.shape[1])
        weight, bias = self.weight.float() * scale, self.bias.float() * self.lr_mul
        x = F.linear(x.float(), weight, bias)
        return F.leaky_relu(x, 0.2) * math.sqrt(2) if self.activate else x


class Conv(nn.Module):
    def __init__(self, i: int, o: int, size: int, stride: int = 1):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i, size, size))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        # where it halves the image, the filter before it has padded
        pad = self.weight.shape[2] // 2 if self.stride == 1 else 0
        weight = self.weight / math.sqrt(self.weight[0].numel())
        return F.conv2d(x, weight, stride=self.stride, padding=pad)


class PixelNorm(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by a style, and its kernels then normalized."""

    def __init__(
        self, i: int, o: int, size: int, style_dim: int, up: bool, demodulate: bool
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, o, i, size, size))
        self.modulation = Linear(style_dim, i)
        self.up = up
        self.demodulate = demodulate
        if up:
            self.blur = Fir(pad=(1, 1), gain=4.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        weight = self.weight[0]  # (O, I, k, k)
        style = self.modulation(w) / math.sqrt(weight[0].numel())  # (N, I)
        x = x * style.to(x.dtype)[:, :, None, None]
        if self.up:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        else:
            x = F.conv2d(x, weight, padding=weight.shape[2] // 2)
        if self.demodulate:
            power = weight.float().square().sum(dim=(2, 3))  # (O, I)
            gain = torch.rsqrt(style.square() @ power.t() + 1e-8)  # (N, O)
            x = x * gain.to(x.dtype)[:, :, None, None]
        return x


class Noise(nn.Module):
    """Where the encoder's features enter: behind the convolution's channels, or added to them."""

    def __init__(self, noise_mode: NoiseMode):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.noise_mode = noise_mode

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        noise = torch.zeros_like(x) if noise is None else self.weight * noise
        return (
            torch.cat([x, noise], dim=1) if self.noise_mode == "concat" else x + noise
        )


class StyledConv(nn.Module):
    def __init__(self, i: int, o: int, style_dim: int, noise_mode: NoiseMode, up: bool):
        super().__init__()
        self.conv = ModulatedConv(i, o, 3, style_dim, up=up, demodulate=True)
        self.noise = Noise(noise_mode)
        self.activate = Activate(2 * o if noise_mode == "concat" else o)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        return self.activate(self.noise(self.conv(x, w), noise))


class ToRGB(nn.Module):
    def __init__(self, i: int, style_dim: int, up: bool):
        super().__init__()
        if up:
            self.upsample = Upsample()
        self.conv = ModulatedConv(i, 3, 1, style_dim, up=False, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, w: Tensor, image: Tensor | None) -> Tensor:
        x = self.conv(x, w) + self.bias
        return x if image is None else x + self.upsample(image)


class Constant(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))


class Generator(nn.Module):
    """StyleGAN2's generator; the noise of each resolution is a feature map."""

    def __init__(
        self,
        channels: Sequence[int],
        style_dim: int,
        num_mlp: int,
        noise_mode: NoiseMode,
    ):
        super().__init__()
        layers = [
            Linear(style_dim, style_dim, lr_mul=0.01, activate=True)
            for _ in range(num_mlp)
        ]
        self.style = nn.Sequential(PixelNorm(), *layers)
        self.input = Constant(channels[0])
        times = 2 if noise_mode == "concat" else 1
        c = channels[0]
        self.conv1 = StyledConv(c, c, style_dim, noise_mode, up=False)
        self.to_rgb1 = ToRGB(times * c, style_dim, up=False)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for o in channels[1:]:
            self.convs.append(StyledConv(times * c, o, style_dim, noise_mode, up=True))
            self.convs.append(StyledConv(times * o, o, style_dim, noise_mode, up=False))
            self.to_rgbs.append(ToRGB(times * o, style_dim, up=True))
            c = o

    def forward(self, z: Tensor, features: Sequence[Tensor | None]) -> Tensor:
        """z (N, F), and one map per resolution, coarse to fine."""
        w = self.style(z)
        x = self.conv1(self.input.input.expand(len(w), -1, -1, -1), w, features[0])
        image = self.to_rgb1(x, w, None)
        for i, to_rgb in enumerate(self.to_rgbs):
            x = self.convs[2 * i](x, w, features[i + 1])
            x = self.convs[2 * i + 1](x, w, features[i + 1])
            image = to_rgb(x, w, image)
        return image


@store_hyperparameters()
class GPEN(nn.Module):
    hyperparameters = {}  # noqa: RUF012

    def __init__(
        self,
        *,
        # of the resolutions 4, 8, 16, ... up to that of the result
        channels: Sequence[int] = (512, 512, 512, 512, 512, 256, 128, 64),
        num_downs: int = 7,  # the input is 4 * 2 ** num_downs pixels wide
        style_dim: int = 512,
        num_mlp: int = 8,
        noise_mode: NoiseMode = "concat",
    ):
        super().__init__()
        self.in_size = 4 * 2**num_downs
        self.out_size = 4 * 2 ** (len(channels) - 1)
        self.num_downs = num_downs
        widths = list(channels[: num_downs + 1])[::-1]  # fine to coarse
        ecd0 = nn.Sequential(Conv(3, widths[0], 1), Activate(widths[0]))
        self.ecd0 = nn.Sequential(ecd0)
        for i in range(1, num_downs + 1):
            c, o = widths[i - 1], widths[i]
            layers = nn.Sequential(
                Fir(pad=(2, 2)), Conv(c, o, 3, stride=2), Activate(o)
            )
            self.add_module(f"ecd{i}", nn.Sequential(layers))
        self.final_linear = nn.Sequential(
            Linear(channels[0] * 4 * 4, style_dim, activate=True)
        )
        self.generator = Generator(channels, style_dim, num_mlp, noise_mode)

    def forward(self, x: Tensor) -> Tensor:
        """An aligned face (N, 3, in_size, in_size) -> (N, 3, out_size, out_size), RGB in [-1, 1]."""
        features: list[Tensor | None] = []
        for i in range(self.num_downs + 1):
            x = self.get_submodule(f"ecd{i}")(x)
            features.append(x)
        z = self.final_linear(x.flatten(1))
        finer = len(self.generator.to_rgbs) - self.num_downs
        return self.generator(z, features[::-1] + [None] * finer)
