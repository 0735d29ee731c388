"""The convolution whose kernel each sample scales by its own style (StyleGAN2)."""

import torch
import torch.nn.functional as F

from gpen_plugin.ops.dispatch import Implementation, check_shape, choose, no_autocast
from gpen_plugin.ops.upfirdn import upfirdn2d

_EPSILON = 1e-8


def modulated_conv(
    x: torch.Tensor,  # features, (N, I, H, W), float
    weight: torch.Tensor,  # kernels that the batch shares, (O, I, k, k), k odd
    style: torch.Tensor,  # one scale per input channel, (N, I); 1 leaves a channel as it is
    *,
    demodulate: bool = True,  # scale each output channel's kernel to unit length (Eq. 3)
    up: bool = False,  # double height and width: a transposed convolution of stride 2, then `kernel`
    kernel: torch.Tensor | None = None,  # FIR filter after the upsampling, (kh, kw), whose sum is 4; required if `up`
    # `reference` (one convolution per sample), `fast`, `host` (fast, with BasicSR's FIR) or `auto`
    impl: Implementation = "auto",
) -> torch.Tensor:
    """Convolve each sample with its own style-scaled kernel (StyleGAN2, Eq. 1-3). Raises ShapeError.

    Returns (N, O, H, W), or (N, O, 2 * H, 2 * W) where `up` is true, in the dtype of `x`. Differentiable twice with
    respect to `x`, `weight` and `style`. Under autocasting the demodulation is still computed in float32.
    """
    check_shape("modulated_conv(x)", x, {"N": None, "I": weight.shape[1], "H": None, "W": None})
    check_shape("modulated_conv(style)", style, {"N": x.shape[0], "I": weight.shape[1]})
    convolve = _reference if choose("upfirdn2d", impl, x) == "reference" else _fast
    out = convolve(x, weight, style, demodulate, up)
    return upfirdn2d(out, kernel, pad=blur_padding(weight, kernel), impl=impl) if up else out


def blur_padding(
    weight: torch.Tensor,  # of the transposed convolution, (O, I, k, k)
    kernel: torch.Tensor | None,  # FIR filter that follows it, (kh, kw)
) -> tuple[int, int]:
    """Zeros before and after that bring the 2 * H - 2 + k rows of a transposed convolution to 2 * H."""
    assert kernel is not None, "upsampling needs its FIR kernel"
    surplus = kernel.shape[0] - 2 - (weight.shape[2] - 1)
    return (surplus + 1) // 2 + 1, surplus // 2 + 1


def _convolve(x, weight, up):
    if up:
        return F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (N, O, 2 * H - 2 + k, 2 * W - 2 + k)
    return F.conv2d(x, weight, padding=weight.shape[2] // 2)  # (N, O, H, W)


def _reference(x, weight, style, demodulate, up):
    """Each sample is a group of one convolution, with kernels of its own."""
    own = weight * style[:, None, :, None, None]  # Eq. 1, (N, O, I, k, k)
    if demodulate:
        own = own / (own.square().sum(dim=(2, 3, 4), keepdim=True) + _EPSILON).sqrt()  # Eq. 3
    batch, groups = len(x), x.reshape(1, -1, *x.shape[2:])  # (1, N * I, H, W)
    if up:
        own = own.transpose(1, 2).flatten(0, 1)  # (N * I, O, k, k)
        out = F.conv_transpose2d(groups, own, stride=2, groups=batch)
    else:
        out = F.conv2d(groups, own.flatten(0, 1), padding=weight.shape[2] // 2, groups=batch)
    return out.unflatten(1, (batch, -1))[0]  # (1, N * O, ...) -> (N, O, ...)


def _fast(x, weight, style, demodulate, up):
    """Scale what goes in by the style and what comes out by the demodulation, around one shared convolution."""
    out = _convolve(x * style.to(x.dtype)[:, :, None, None], weight, up)
    if not demodulate:
        return out
    with no_autocast(weight):
        gain = demodulation(kernel_power(weight), style)
    return out * gain.to(out.dtype)[:, :, None, None]


def kernel_power(weight: torch.Tensor) -> torch.Tensor:
    """The sum of squares of each kernel, (O, I, k, k) -> (I, O), in float32 at least."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    return wide.square().sum(dim=(2, 3)).t()


def demodulation(
    power: torch.Tensor,  # of the shared kernels, (I, O), from `kernel_power`
    style: torch.Tensor,  # (N, I)
) -> torch.Tensor:
    """Factors (N, O) that bring each sample's scaled kernels to unit length (Eq. 3), in the dtype of `power`."""
    return (style.to(power.dtype).square() @ power + _EPSILON).rsqrt()
