import pytest
import torch

from gpen_plugin.errors import OptionError
from gpen_plugin.ops import (
    bias_act,
    dispatch,
    fir_kernel,
    force_implementation,
    modulated_conv,
    upfirdn2d,
    use_host_kernels,
)


@pytest.fixture
def host_calls():
    """Stand-ins for the host's kernels that note how they were called and compute as our references do."""
    calls = []

    def host_upfirdn2d(input, kernel, up=1, down=1, pad=(0, 0)):
        calls.append("upfirdn2d")
        assert kernel.dtype == input.dtype
        return upfirdn2d(input, kernel, up, down, pad, impl="reference")

    def host_bias_act(input, bias, negative_slope=0.2, scale=2**0.5):
        calls.append("bias_act")
        return bias_act(input, bias, negative_slope, scale, impl="reference")

    before = dict(dispatch.HOST_KERNELS)
    use_host_kernels(upfirdn2d=host_upfirdn2d, bias_act=host_bias_act)
    yield calls
    use_host_kernels(**before)


class OnGPU:
    """What `choose` looks at in a CUDA tensor."""

    is_cuda = True

    def __init__(self, dtype):
        self.dtype = dtype


def test_host_kernels_are_called_with_the_hosts_signature(host_calls):
    x, kernel = torch.randn(2, 3, 6, 6), fir_kernel((1, 3, 3, 1)).double()
    torch.testing.assert_close(upfirdn2d(x, kernel, 1, 2, (2, 1), impl="host"), upfirdn2d(x, kernel, 1, 2, (2, 1)))
    torch.testing.assert_close(bias_act(x, torch.ones(3), 0.1, impl="host"), bias_act(x, torch.ones(3), 0.1))
    assert host_calls == ["upfirdn2d", "bias_act"]


def test_modulated_conv_hands_its_filter_to_the_host(host_calls):
    x, weight, style = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 3, 3), torch.randn(2, 3)
    modulated_conv(x, weight, style, up=True, kernel=fir_kernel((1, 3, 3, 1), 4.0), impl="host")
    assert host_calls == ["upfirdn2d"]


@pytest.mark.usefixtures("host_calls")
def test_auto_uses_host_kernels_only_for_cuda_floats():
    assert dispatch.choose("bias_act", "auto", OnGPU(torch.float32)) == "host"
    assert dispatch.choose("bias_act", "auto", OnGPU(torch.bfloat16)) == "fast"
    assert dispatch.choose("bias_act", "auto", torch.zeros(1)) == "fast"


def test_auto_without_host_kernels_is_fast():
    assert dispatch.choose("bias_act", "auto", OnGPU(torch.float32)) == "fast"


def test_missing_host_kernel_has_a_hint():
    with pytest.raises(OptionError, match=r"bias_act\(impl\).*BASICSR_EXT=True"):
        bias_act(torch.zeros(1, 1), torch.zeros(1), impl="host")


def test_unknown_implementation():
    with pytest.raises(OptionError, match="got 'quick'"):
        bias_act(torch.zeros(1, 1), torch.zeros(1), impl="quick")


def chosen_within_a_failing_block():
    with force_implementation("reference"):
        seen = [dispatch.choose("bias_act", impl, torch.zeros(1)) for impl in ("auto", "fast")]
        raise ValueError(*seen)


def test_forcing_holds_within_the_block_only():
    with pytest.raises(ValueError, match=r"\('reference', 'fast'\)"):
        chosen_within_a_failing_block()
    assert dispatch.choose("bias_act", "auto", torch.zeros(1)) == "fast"
