"""Scale a GPEN so that its features can be half-precision numbers without a change to the image.

Plain half precision fails where a number leaves its range, 6e-8 to 65504. The first is the square of the code z: the
length of z has no effect on the image, so training lets it grow past 256; then the mean square is infinite and every
face gets the same style. Squares of styles and weights in the demodulation and features of large networks can follow.
So styles (code, mapping network, modulation, demodulation), the sum of the images, input and output stay in float32.

The convolutions compute in half precision. Leaky ReLU and convolutions commute with positive factors, and demodulation
cancels them (StyleGAN2, Eq. 3), so features, styles and kernels can be scaled. The factors are measured on images.
"""

import copy
from collections.abc import Iterable

import torch
from torch import nn

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.layers import EqualConv2d, StyledConv, ToRGB

PEAK = 64.0
"""The largest features after scaling: a thousandth of the largest number, and a million times the smallest one that
has full precision."""
_MIN_STYLE = 1e-4  # of a layer's largest; smaller ones are not scaled up to 1
_MIN_KERNEL_NORM = 1e-4  # the square root of demodulation's epsilon


def scale_for_half(
    net: GPEN,  # in float32; it stays as it is
    images: Iterable[torch.Tensor],  # batches (N, 3, H, W) in the network's value range, on its device
) -> GPEN:
    """A copy in float32 with features, styles and kernels of medium size, ready for ``fuse(net, torch.float16)``."""
    scaled = copy.deepcopy(net).eval().requires_grad_(False)
    peaks, styles = _measure(scaled, images)
    divisors = _scale_encoder(scaled, peaks)
    _scale_decoder(scaled, peaks, styles, divisors)
    return scaled


@torch.no_grad()
def _measure(net: GPEN, images: Iterable[torch.Tensor]) -> tuple[dict[nn.Module, float], dict[nn.Module, torch.Tensor]]:
    """The largest output of each layer of features, and the root mean square (I,) of each modulation's styles."""
    peaks: dict[nn.Module, float] = {}
    powers: dict[nn.Module, list[torch.Tensor]] = {}

    def record_peak(layer, _, output):
        peaks[layer] = max(peaks.get(layer, 0.0), output.abs().max().item())

    def record_power(modulation, _, output):
        powers.setdefault(modulation, []).append(output.square())  # (N, I)

    hooks = []
    for module in net.modules():
        if isinstance(module, (EqualConv2d, StyledConv)):
            hooks.append(module.register_forward_hook(record_peak))
        if isinstance(module, (StyledConv, ToRGB)):
            hooks.append(module.modulation.register_forward_hook(record_power))
    for batch in images:
        net(batch)
    for hook in hooks:
        hook.remove()
    return peaks, {modulation: torch.cat(each).mean(dim=0).sqrt() for modulation, each in powers.items()}


@torch.no_grad()
def _scale_encoder(net: GPEN, peaks: dict[nn.Module, float]) -> dict[int, float]:
    """Scale each layer's features to `PEAK`. Returns the divisors by resolution."""
    divisors, before = {}, 1.0
    layers = {net.in_size: net.encoder.stem} | {int(size): layer for size, layer in net.encoder.down.items()}
    for resolution, layer in layers.items():
        divisor = _divisor(peaks[layer])
        layer.weight *= layer.scale * before / divisor
        layer.bias /= divisor
        layer.scale = 1.0
        divisors[resolution] = before = divisor
    net.encoder.to_z.weight *= before
    return divisors


@torch.no_grad()
def _scale_decoder(
    net: GPEN, peaks: dict[nn.Module, float], styles: dict[nn.Module, torch.Tensor], divisors: dict[int, float]
) -> None:
    """Scale the largest features to `PEAK`, all by one factor, because demodulation passes the scale of features on."""
    decoder = net.decoder
    convs = [conv for block in decoder.blocks.values() for conv in block.convs]
    divisor = _divisor(max(decoder.constant.abs().max().item(), *(peaks[conv] for conv in convs)))
    decoder.constant /= divisor
    for resolution, block in decoder.blocks.items():
        for conv in block.convs:
            _absorb_style(conv, styles[conv.modulation])
            length = conv.weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()  # (O, 1, 1, 1)
            conv.weight /= length.clamp(min=_MIN_KERNEL_NORM)
            conv.bias /= divisor
            if conv.noise_weight is not None:
                conv.noise_weight *= divisors.get(int(resolution), 1.0) / divisor
        _absorb_style(block.to_rgb, styles[block.to_rgb.modulation])
        block.to_rgb.weight *= divisor


def _absorb_style(layer: StyledConv | ToRGB, style: torch.Tensor) -> None:
    """Move the typical style (I,) into the kernel, so that the layer's styles are about 1."""
    style = style.clamp(min=max(_MIN_STYLE * style.max().item(), torch.finfo(style.dtype).tiny))
    layer.modulation.weight /= style[:, None]
    layer.modulation.bias /= style
    layer.weight *= style[:, None, None] * layer.scale
    layer.scale = 1.0


def _divisor(peak: float) -> float:
    return peak / PEAK if peak > 0 else 1.0
