"""Bias, leaky ReLU and gain in one op."""

import math

import torch
import torch.nn.functional as F

from gpen_plugin.ops.dispatch import HOST_KERNELS, Implementation, check_shape, run

SLOPE = 0.2  # of every leaky ReLU in StyleGAN2
GAIN = math.sqrt(2)  # after it; keeps the variance


def bias_act(
    x: torch.Tensor,  # (N, C, ...), float; the result has its shape and dtype
    bias: torch.Tensor,  # (C,)
    negative_slope: float = SLOPE,  # of the leaky ReLU
    scale: float = GAIN,  # positive gain
    *,
    impl: Implementation = "auto",  # `reference`, `fast`, `host` (BasicSR's CUDA op) or `auto`
) -> torch.Tensor:
    """Add a bias per channel, apply leaky ReLU, multiply by `scale`. Differentiable twice. Raises ShapeError."""
    assert scale > 0, "only positive factors commute with leaky ReLU"
    check_shape("bias_act(bias)", bias, {"C": x.shape[1]})
    return run("bias_act", impl, _IMPLEMENTATIONS, x, bias.to(x.dtype), negative_slope, scale)


def _per_channel(bias, x):
    return bias.view(-1, *[1] * (x.ndim - 2))  # (C, 1, ...)


def _reference(x, bias, negative_slope, scale):
    return F.leaky_relu(x + _per_channel(bias, x), negative_slope) * scale


def _fast(x, bias, negative_slope, scale):
    # scale * lrelu(x + b) = lrelu(scale * b + scale * x): one pass less, and the second can be in place
    bias = _per_channel(bias * scale, x)
    # not for (N, C): the inductor of PyTorch 2.14 makes addmm of a matrix product and this sum, and loses alpha
    shifted = x * scale + bias if x.ndim == 2 else torch.add(bias, x, alpha=scale)
    return F.leaky_relu(shifted, negative_slope, inplace=not shifted.requires_grad)


def _host(x, bias, negative_slope, scale):
    return HOST_KERNELS["bias_act"](x, bias, negative_slope, scale)


_IMPLEMENTATIONS = {"reference": _reference, "fast": _fast, "host": _host}
