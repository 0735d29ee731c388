"""Upsample, filter, downsample: the FIR resampling of StyleGAN2."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from gpen_plugin.ops.dispatch import HOST_KERNELS, Implementation, check_shape, no_autocast, run


def fir_kernel(
    taps: Sequence[float],
    gain: float = 1.0,  # its sum; up ** 2 makes up for the zeros that upsampling inserts
) -> torch.Tensor:
    """The separable kernel (K, K), float32, of K one-dimensional `taps`, such as ``(1, 3, 3, 1)``."""
    scale = gain / (sum(taps) ** 2 or math.nan)  # a damaged file may hold taps of zeros
    return torch.tensor([[one * other * scale for other in taps] for one in taps], dtype=torch.float32)


def upfirdn2d(
    x: torch.Tensor,  # features, (N, C, H, W), float
    kernel: torch.Tensor,  # FIR filter that all channels share, (kh, kw); flipped, as in a true convolution
    up: int = 1,  # factor of the zero-stuffing
    down: int = 1,  # factor of the decimation
    pad: tuple[int, int] = (0, 0),  # zeros before and after, for rows and columns alike; negative numbers crop
    *,
    impl: Implementation = "auto",  # `reference`, `fast`, `host` (BasicSR's CUDA op) or `auto`
) -> torch.Tensor:
    """Put `up` - 1 zeros after each pixel, pad, convolve with `kernel`, keep each `down`-th pixel. Raises ShapeError.

    Returns (N, C, (H * up + p0 + p1 - kh) // down + 1, (W * up + p0 + p1 - kw) // down + 1), in the dtype of `x`.
    Differentiable twice with respect to `x`; `kernel` is a constant.
    """
    check_shape("upfirdn2d(x)", x, {"N": None, "C": None, "H": None, "W": None})
    check_shape("upfirdn2d(kernel)", kernel, {"kh": None, "kw": None})
    return run("upfirdn2d", impl, _IMPLEMENTATIONS, x, kernel.to(x.dtype), up, down, pad)


def _reference(x, kernel, up, down, pad):
    batch, channels, height, width = x.shape
    stuffed = F.pad(x[:, :, :, None, :, None], (0, up - 1, 0, 0, 0, up - 1))  # (N, C, H, up, W, up)
    stuffed = stuffed.reshape(batch, channels, height * up, width * up)  # (N, C, H * up, W * up)
    padded = F.pad(stuffed, (*pad, *pad)).flatten(0, 1)[:, None]  # (N * C, 1, rows, columns)
    filtered = F.conv2d(padded, kernel.flip(0, 1)[None, None])
    return filtered.unflatten(0, (batch, channels))[:, :, 0, ::down, ::down]


def _fast(x, kernel, up, down, pad):
    if up > 1:
        return _transposed(x, kernel, up, pad)[:, :, ::down, ::down]
    if pad[0] == pad[1] >= 0:
        return _depthwise(x, kernel, down, pad[0])
    return _depthwise(F.pad(x, (*pad, *pad)), kernel, down, 0)


def _depthwise(x, kernel, stride, padding):
    weight = kernel.flip(0, 1).expand(x.shape[1], 1, -1, -1)  # (C, 1, kh, kw)
    return _filtered(x, weight, stride, padding)


def _transposed(x, kernel, up, pad):
    """Zero-stuffing and filtering in one: a transposed convolution lays down one kernel per pixel of `x`."""
    (kh, kw), channels = kernel.shape, x.shape[1]
    weight = kernel.expand(channels, 1, -1, -1)  # (C, 1, kh, kw)
    # What a transposed convolution's full output has too much on each side: left, right, top, bottom.
    crop = (kw - 1 - pad[0], kw - up - pad[1], kh - 1 - pad[0], kh - up - pad[1])
    if min(crop) == max(crop) >= 0:
        return _filtered(x, weight, up, crop[0], adjoint=True)
    return F.pad(_filtered(x, weight, up, 0, adjoint=True), [-edge for edge in crop])


def _filtered(x, weight, stride, padding, adjoint=False, beyond=(0, 0)):
    """Each channel with the same filter, or that filter's adjoint; see `_filter`."""
    learns = torch.is_grad_enabled() and x.requires_grad
    goes_forward = forward_ad.unpack_dual(x).tangent is not None  # PyTorch's forward mode knows only its own ops
    return (_Filter.apply if learns and not goes_forward else _filter)(x, weight, stride, padding, adjoint, beyond)


def _filter(x, weight, stride, padding, adjoint, beyond):
    """`beyond`: rows and columns at the far edges that the filter passed over, and its adjoint has to give back."""
    if adjoint:
        return F.conv_transpose2d(x, weight, None, stride, padding, beyond, groups=x.shape[1])
    return F.conv2d(x, weight, None, stride, padding, groups=x.shape[1])


class _Filter(torch.autograd.Function):
    """A filter and its adjoint are each other's derivatives, as often as needed.

    PyTorch's second derivative computes, channel by channel, a gradient of the kernel; but the kernel is a constant.
    """

    generate_vmap_rule = True  # this and `setup_context` let torch.func in

    @staticmethod
    def forward(x, weight, stride, padding, adjoint, beyond):
        return _filter(x, weight, stride, padding, adjoint, beyond)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, stride, padding, adjoint, _ = inputs
        ctx.save_for_backward(weight)
        sides = zip(x.shape[2:], output.shape[2:], weight.shape[2:], strict=True)
        left_over = (0, 0) if adjoint else tuple((h + 2 * padding - k) - (few - 1) * stride for h, few, k in sides)
        ctx.others = (stride, padding, not adjoint, left_over)

    @staticmethod
    def backward(ctx, slope):
        (weight,) = ctx.saved_tensors
        with no_autocast(slope):
            return _filtered(slope, weight, *ctx.others), None, None, None, None, None


def _host(x, kernel, up, down, pad):
    return HOST_KERNELS["upfirdn2d"](x, kernel, up=up, down=down, pad=pad)


_IMPLEMENTATIONS = {"reference": _reference, "fast": _fast, "host": _host}
