"""The fast ops equal their references: values, gradients and gradients of gradients, in each dtype and layout."""

import math

import pytest
import torch

from gpen_plugin.ops import bias_act, fir_kernel, force_implementation, modulated_conv, upfirdn2d

BLUR, DOUBLE = fir_kernel((1, 3, 3, 1)), fir_kernel((1, 3, 3, 1), gain=4.0)
OPS = {  # how it is called, and what it takes after x
    "bias_act": (bias_act, [(5,)]),
    "blur": (lambda x: upfirdn2d(x, BLUR, pad=(2, 1)), []),
    "up": (lambda x: upfirdn2d(x, DOUBLE, up=2, pad=(2, 1)), []),
    "down": (lambda x: upfirdn2d(x, BLUR, down=2, pad=(1, 1)), []),
    "modulated_conv": (modulated_conv, [(4, 5, 3, 3), "style"]),
    "modulated_conv to an image": (lambda *given: modulated_conv(*given, demodulate=False), [(3, 5, 1, 1), "style"]),
    "modulated_conv, up": (lambda *given: modulated_conv(*given, up=True, kernel=DOUBLE), [(4, 5, 3, 3), "style"]),
}
# Three sums follow one another: value, gradient, gradient of its square. The roundings of n terms add up like a random
# walk, to sqrt(n) times one. float32 adds up to 3 * 7 * 9 positions in its own precision. bfloat16 is accumulated in
# float32, except over the 4 * 4 taps of a filter on processors without bfloat16 convolutions.
ROUNDINGS = {torch.float32: 3 * math.sqrt(3 * 7 * 9), torch.bfloat16: 3 * math.sqrt(4 * 4)}
STEP = 2.0**-20  # small enough to be linear, large beside the roundings of float64


def inputs_of(op, dtype, layout, shape):
    generator = torch.Generator().manual_seed(0)
    shapes = [shape, *((shape[0], shape[1]) if given == "style" else given for given in OPS[op][1])]
    made = [(4 * torch.randn(each, generator=generator)).round().div(4).to(dtype) for each in shapes]
    # x is an eighth beside the others, so that no sum is zero: at its kink leaky ReLU has two derivatives
    return [made[0].add(1 / 8).to(memory_format=layout), *made[1:]]


def derivatives(op, impl, inputs):
    """Values, gradients by all inputs, and gradients of the gradients' squares, as R1 and path length take them."""
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    with force_implementation(impl):
        out = OPS[op][0](*inputs)
        first = torch.autograd.grad(out.float().square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(each.float().square().sum() for each in first), inputs)
    return out, *first, *second


def effect_of_one_rounding(op, inputs, truth):
    """By how much each result moves, at most, when each input moves by one unit of relative error; in float64."""
    largest = [0.0] * len(truth)
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        signs = [torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1 for tensor in inputs]
        moved = [tensor.double() * (1 + STEP * sign) for tensor, sign in zip(inputs, signs, strict=True)]
        changes = [(a - b).abs().max().item() for a, b in zip(derivatives(op, "reference", moved), truth, strict=True)]
        largest = [max(pair) for pair in zip(largest, changes, strict=True)]
    return [each / STEP for each in largest]


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 5, 8, 8), torch.contiguous_format),
        ((3, 5, 7, 9), torch.channels_last),
        ((2, 5, 3, 6), torch.contiguous_format),
    ],
    ids=["even", "odd, channels last", "narrow"],
)
@pytest.mark.parametrize("dtype", ROUNDINGS, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_both_are_exact_to_rounding_up_to_the_second_derivative(op, dtype, layout, shape):
    inputs = inputs_of(op, dtype, layout, shape)
    truth = derivatives(op, "reference", [tensor.double() for tensor in inputs])
    allowed = [
        ROUNDINGS[dtype] * torch.finfo(dtype).eps / 2 * effect for effect in effect_of_one_rounding(op, inputs, truth)
    ]
    for impl in ("reference", "fast"):
        for exact, given, tolerance in zip(truth, derivatives(op, impl, inputs), allowed, strict=True):
            assert given.dtype == dtype
            assert given.shape == exact.shape
            assert 0 < tolerance < exact.abs().max() / 2, "or zeros would pass"
            assert (given.double() - exact).abs().max().item() <= tolerance


@pytest.mark.parametrize("op", OPS)
def test_the_fast_op_keeps_the_layout(op):
    inputs = inputs_of(op, torch.float32, torch.channels_last, (2, 5, 8, 8))
    with force_implementation("fast"):
        assert OPS[op][0](*inputs).is_contiguous(memory_format=torch.channels_last)
