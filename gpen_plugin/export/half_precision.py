"""A GPEN whose features are half-precision numbers, and whose image is the same.

Plain half precision fails where a number leaves its range, 6e-8 to 65504. The first to do so is the square of the code
z: its length says nothing, so that a training lets it grow past 256, and then its mean square is infinite, and every
face gets one and the same style. Squares of styles and weights in the demodulation and the features of large networks
may follow. Here all that makes styles (code, mapping network, modulation, demodulation) and the sum of the images
stays in float32, as do input and output.

The convolutions work in half precision, on numbers of middling size. Leaky ReLU and convolutions commute with positive
factors, and demodulation swallows them (Eq. 3), so that features, styles and kernels can be scaled with no change to
the image. By how much is measured on images.
"""

import copy
from collections.abc import Iterable

import torch
from torch import nn

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.layers import EqualConv2d, StyledConv, ToRGB

PEAK = 64.0
"""What the largest features are scaled to: a thousandth of the largest number, and a million times the smallest one
that has all its digits."""
_SMALLEST_STYLE = 1e-4  # of a layer's largest: less is not scaled up to 1
_SHORTEST_KERNEL = 1e-4  # the square root of what demodulation adds to a kernel's power


def to_half_precision(net: GPEN, images: Iterable[torch.Tensor]) -> GPEN:
    """Copy a network into half precision.

    Args:
        net: in float32; it is left as it is.
        images: batches (N, 3, H, W) in the network's value range, on its device, to measure features and styles with.
    Returns:
        A network for restoring alone. It takes and gives float32.
    """
    half = copy.deepcopy(net).eval().requires_grad_(False)
    peaks, styles = _measured(half, images)
    divisors = _scale_encoder(half, peaks)
    _scale_decoder(half, peaks, styles, divisors)
    _round(half)
    return half


@torch.no_grad()
def _measured(
    net: GPEN, images: Iterable[torch.Tensor]
) -> tuple[dict[nn.Module, float], dict[nn.Module, torch.Tensor]]:
    """The largest output of each layer of features, and the root mean square (I,) of each modulation's styles."""
    peaks: dict[nn.Module, float] = {}
    powers: dict[nn.Module, list[torch.Tensor]] = {}

    def see_features(layer, _, output):
        peaks[layer] = max(peaks.get(layer, 0.0), output.abs().max().item())

    def see_styles(modulation, _, output):
        powers.setdefault(modulation, []).append(output.square())  # (N, I)

    hooks = []
    for module in net.modules():
        if isinstance(module, (EqualConv2d, StyledConv)):
            hooks.append(module.register_forward_hook(see_features))
        if isinstance(module, (StyledConv, ToRGB)):
            hooks.append(module.modulation.register_forward_hook(see_styles))
    for batch in images:
        net(batch)
    for hook in hooks:
        hook.remove()
    return peaks, {modulation: torch.cat(each).mean(dim=0).sqrt() for modulation, each in powers.items()}


@torch.no_grad()
def _scale_encoder(net: GPEN, peaks: dict[nn.Module, float]) -> dict[int, float]:
    """Bring each layer's features to `PEAK`. Returns by what they were divided, by resolution."""
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
    """Bring the largest features to `PEAK`, all by one factor: demodulation hands on the scale that it is given."""
    decoder = net.decoder
    convs = [conv for block in decoder.blocks.values() for conv in block.convs]
    divisor = _divisor(max(decoder.constant.abs().max().item(), *(peaks[conv] for conv in convs)))
    decoder.constant /= divisor
    for resolution, block in decoder.blocks.items():
        for conv in block.convs:
            _take_in_style(conv, styles[conv.modulation])
            length = conv.weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()  # (O, 1, 1, 1)
            conv.weight /= length.clamp(min=_SHORTEST_KERNEL)
            conv.bias /= divisor
            if conv.noise_mode != "none":
                conv.noise_weight *= divisors.get(int(resolution), 1.0) / divisor
        _take_in_style(block.to_rgb, styles[block.to_rgb.modulation])
        block.to_rgb.weight *= divisor


def _take_in_style(layer: StyledConv | ToRGB, style: torch.Tensor) -> None:
    """Move the usual style (I,) into the kernel, so that the layer's styles are about 1."""
    style = style.clamp(min=max(_SMALLEST_STYLE * style.max().item(), torch.finfo(style.dtype).tiny))
    layer.modulation.weight /= style[:, None]
    layer.modulation.bias /= style
    layer.weight *= style[:, None, None] * layer.scale
    layer.scale = 1.0


def _divisor(peak: float) -> float:
    return peak / PEAK if peak > 0 else 1.0


def _round(net: GPEN) -> None:
    """Round the convolutions' kernels, and what is given to the first of encoder and decoder; the rest follows them."""
    for module in net.modules():
        if isinstance(module, (EqualConv2d, StyledConv, ToRGB)):
            module.weight.data = module.weight.data.half()
    net.decoder.constant.data = net.decoder.constant.data.half()
    net.encoder.stem.register_forward_pre_hook(_as_half)


def _as_half(_, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (given[0].half(),)
