import itertools

import numpy as np
import pytest
import torch

from gpen_plugin.errors import ShapeError
from gpen_plugin.ops import fir_kernel, upfirdn2d

CASES = [
    (1, 1, (0, 0)),
    (1, 1, (2, 2)),
    (1, 1, (2, 1)),
    (1, 1, (-1, 2)),
    (1, 2, (1, 1)),
    (1, 2, (2, 1)),
    (2, 1, (2, 1)),
    (2, 1, (0, 3)),
    (2, 1, (4, 4)),
    (2, 1, (-1, 1)),
    (3, 2, (2, 1)),
]


def lopsided_kernel(kh=4, kw=3):
    """No two numbers alike, so that a missing or surplus flip shows."""
    return torch.arange(1, kh * kw + 1, dtype=torch.float64).reshape(kh, kw) / 10


def naive(x, kernel, up, down, pad):
    (height, width), (kh, kw) = x.shape, kernel.shape
    stuffed = np.zeros((height * up, width * up))
    stuffed[::up, ::up] = x
    rows, columns = height * up + sum(pad) - kh + 1, width * up + sum(pad) - kw + 1
    out = np.zeros((rows, columns))
    for r, c, i, j in itertools.product(range(rows), range(columns), range(kh), range(kw)):
        y, z = r - pad[0] + i, c - pad[0] + j
        if 0 <= y < height * up and 0 <= z < width * up:
            out[r, c] += stuffed[y, z] * kernel[kh - 1 - i, kw - 1 - j]
    return out[::down, ::down]


@pytest.mark.parametrize("impl", ["reference", "fast"])
@pytest.mark.parametrize("taps", [(4, 3), (4, 4)], ids=str)
@pytest.mark.parametrize(("up", "down", "pad"), CASES)
def test_equals_naive_loops(up, down, pad, taps, impl):
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = lopsided_kernel(*taps)
    out = upfirdn2d(x, kernel, up, down, pad, impl=impl)
    for n, c in itertools.product(range(2), range(3)):
        expected = naive(x[n, c].numpy(), kernel.numpy(), up, down, pad)
        np.testing.assert_allclose(out[n, c].numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("impl", ["reference", "fast"])
@pytest.mark.parametrize(("up", "down", "pad"), CASES)
def test_first_and_second_derivative(up, down, pad, impl):
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    kernel = lopsided_kernel()
    # squared, because the second derivative of a linear op alone is zero
    squared = lambda x: upfirdn2d(x, kernel, up, down, pad, impl=impl).square()  # noqa: E731
    assert torch.autograd.gradcheck(squared, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(squared, (x,), fast_mode=True)


DERIVATIVES = {
    "grad": lambda f, x: torch.func.grad(lambda x: f(x).square().sum())(x),
    "grad of each sample": lambda f, x: torch.func.vmap(torch.func.grad(lambda x: f(x[None]).square().sum()))(x),
    "jacfwd": lambda f, x: torch.func.jacfwd(lambda x: f(x).square())(x),
    "jvp where weights learn": lambda f, x: torch.func.jvp(
        lambda x: f(x * torch.ones((), dtype=x.dtype, requires_grad=True)), (x,), (x,)
    )[1],
    "batched gradients": lambda f, x: torch.autograd.functional.jacobian(f, x, vectorize=True),
}


@pytest.mark.parametrize("kind", DERIVATIVES)
@pytest.mark.parametrize(("up", "down", "pad"), [(1, 1, (2, 1)), (1, 2, (1, 1)), (2, 1, (2, 1))])
def test_other_ways_to_derivatives(up, down, pad, kind):
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, plain = (
        DERIVATIVES[kind](lambda x, impl=impl: upfirdn2d(x, lopsided_kernel(), up, down, pad, impl=impl), x)
        for impl in ("fast", "reference")
    )
    assert ours.abs().max() > 0
    torch.testing.assert_close(ours, plain)


def test_its_derivative_is_compiled():
    def energy(x):
        return upfirdn2d(x, lopsided_kernel().float(), pad=(2, 1)).square().sum()

    x = torch.randn(1, 2, 6, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    compiled = torch.compile(energy, backend="aot_eager", fullgraph=True)
    plain, ours = (torch.autograd.grad(each(x), x)[0] for each in (energy, compiled))
    torch.testing.assert_close(ours, plain)


def test_gradients_keep_their_precision_under_autocast():
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    energy = upfirdn2d(x, fir_kernel((1, 3, 3, 1)), pad=(2, 1)).square().sum()
    (plain,) = torch.autograd.grad(energy, x, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        (cast,) = torch.autograd.grad(energy, x)
    assert torch.equal(plain, cast)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_keeps_the_dtype_even_under_autocast(dtype):
    x = torch.randn(1, 3, 8, 8).to(dtype)
    plain = upfirdn2d(x, fir_kernel((1, 3, 3, 1)), up=2, pad=(2, 1))
    with torch.autocast("cpu", torch.bfloat16):
        cast = upfirdn2d(x, fir_kernel((1, 3, 3, 1)), up=2, pad=(2, 1))
    assert plain.dtype == cast.dtype == dtype
    assert torch.equal(plain, cast)


def test_keeps_channels_last():
    x = torch.randn(2, 8, 8, 8).to(memory_format=torch.channels_last)
    assert upfirdn2d(x, fir_kernel((1, 3, 3, 1)), pad=(2, 1)).is_contiguous(memory_format=torch.channels_last)


def test_doubling_keeps_a_constant_image_inside():
    out = upfirdn2d(torch.ones(1, 1, 6, 6), fir_kernel((1, 3, 3, 1), gain=4.0), up=2, pad=(2, 1))
    assert out.shape == (1, 1, 12, 12)
    torch.testing.assert_close(out[:, :, 2:-2, 2:-2], torch.ones(1, 1, 8, 8))


def test_fir_kernel_is_the_outer_product():
    expected = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 4
    torch.testing.assert_close(fir_kernel([1, 2, 1], gain=4.0), expected)


def test_shape_errors_name_the_dimension():
    with pytest.raises(ShapeError, match=r"upfirdn2d\(x\): got 3 dimensions.*\(N, C, H, W\)"):
        upfirdn2d(torch.zeros(3, 8, 8), torch.ones(4, 4))
    with pytest.raises(ShapeError, match=r"upfirdn2d\(kernel\): got 1 dimensions.*\(kh, kw\)"):
        upfirdn2d(torch.zeros(1, 3, 8, 8), torch.ones(4))
