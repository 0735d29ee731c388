"""Networks of every kind, small enough for files in a test."""

import copy
import math

import torch
from torch.utils._pytree import tree_map

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.layers import EqualConv2d, EqualLinear, StyledConv, ToRGB

OF_D = {"channel_multiplier": 1, "narrow": 0.04}
SMALL = {"num_style_feat": 8, "num_mlp": 2, **OF_D}
NETWORKS = {
    "GPEN concat": lambda: GPEN(32, **SMALL),
    "GPEN add, small input": lambda: GPEN(64, in_size=16, noise_mode="add", **SMALL),
    "GPEN without noise": lambda: GPEN(16, noise_mode="none", **SMALL),
    "GPENPrior concat": lambda: GPENPrior(32, **SMALL),
    "GPENPrior add": lambda: GPENPrior(64, noise_mode="add", **SMALL),
    "GPENDiscriminator": lambda: GPENDiscriminator(32, **OF_D),
}


def built(build, seed=0):
    """A network whose every tensor has values of its own."""
    torch.manual_seed(seed)
    net = build()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return net


# A layer rounds its features up to four times (style, convolution, filter, activation), which adds up like a random
# walk to sqrt(4) times one rounding; as much again is margin. Half precision is accumulated in float32, but float32 in
# itself: over up to 20 channels of 9 taps.
ROUNDINGS = {torch.float16: 4.0, torch.float32: 4.0 * math.sqrt(20 * 9)}
SCALE_STEP = 2.0**-20  # small enough to be linear, large beside the roundings of float64


@torch.no_grad()
def rounding_error(net, images, dtype, *more) -> tuple[float, float]:
    """By how much rounding to `dtype` may change what a network makes of `images`: the largest change, and the rms.

    How far a network amplifies roundings is measured in float64: each layer's kernel and result move by a small
    relative amount, whose sign is random. `more` follows `images` in the call.
    """
    kinds = (EqualConv2d, StyledConv, ToRGB, *([EqualLinear] if dtype is torch.float32 else []))
    inputs, exact = tree_map(torch.Tensor.double, (images, *more)), copy.deepcopy(net).double().eval()
    truth, largest, rms = exact(*inputs), 0.0, 0.0
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)

        def move(tensor, generator=generator):
            return tensor * (1 + SCALE_STEP * (torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1))

        moved = copy.deepcopy(exact)
        for name, parameter in moved.named_parameters():
            if name.endswith("constant"):
                parameter.copy_(move(parameter))
        for layer in moved.modules():
            if isinstance(layer, kinds):
                layer.weight.copy_(move(layer.weight))
                layer.register_forward_hook(lambda layer, given, result, move=move: move(result))
        change = moved(*inputs) - truth
        largest = max(largest, change.abs().max().item())
        rms = max(rms, change.square().mean().sqrt().item())
    roundings = ROUNDINGS[dtype] * torch.finfo(dtype).eps / 2 / SCALE_STEP
    return largest * roundings, rms * roundings


def weights(build, seed=0):
    return dict(built(build, seed).state_dict())


def same(a, b):
    return sorted(a) == sorted(b) and all(torch.equal(a[key], b[key]) and a[key].shape == b[key].shape for key in a)


def discriminator_weights(size):
    return weights(lambda: GPENDiscriminator(size, **OF_D))


def saved(path, content):
    torch.save(content, path)
    return path
