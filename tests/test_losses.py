import math

import pytest
import torch

from gpen_plugin.errors import OptionError
from gpen_plugin.losses import DiscriminatorFeatureMatchingLoss, r1_penalty


def features(*values, shape=(2, 3, 4, 4)):
    return [torch.full(shape, float(value)) for value in values]


@pytest.mark.parametrize(
    ("norm", "expected"),
    [("l2", (1 + 3) * math.sqrt(48)), ("rms", 1 + 3), ("l1", 1 + 3), ("mse", 1 + 9)],
)
def test_closed_form(norm, expected):
    """Constant differences of 1 and 3 in two layers of 48 elements."""
    loss = DiscriminatorFeatureMatchingLoss(loss_weight=0.5, norm=norm)
    assert loss(features(3, 2), features(2, -1)).item() == pytest.approx(0.5 * expected)


def test_expectation_is_over_samples_and_sum_over_layers():
    fake = [torch.tensor([[3.0, 4.0], [0.0, 0.0]]).reshape(2, 2, 1, 1), torch.ones(2, 1, 1, 1)]
    real = [torch.zeros(2, 2, 1, 1), torch.zeros(2, 1, 1, 1)]
    assert DiscriminatorFeatureMatchingLoss()(fake, real).item() == pytest.approx((5 + 0) / 2 + 1)


@pytest.mark.parametrize(("layers", "expected"), [("all", 1 + 2 + 4), ([0], 1), ([1, -1], 2 + 4)])
def test_layers(layers, expected):
    loss = DiscriminatorFeatureMatchingLoss(norm="l1", layers=layers)
    assert loss(features(1, 2, 4), features(0, 0, 0)).item() == pytest.approx(expected)


def test_real_features_are_detached_and_the_gradient_at_equality_is_finite():
    fake, real = [torch.ones(1, 2, 2, 2, requires_grad=True)], [torch.ones(1, 2, 2, 2, requires_grad=True)]
    DiscriminatorFeatureMatchingLoss()(fake, real).backward()
    assert real[0].grad is None
    assert torch.isfinite(fake[0].grad).all()


def test_wrong_arguments_name_the_way_out():
    with pytest.raises(OptionError, match="one of l2, rms, l1, mse"):
        DiscriminatorFeatureMatchingLoss(norm="L2")
    with pytest.raises(OptionError, match=r"layers: got \[3\]; expected numbers from 0 to 1"):
        DiscriminatorFeatureMatchingLoss(layers=[3])(features(1, 2), features(0, 0))


def test_r1_penalty_of_a_quadratic():
    """D(x) = a |x|^2 / 2 has the gradient a x: the penalty is a^2 |x|^2, its derivative by a is 2 a |x|^2."""
    x = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    a = torch.tensor(1.5, requires_grad=True)
    penalty = r1_penalty(a * x.square().sum(dim=(1, 2, 3)) / 2, x)
    norms = x.detach().square().sum(dim=(1, 2, 3)).mean()
    assert penalty.item() == pytest.approx(1.5**2 * norms.item(), rel=1e-5)
    penalty.backward()
    assert a.grad.item() == pytest.approx(2 * 1.5 * norms.item(), rel=1e-5)
