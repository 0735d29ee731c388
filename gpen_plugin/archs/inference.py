"""The network's form for inference: `fuse` replaces its layers by fused ones, for restoring and for export.

All constant factors are multiplied into the weights once, and so is the gain of the leaky ReLU, which commutes with
positive factors. Restoring writes features in place. An exported graph cannot do that, so the traceable variant has no
in-place writes, no branch on sizes and no loop over the batch, and keeps features and noise apart instead of
concatenating them: the runtime then adds the second convolution's result to the first's in place.
"""

import contextlib
import copy
import functools
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from gpen_plugin.archs.gan_prior_arch import GANBlock, GANPrior
from gpen_plugin.archs.layers import (
    DownConv2d,
    EqualConv2d,
    EqualLinear,
    FoldedKernel,
    StyledConv,
    ToRGB,
    group_by_noise,
    upsample2x,
)
from gpen_plugin.ops import upfirdn2d
from gpen_plugin.ops.bias_act import GAIN, SLOPE
from gpen_plugin.ops.dispatch import no_autocast
from gpen_plugin.ops.modulated_conv import blur_padding, demodulation, kernel_power

Groups = tuple[torch.Tensor, ...]  # of channels, (N, C, H, W) each, that stand for their concatenation


def fuse(
    network: nn.Module,  # any module made of this package's layers, such as `GPEN`; it stays as it is, and may learn on
    dtype: torch.dtype = torch.float32,  # of the features; latent codes, styles and images stay in float32
    *,
    traceable: bool = False,  # for export: a graph for any batch size
) -> nn.Module:
    """A copy for inference, on the same device, in evaluation mode: the same calls and numbers, fused.

    It has neither parameters that learn nor weights to save. On a CPU, bring the network to ``torch.channels_last``
    before. Hooks of fused layers are not copied. A hook on the copy must clone the features that it stores: the next
    layer may overwrite them.
    """
    return _fuse(network, dtype, traceable, overwrites=False).eval()


def _fuse(module: nn.Module, dtype: torch.dtype, traceable: bool, overwrites: bool) -> nn.Module:
    if type(module) is EqualLinear:
        return FusedLinear(module)
    if type(module) in (EqualConv2d, DownConv2d):
        return FusedConv2d(module, dtype, traceable)
    if type(module) is StyledConv:
        return FusedStyledConv(module, dtype, traceable, overwrites)
    if type(module) is ToRGB:
        return FusedToRGB(module, dtype, traceable)
    shell = copy.copy(module)
    # what is registered with the copy, such as a hook, must not reach the network
    vars(shell).update({name: value.copy() for name, value in vars(module).items() if isinstance(value, (dict, set))})
    shell._parameters = {name: _freeze(parameter) for name, parameter in module._parameters.items()}
    if traceable and isinstance(module, GANPrior):
        shell._broadcast = lambda w: w if w.ndim == 3 else RepeatedCode(w, module.num_latent)
    if isinstance(module, FoldedKernel) and getattr(module, "convolves", True):
        shell._buffers["folded"], shell._parameters["weight"] = module.kernel_now.detach().clone(), None
    # only the second convolution of a block reads what the first one gives
    second = module.conv1 if type(module) is GANBlock and module.conv0 is not None else None
    shell._modules = {
        name: child if child is None else _fuse(child, dtype, traceable, overwrites=child is second)
        for name, child in module._modules.items()
    }
    return shell


class RepeatedCode:
    """A code (N, F) in place of (N, num_latent, F): in a graph, no copies and no indexing, which CoreML lacks."""

    def __init__(self, code: torch.Tensor, num_latent: int):
        self.code, self.shape = code, (code.shape[0], num_latent, code.shape[1])

    def __getitem__(self, index: tuple[slice, int | slice]) -> "torch.Tensor | RepeatedCode":
        """``[:, i]`` is the code, ``[:, a:b]`` repeats it."""
        chosen = range(self.shape[1])[index[1]]
        return RepeatedCode(self.code, len(chosen)) if isinstance(chosen, range) else self.code


def _freeze(parameter: nn.Parameter | None) -> nn.Parameter | None:
    """A copy that neither moves to a device nor takes a step with the network's parameter."""
    return None if parameter is None else nn.Parameter(parameter.detach().clone(), requires_grad=False)


def _without_grad(forward: Callable) -> Callable:
    """Run a layer's `forward` without autograd, and in the layer's own precision under autocasting."""

    @functools.wraps(forward)
    def run(layer, *inputs):
        # an exported graph would record a no_grad that changes nothing
        no_grad = torch.no_grad() if torch.is_grad_enabled() else contextlib.nullcontext()
        with no_grad, no_autocast(layer.weight):
            return forward(layer, *inputs)

    return run


class FusedLinear(nn.Module):
    """`EqualLinear`: (N, I) -> (N, O), always in float32. `scale` multiplies the result."""

    def __init__(self, layer: EqualLinear, scale: float = 1.0):
        super().__init__()
        gain = scale * (GAIN if layer.activate else 1)
        self.register_buffer("weight", layer.weight.detach().float() * (layer.scale * gain), persistent=False)
        self.register_buffer("bias", layer.bias.detach().float() * (layer.lr_mul * gain), persistent=False)
        self.activate = layer.activate

    @_without_grad
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.linear(x.float(), self.weight, self.bias)
        return F.leaky_relu_(x, SLOPE) if self.activate else x


class FusedConv2d(nn.Module):
    """`EqualConv2d` or `DownConv2d`, with or without activation: (N, I, H, W) -> (N, O, H, W) or half of it."""

    def __init__(self, layer: EqualConv2d, dtype: torch.dtype, traceable: bool):
        super().__init__()
        self.conv = F.conv2d if traceable else conv2d
        self.activate, self.down = layer.bias is not None, isinstance(layer, DownConv2d)
        gain = GAIN if self.activate else 1
        self.register_buffer("weight", (layer.weight.detach() * (layer.scale * gain)).to(dtype), persistent=False)
        bias = None if layer.bias is None else (layer.bias.detach() * gain).to(dtype)
        self.register_buffer("bias", bias, persistent=False)
        if self.down:
            self.register_buffer("kernel", layer.kernel, persistent=False)
            self.pad = layer.pad

    @_without_grad
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, size = x.to(self.weight.dtype), self.weight.shape[2]
        if not self.down:
            x = self.conv(x, self.weight, self.bias, padding=size // 2)
        elif size == 1:
            x = self.conv(upfirdn2d(x, self.kernel, down=2, pad=self.pad), self.weight, self.bias)
        else:
            x = F.conv2d(upfirdn2d(x, self.kernel, pad=self.pad), self.weight, self.bias, stride=2)
        return F.leaky_relu_(x, SLOPE) if self.activate else x


class FusedStyledConv(nn.Module):
    """`StyledConv`: style, convolution, demodulation, noise, bias and leaky ReLU."""

    def __init__(
        self,
        layer: StyledConv,
        dtype: torch.dtype,  # of the features; styles stay in float32
        traceable: bool,  # see `fuse`
        overwrites: bool,  # whether the result may overwrite an input of its shape
    ):
        super().__init__()
        self.up, self.noise_mode, self.out_channels = layer.up, layer.noise_mode, layer.out_channels
        self.traceable, self.overwrites = traceable, overwrites
        self.modulation = FusedLinear(layer.modulation, layer.scale)
        weight = layer.weight.detach()
        self.register_buffer("power", kernel_power(weight), persistent=False)
        # a transposed convolution takes its input channels first and would turn the weight around at each call
        weight = weight.transpose(0, 1).contiguous(memory_format=memory_format_of(weight)) if self.up else weight
        self.register_buffer("weight", weight.to(dtype, copy=True), persistent=False)
        self.register_buffer("bias", (layer.bias.detach() * GAIN).to(dtype), persistent=False)
        if self.up:
            self.register_buffer("kernel", layer.kernel.flip(0, 1).to(dtype), persistent=False)
            self.pad = blur_padding(layer.weight, layer.kernel)
        self.noise_weight = 0.0 if layer.noise_weight is None else layer.noise_weight.item() * GAIN

    @_without_grad
    def forward(
        self, x: torch.Tensor | Groups, latent: torch.Tensor, noise: torch.Tensor | None
    ) -> torch.Tensor | Groups:
        """As `StyledConv`; `x` may be overwritten if `overwrites`. A traceable layer gives `Groups`, and takes them."""
        style = self.modulation(latent)  # (N, I)
        gain = demodulation(self.power, style) * GAIN  # (N, O)
        if self.traceable:
            return self._forward_traceable(x, style, gain, noise)
        x = cast(torch.Tensor, x).to(self.weight.dtype)
        if self._scales_features(x):
            features = self._convolve(x * style.to(x.dtype)[:, :, None, None], self.weight, None)
            own_bias = self.bias[: features.shape[1], None, None]
            features = torch.addcmul(own_bias, features, gain.to(x.dtype)[:, :, None, None])
            return self._activate(features, noise, self._allocate(x))
        out = self._allocate(x)
        # sample by sample: allocating the features of a large batch costs more than it saves
        for n in range(len(x)):
            factor = torch.outer(style[n], gain[n]) if self.up else torch.outer(gain[n], style[n])
            weight = (self.weight * factor[:, :, None, None]).to(x.dtype)
            features = self._convolve(x[n : n + 1], weight, self.bias[: gain.shape[1]])
            own_noise = noise if noise is None or len(noise) == 1 else noise[n : n + 1]
            self._activate(features, own_noise, out[n : n + 1])
        return out

    def _scales_features(self, x: torch.Tensor) -> bool:
        """Whether scaling the features is cheaper than scaling the weight, of which each sample needs its own."""
        return self.weight.numel() > x.shape[1:].numel() or (x.is_cuda and len(x) > 1)

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if not self.up:
            return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2)
        return self._blur(F.conv_transpose2d(x, weight, stride=2), bias)

    def _blur(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        kernel = self.kernel.expand(x.shape[1], 1, -1, -1)
        if self.pad[0] == self.pad[1]:
            return F.conv2d(x, kernel, bias, padding=self.pad[0], groups=x.shape[1])
        return F.conv2d(F.pad(x, (*self.pad, *self.pad)), kernel, bias, groups=x.shape[1])

    def _allocate(self, x: torch.Tensor) -> torch.Tensor:
        """Memory for the result, (N, `out_channels`, H', W')."""
        batch, channels, height, width = x.shape
        if self.up:
            height, width = 2 * height, 2 * width
        elif self.overwrites and channels == self.out_channels:
            return x
        shape = (batch, self.out_channels, height, width)
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))

    def _activate(self, features: torch.Tensor, noise: torch.Tensor | None, out: torch.Tensor) -> torch.Tensor:
        """Add noise, apply leaky ReLU. `features` have their bias already. Fills `out` and returns it."""
        width, groups = features.shape[1], group_by_noise(self.noise_mode, features, noise)
        biases = self.bias[:, None, None].split(width)
        for (x, added), bias, result in zip(groups, biases, out.split(width, dim=1), strict=True):
            x, target = (bias.expand_as(result), result) if x is None else (x, x)
            if added is not None:
                x = torch.add(x, added.to(x.dtype).expand_as(x), alpha=self.noise_weight, out=target)
            torch.ops.aten.leaky_relu.out(x, SLOPE, out=result)
        return out

    def _forward_traceable(
        self, x: torch.Tensor | Groups, style: torch.Tensor, gain: torch.Tensor, noise: torch.Tensor | None
    ) -> Groups:
        groups, dtype = x if isinstance(x, tuple) else (x,), self.weight.dtype
        style, gain = (factor.to(dtype)[:, :, None, None] for factor in (style, gain))
        if self.up:  # runtimes do not add transposed convolutions in place; these read a quarter of the pixels
            features = F.conv_transpose2d(torch.cat(groups, dim=1) * style, self.weight, stride=2)
            features = self._blur(features * gain, None)  # blur, bias and leaky ReLU become one operator
        else:
            widths = [group.shape[1] for group in groups]
            weights = zip(groups, style.split(widths, dim=1), self.weight.split(widths, dim=1), strict=True)
            features = gain * sum(F.conv2d(x.to(dtype) * scale, w, padding=w.shape[2] // 2) for x, scale, w in weights)
        with_noise = group_by_noise(self.noise_mode, features, noise)
        biases = self.bias[:, None, None].split(features.shape[1])
        results = []
        for (x, added), bias in zip(with_noise, biases, strict=True):
            x = bias if x is None else x + bias
            x = x if added is None else x + added.to(dtype) * self.noise_weight
            results.append(F.leaky_relu(x, SLOPE).expand_as(features))
        return tuple(results)


class FusedToRGB(nn.Module):
    """`ToRGB`; images are summed up in float32. `dtype` is that of the features; for `traceable` see `fuse`."""

    def __init__(self, layer: ToRGB, dtype: torch.dtype, traceable: bool):
        super().__init__()
        self.traceable = traceable
        self.modulation = FusedLinear(layer.modulation, layer.scale)
        self.register_buffer("weight", layer.weight.detach().to(dtype, copy=True), persistent=False)
        self.register_buffer("bias", layer.bias.detach().to(torch.float32, copy=True), persistent=False)
        self.register_buffer("kernel", layer.kernel, persistent=False)

    @_without_grad
    def forward(self, x: torch.Tensor | Groups, latent: torch.Tensor, earlier: torch.Tensor | None) -> torch.Tensor:
        """As `ToRGB`. A traceable layer takes `Groups`."""
        image = (self._project_groups if self.traceable else self._project)(x, self.modulation(latent))
        image = image + self.bias[:, None, None]
        return image if earlier is None else image + upsample2x(earlier, self.kernel)

    def _project(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        own = self.weight * style[:, None, :, None, None]  # (N, 3, I, 1, 1)
        shape = (len(x), len(self.bias), *x.shape[2:])
        image = torch.empty(shape, dtype=torch.float32, device=x.device, memory_format=memory_format_of(x))
        for n in range(len(x)):
            image[n : n + 1] = conv2d(x[n : n + 1], own[n].to(x.dtype))
        return image

    def _project_groups(self, groups: Groups, style: torch.Tensor) -> torch.Tensor:
        """One product of matrices with the scaled kernel, which is small, instead of scaled features."""
        kernels = self.weight.flatten(1) * style.to(self.weight.dtype)[:, None]  # (N, 3, I)
        kernels = kernels.split([group.shape[1] for group in groups], dim=2)
        _, _, height, width = groups[0].shape
        # -1 is the batch: a traced shape may be a constant of the graph
        pixels = [group.reshape(-1, group.shape[1], height * width) for group in groups]
        image = sum(kernel @ group for kernel, group in zip(kernels, pixels, strict=True))  # (N, 3, H * W)
        return image.reshape(-1, len(self.bias), height, width).float()


def conv2d(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *, padding: int = 0
) -> torch.Tensor:
    """`F.conv2d`, of which the result on a CPU does not depend on the number of threads.

    In one thread, PyTorch computes 1 x 1 convolutions by another library than in several, unless they are dilated.
    """
    dilation = 2 if weight.shape[2] == 1 and x.device.type == "cpu" else 1
    return F.conv2d(x, weight, bias, padding=padding, dilation=dilation)


def memory_format_of(x: torch.Tensor) -> torch.memory_format:
    """``channels_last`` or ``contiguous_format``, for a tensor of four dimensions."""
    x = x[:1]  # an expanded batch, such as that of the learned constant, is contiguous in neither
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
