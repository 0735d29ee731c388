"""The form of a finished network for inference: `fold` replaces its layers by fused ones."""

import copy
import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from gpen_plugin.archs.gan_prior_arch import GANBlock
from gpen_plugin.archs.layers import DownConv2d, EqualConv2d, EqualLinear, StyledConv, ToRGB, upsample2x
from gpen_plugin.ops import upfirdn2d
from gpen_plugin.ops.dispatch import no_autocast
from gpen_plugin.ops.modulated_conv import blur_padding, demodulation, kernel_power

_SLOPE = 0.2
_GAIN = math.sqrt(2)  # leaky ReLU commutes with positive factors, so its gain moves into weights and biases


def _evaluates(forward: Callable) -> Callable:
    """Let a layer's `forward` run without autograd, and in the layer's own precision under autocasting too."""

    @functools.wraps(forward)
    def run(layer, x, *rest):
        with torch.no_grad(), no_autocast(x):
            return forward(layer, x, *rest)

    return run


class FoldedLinear(nn.Module):
    """`EqualLinear`: (N, I) -> (N, O), always in float32.

    Args:
        layer: what it stands for.
        scale: factor of the result.
    """

    def __init__(self, layer: EqualLinear, scale: float = 1.0):
        super().__init__()
        gain = scale * (_GAIN if layer.activate else 1)
        self.register_buffer("weight", layer.weight.detach().float() * (layer.scale * gain), persistent=False)
        self.register_buffer("bias", layer.bias.detach().float() * (layer.lr_mul * gain), persistent=False)
        self.activate = layer.activate

    @_evaluates
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.linear(x.float(), self.weight, self.bias)
        return F.leaky_relu_(x, _SLOPE) if self.activate else x


class FoldedConv2d(nn.Module):
    """`EqualConv2d` or `DownConv2d`, with or without activation: (N, I, H, W) -> (N, O, H, W) or half of it.

    Args:
        layer: what it stands for.
        dtype: in which it computes.
    """

    def __init__(self, layer: EqualConv2d, dtype: torch.dtype):
        super().__init__()
        self.activate, self.down = layer.bias is not None, isinstance(layer, DownConv2d)
        gain = _GAIN if self.activate else 1
        self.register_buffer("weight", (layer.weight.detach() * (layer.scale * gain)).to(dtype), persistent=False)
        bias = (layer.bias.detach() * gain).to(dtype) if self.activate else None
        self.register_buffer("bias", bias, persistent=False)
        if self.down:
            self.register_buffer("kernel", layer.kernel, persistent=False)
            self.pad = layer.pad

    @_evaluates
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, size = x.to(self.weight.dtype), self.weight.shape[2]
        if not self.down:
            x = F.conv2d(x, self.weight, self.bias, padding=size // 2)
        elif size == 1:
            x = F.conv2d(upfirdn2d(x, self.kernel, down=2, pad=self.pad), self.weight, self.bias)
        else:
            x = F.conv2d(upfirdn2d(x, self.kernel, pad=self.pad), self.weight, self.bias, stride=2)
        return F.leaky_relu_(x, _SLOPE) if self.activate else x


class FoldedStyledConv(nn.Module):
    """`StyledConv`: style, convolution, demodulation, noise, bias and leaky ReLU.

    Args:
        layer: what it stands for.
        dtype: in which it computes; styles stay in float32.
        overwrites: whether the result may take the place of the input, where it has its shape.
    """

    def __init__(self, layer: StyledConv, dtype: torch.dtype, overwrites: bool):
        super().__init__()
        self.up, self.noise_mode, self.out_channels = layer.up, layer.noise_mode, layer.out_channels
        self.overwrites = overwrites
        self.modulation = FoldedLinear(layer.modulation, layer.scale)
        weight = layer.weight.detach()
        self.register_buffer("power", kernel_power(weight), persistent=False)
        # a transposed convolution wants its input channels first, and would turn the weight around at each call
        turned = weight.transpose(0, 1).contiguous(memory_format=layout_of(weight)) if self.up else weight
        self.register_buffer("weight", turned.to(dtype, copy=True), persistent=False)
        own, noisy = (layer.bias.detach() * _GAIN).to(dtype).tensor_split([weight.shape[0]])
        self.register_buffer("bias", own, persistent=False)
        self.register_buffer("noise_bias", noisy[None, :, None, None], persistent=False)
        if self.up:
            self.register_buffer("kernel", layer.kernel.flip(0, 1).to(dtype), persistent=False)
            self.pad = blur_padding(layer.weight, layer.kernel)
        self.noise_gain = 0.0 if self.noise_mode == "none" else layer.noise_weight.item() * _GAIN

    @_evaluates
    def forward(self, x: torch.Tensor, latent: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """See `StyledConv`. `x` is lost where `overwrites` says so."""
        x, style = x.to(self.weight.dtype), self.modulation(latent)  # (N, I)
        gain = demodulation(self.power, style) * _GAIN  # (N, O)
        if self._has_few_pixels(x):
            features = self._convolve(x * style.to(x.dtype)[:, :, None, None], self.weight, None)
            features = torch.addcmul(self.bias[:, None, None], features, gain.to(x.dtype)[:, :, None, None])
            return self._finish(features, noise, self._room(x))
        out = self._room(x)
        # map by map: the fresh memory that a large batch of them takes costs more than it saves
        for n in range(len(x)):
            factor = torch.outer(style[n], gain[n]) if self.up else torch.outer(gain[n], style[n])
            weight = (self.weight * factor[:, :, None, None]).to(x.dtype)
            features = self._convolve(x[n : n + 1], weight, self.bias)
            own_noise = noise if noise is None or len(noise) == 1 else noise[n : n + 1]
            self._finish(features, own_noise, out[n : n + 1])
        return out

    def _has_few_pixels(self, x: torch.Tensor) -> bool:
        """Whether styles are cheaper put on the features than on the weight, of which each sample needs its own."""
        return self.weight.numel() > x.shape[1:].numel() or (x.is_cuda and len(x) > 1)

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if not self.up:
            return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2)
        x = F.conv_transpose2d(x, weight, stride=2)
        kernel = self.kernel.expand(x.shape[1], 1, -1, -1)
        if self.pad[0] == self.pad[1]:
            return F.conv2d(x, kernel, bias, padding=self.pad[0], groups=x.shape[1])
        return F.conv2d(F.pad(x, (*self.pad, *self.pad)), kernel, bias, groups=x.shape[1])

    def _room(self, x: torch.Tensor) -> torch.Tensor:
        """Where the result goes, (N, `out_channels`, H', W')."""
        batch, channels, height, width = x.shape
        if self.up:
            height, width = 2 * height, 2 * width
        elif self.overwrites and channels == self.out_channels:
            return x
        shape = (batch, self.out_channels, height, width)
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout_of(x))

    def _finish(self, features: torch.Tensor, noise: torch.Tensor | None, out: torch.Tensor) -> torch.Tensor:
        """Noise and activation; `features` have their bias by now. Fills `out` and returns it."""
        if self.noise_mode == "add" and noise is not None:
            features.add_(noise.to(features.dtype), alpha=self.noise_gain)
        channels = features.shape[1]
        torch.ops.aten.leaky_relu.out(features, _SLOPE, out=out[:, :channels])
        if self.noise_mode == "concat":
            half = out[:, channels:]
            if noise is None:
                half.copy_(self.noise_bias)
            else:  # of the whole size, or `out` would take on that of a single map
                torch.add(self.noise_bias, noise.to(half.dtype).expand_as(half), alpha=self.noise_gain, out=half)
            F.leaky_relu_(half, _SLOPE)
        return out


class FoldedToRGB(nn.Module):
    """`ToRGB`; images are summed up in float32.

    Args:
        layer: what it stands for.
        dtype: of the features.
    """

    def __init__(self, layer: ToRGB, dtype: torch.dtype):
        super().__init__()
        self.modulation = FoldedLinear(layer.modulation, layer.scale)
        self.register_buffer("weight", layer.weight.detach().to(dtype, copy=True), persistent=False)
        self.register_buffer("bias", layer.bias.detach().to(torch.float32, copy=True), persistent=False)
        self.register_buffer("kernel", layer.kernel, persistent=False)

    @_evaluates
    def forward(self, x: torch.Tensor, latent: torch.Tensor, earlier: torch.Tensor | None) -> torch.Tensor:
        """See `ToRGB`."""
        own = self.weight * self.modulation(latent)[:, None, :, None, None]  # (N, 3, I, 1, 1)
        shape = (len(x), len(self.bias), *x.shape[2:])
        image = torch.empty(shape, dtype=torch.float32, device=x.device, memory_format=layout_of(x))
        for n in range(len(x)):
            image[n : n + 1] = F.conv2d(x[n : n + 1], own[n].to(x.dtype))
        image.add_(self.bias[:, None, None])
        return image if earlier is None else image.add_(upsample2x(earlier, self.kernel))


def layout_of(x: torch.Tensor) -> torch.memory_format:
    """How a tensor of four dimensions lies in memory, as far as two ways are told apart."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def fold(network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy of a finished network for evaluation: the same calls and numbers, in fewer passes over memory.

    It has no parameters that could learn, and no weights to save: keep the network itself for that. On a CPU, bring the
    network to ``torch.channels_last`` before. Hooks of the layers that are folded stay behind, and a hook that is given
    to the copy may look at features, but has to copy those that it keeps: the next layer may write over them.

    Args:
        network: a `GPEN`, `GPENPrior`, `GPENDiscriminator` or `PSP`, or any module made of this package's layers; it is
            left as it is.
        dtype: in which features are computed; latent codes, styles and images stay in float32.
    Returns:
        The copy, in evaluation mode, on the same device. It has weights of its own: `network` may learn on.
    """
    return _folded(network, dtype, overwrites=False).eval()


def _folded(module: nn.Module, dtype: torch.dtype, overwrites: bool) -> nn.Module:
    if type(module) is EqualLinear:
        return FoldedLinear(module)
    if type(module) in (EqualConv2d, DownConv2d):
        return FoldedConv2d(module, dtype)
    if type(module) is StyledConv:
        return FoldedStyledConv(module, dtype, overwrites)
    if type(module) is ToRGB:
        return FoldedToRGB(module, dtype)
    shell = copy.copy(module)
    # whatever is registered with the copy, such as a hook, is none of the network's business
    vars(shell).update({name: held.copy() for name, held in vars(module).items() if isinstance(held, (dict, set))})
    shell._parameters = {name: _finished(parameter) for name, parameter in module._parameters.items()}
    # of what a block's first convolution makes, its second one is the only reader
    second = module.conv1 if type(module) is GANBlock and module.conv0 is not None else None
    shell._modules = {
        name: child if child is None else _folded(child, dtype, overwrites=child is second)
        for name, child in module._modules.items()
    }
    return shell


def _finished(parameter: nn.Parameter | None) -> nn.Parameter | None:
    """Another parameter of the same values, which moves to no device and takes no step together with the network's."""
    return None if parameter is None else nn.Parameter(parameter.detach().clone(), requires_grad=False)
