import copy
import math

import pytest
import torch
import torch._inductor.config

from gpen_plugin.errors import ShapeError
from gpen_plugin.ops import bias_act


@pytest.mark.parametrize("impl", ["reference", "fast"])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_equals_naive_loops(shape, impl):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bias = torch.tensor([0.5, -0.25, 1.0], dtype=torch.float64)
    out = bias_act(x, bias, negative_slope=0.1, scale=3.0, impl=impl)
    for n in range(2):
        for c in range(3):
            for got, value in zip(out[n, c].flatten().tolist(), x[n, c].flatten().tolist(), strict=True):
                shifted = value + float(bias[c])
                assert got == pytest.approx(3.0 * (shifted if shifted >= 0 else 0.1 * shifted), abs=1e-12)


@pytest.mark.parametrize("impl", ["reference", "fast"])
def test_defaults_are_stylegan2s(impl):
    out = bias_act(torch.tensor([[1.0, -1.0]]), torch.zeros(2), impl=impl)
    torch.testing.assert_close(out, torch.tensor([[math.sqrt(2), -0.2 * math.sqrt(2)]]))


@pytest.mark.parametrize("impl", ["reference", "fast"])
def test_first_and_second_derivative(impl):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, generator=generator, requires_grad=True)
    squared = lambda x, bias: bias_act(x, bias, impl=impl).square()  # noqa: E731
    assert torch.autograd.gradcheck(squared, (x, bias), fast_mode=True)
    assert torch.autograd.gradgradcheck(squared, (x, bias), fast_mode=True)


@pytest.mark.parametrize("impl", ["reference", "fast"])
def test_at_its_kink_the_slope_is_the_negative_one(impl):
    """StyleGAN2's choice. A noise weight begins at zero, where it decides how fast that weight learns."""
    x = torch.zeros(1, 3, requires_grad=True)
    bias_act(x, torch.zeros(3), impl=impl).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((1, 3), 0.2 * math.sqrt(2)))


@pytest.mark.parametrize("with_grad", [True, False])
@pytest.mark.parametrize("impl", ["reference", "fast"])
def test_leaves_its_input_alone(impl, with_grad):
    x = torch.randn(2, 3, 4, 4, requires_grad=with_grad)
    before = x.detach().clone()
    bias_act(x, torch.ones(3), impl=impl)
    assert torch.equal(x, before)


def test_keeps_bfloat16_with_a_float32_bias():
    assert bias_act(torch.ones(1, 3, 2, 2, dtype=torch.bfloat16), torch.zeros(3)).dtype == torch.bfloat16


def test_shape_error_names_the_dimension():
    with pytest.raises(ShapeError, match=r"bias_act\(bias\): got C=4 .*expected \(C=3\)"):
        bias_act(torch.zeros(1, 3, 2, 2), torch.zeros(4))


def test_the_inductors_graph_after_a_matrix_product():
    """PyTorch's inductor fused the two wrongly: the mapping network was another one. Its graph is run as it is, without
    the seconds that a C++ compiler takes."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator) for shape in ((2, 16), (8, 16), (8,))]
    graphs = []

    def layer(x, weight, bias):
        return bias_act(torch.nn.functional.linear(x * 0.25, weight), bias)

    def keep(graph):
        graphs.append(copy.deepcopy(graph))
        raise KeyboardInterrupt  # other errors are wrapped, and differently in each version

    with (
        torch._inductor.config.patch(post_grad_custom_post_pass=keep, compile_threads=1),
        pytest.raises(KeyboardInterrupt),
    ):
        torch.compile(layer, backend="inductor")(*inputs)
    torch.compiler.reset()
    fused = torch.fx.GraphModule(torch.nn.Module(), graphs[0])
    shapes = [tuple(node.meta["val"].shape) for node in fused.graph.find_nodes(op="placeholder")]
    (result,) = fused(*sorted(inputs, key=lambda tensor: shapes.index(tuple(tensor.shape))))
    torch.testing.assert_close(result, layer(*inputs))
