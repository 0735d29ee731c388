"""The host's ops where its extensions were not compiled."""

import pytest
import torch
import torch.nn.functional as F
from basicsr.ops.fused_act import FusedLeakyReLU
from basicsr.ops.upfirdn2d import upfirdn2d
from basicsr.ops.upfirdn2d.upfirdn2d import UpFirDn2d

from gpen_plugin.host import cuda_ops_built
from gpen_plugin.host.patches import OP_PATCHES, patch_missing_ops

pytestmark = pytest.mark.skipif(cuda_ops_built(), reason="the host's extensions are compiled: nothing is lent")


@pytest.fixture(autouse=True)
def lent():
    patch_missing_ops()


def test_biased_activations_are_the_formula_and_have_both_gradients():
    act = FusedLeakyReLU(3).double()
    act.bias.data = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(act(x), F.leaky_relu(x + act.bias.view(1, 3, 1, 1), 0.2) * 2**0.5)
    x.requires_grad_()
    assert torch.autograd.gradcheck(act, x)


def test_resampling_elsewhere_is_what_it_is_on_a_cpu():
    x = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    kernel = torch.tensor([[1.0, 2], [3, 4]])
    torch.testing.assert_close(
        UpFirDn2d.apply(x, kernel, (2, 2), (1, 1), (1, 0, 1, 0)), upfirdn2d(x, kernel, 2, 1, (1, 0))
    )


def test_second_patch_of_missing_ops_changes_nothing():
    before = [getattr(*patch._locate()) for patch in OP_PATCHES]
    patch_missing_ops()
    assert [getattr(*patch._locate()) for patch in OP_PATCHES] == before
    assert all(patch.applied() for patch in OP_PATCHES)
    assert not cuda_ops_built()
