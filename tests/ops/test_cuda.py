import pytest
import torch

from gpen_plugin.ops import HOST_KERNELS, bias_act, fir_kernel, modulated_conv, upfirdn2d

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

OPS = {
    "blur": lambda x, w, s, b, **impl: upfirdn2d(x, fir_kernel((1, 3, 3, 1)).to(x), pad=(2, 1), **impl),
    "up": lambda x, w, s, b, **impl: upfirdn2d(x, fir_kernel((1, 3, 3, 1), 4.0).to(x), up=2, pad=(2, 1), **impl),
    "down": lambda x, w, s, b, **impl: upfirdn2d(x, fir_kernel((1, 3, 3, 1)).to(x), down=2, pad=(1, 1), **impl),
    "bias_act": lambda x, w, s, b, **impl: bias_act(x, b, **impl),
    "modulated_conv": lambda x, w, s, b, **impl: modulated_conv(x, w, s, **impl),
    "modulated_conv up": lambda x, w, s, b, **impl: modulated_conv(
        x, w, s, up=True, kernel=fir_kernel((1, 3, 3, 1), 4.0).to(x), **impl
    ),
}


def derivatives(op, device, impl):
    """The op's result, its gradients and the gradients of their squared length, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 8, 12, 12), (8, 8, 3, 3), (2, 8), (8,)]
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    inputs = [tensor.to(device).requires_grad_() for tensor in inputs]
    out = op(*inputs, impl=impl)
    # squared, because the second derivative of a linear op alone is zero
    first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True, allow_unused=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first if g is not None), inputs, allow_unused=True)
    return [t.detach().cpu() for t in (out, *first, *second) if t is not None]


@pytest.mark.parametrize("impl", ["fast", "reference", "host"])
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_cuda_equals_cpu_to_the_second_derivative(op, impl):
    if impl == "host" and not HOST_KERNELS:
        pytest.skip("needs BasicSR built with its CUDA ops")
    tolerance = 1e-5 if impl == "host" else 1e-9  # the host's kernels compute in float32 whatever they are given
    expected = derivatives(op, "cpu", "reference")
    got = derivatives(op, "cuda", impl)
    assert len(got) == len(expected) > 2
    for a, b in zip(got, expected, strict=True):
        largest = b.abs().max().item() if impl == "host" else 1.0
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * largest)
