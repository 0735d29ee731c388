import itertools

import pytest
import torch
import torch.nn.functional as F

from gpen_plugin.errors import ShapeError
from gpen_plugin.ops import fir_kernel, modulated_conv

CASES = list(itertools.product([True, False], [False, True], [1, 3]))


def example(size=3, dtype=torch.float64, batch=2):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, dtype=dtype, generator=generator)  # noqa: E731
    return draw(batch, 3, 4, 4), draw(2, 3, size, size), draw(batch, 3)


def kernel_for(up):
    return fir_kernel((1, 3, 3, 1), gain=4.0).double() if up else None


@pytest.mark.parametrize("impl", ["reference", "fast"])
@pytest.mark.parametrize("demodulate", [True, False])
def test_equals_naive_loops(demodulate, impl):
    x, weight, style = example()
    out = modulated_conv(x, weight, style, demodulate=demodulate, impl=impl)
    padded = F.pad(x, (1, 1, 1, 1))
    for n, o in itertools.product(range(2), range(2)):
        own = torch.stack([weight[o, i] * style[n, i] for i in range(3)])
        if demodulate:
            own = own / (sum(float(value) ** 2 for value in own.flatten()) + 1e-8) ** 0.5
        for r, c in itertools.product(range(4), range(4)):
            expected = float((padded[n, :, r : r + 3, c : c + 3] * own).sum())
            assert float(out[n, o, r, c]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("demodulate", "up", "size"), CASES)
def test_fast_equals_reference(demodulate, up, size):
    x, weight, style = example(size)
    arguments = {"demodulate": demodulate, "up": up, "kernel": kernel_for(up)}
    fast = modulated_conv(x, weight, style, impl="fast", **arguments)
    assert fast.shape == ((2, 2, 8, 8) if up else (2, 2, 4, 4))
    torch.testing.assert_close(fast, modulated_conv(x, weight, style, impl="reference", **arguments))


@pytest.mark.parametrize("taps", [(1, 1), (1, 2, 1), (1, 3, 3, 1), (1, 4, 6, 4, 1)])
def test_size_doubles_with_any_filter(taps):
    x, weight, style = example()
    assert modulated_conv(x, weight, style, up=True, kernel=fir_kernel(taps, 4.0)).shape == (2, 2, 8, 8)


@pytest.mark.parametrize("impl", ["reference", "fast"])
@pytest.mark.parametrize(("demodulate", "up", "size"), [(True, True, 3), (True, False, 3), (False, False, 1)])
def test_first_and_second_derivative(demodulate, up, size, impl):
    inputs = tuple(tensor.requires_grad_() for tensor in example(size, batch=2))
    inputs = (inputs[0][:, :, :2, :2].detach().requires_grad_(), *inputs[1:])
    op = lambda x, w, s: modulated_conv(x, w, s, demodulate=demodulate, up=up, kernel=kernel_for(up), impl=impl)  # noqa: E731
    assert torch.autograd.gradcheck(op, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(op, inputs, fast_mode=True)


def test_demodulation_stays_in_float32_under_autocast():
    x, weight, style = example(dtype=torch.float32)
    exact = modulated_conv(x, weight, style)
    with torch.autocast("cpu", torch.bfloat16):
        cast = modulated_conv(x, weight, style * 1e4)
    assert cast.dtype == torch.bfloat16
    torch.testing.assert_close(cast.float(), exact, rtol=0, atol=0.05)


def test_shape_errors_name_the_dimension():
    x, weight, style = example()
    with pytest.raises(ShapeError, match=r"modulated_conv\(style\): got I=2 .*expected \(N=2, I=3\)"):
        modulated_conv(x, weight, style[:, :2])
    with pytest.raises(ShapeError, match=r"modulated_conv\(style\): got N=1 "):
        modulated_conv(x, weight, style[:1])
    with pytest.raises(ShapeError, match=r"modulated_conv\(x\): got I=2 .*expected \(N, I=3, H, W\)"):
        modulated_conv(x[:, :2], weight, style)
