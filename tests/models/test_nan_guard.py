"""Steps that are not finite: left out, counted, and in the end said."""

import pytest
import torch
from torch import nn

from gpen_plugin.errors import TrainingError
from gpen_plugin.models.gan_steps import NaNGuard


@pytest.fixture
def weight():
    return nn.Parameter(torch.tensor([1.0, 2.0]))


def step(guard, weight, gradient, name="g", **losses):
    optimizer = torch.optim.SGD([weight], lr=1.0)
    weight.grad = torch.tensor(gradient)
    return guard.step(name, optimizer, {key: torch.tensor(value) for key, value in losses.items()})


def test_a_finite_step_is_taken_and_its_norm_returned(weight):
    guard = NaNGuard()
    assert step(guard, weight, [3.0, 4.0], l_g_gan=1.0).item() == pytest.approx(5)
    assert weight.tolist() == [-2, -2]
    assert guard.skipped == 0


@pytest.mark.parametrize(
    ("gradient", "loss"), [([1.0, float("nan")], 1.0), ([float("inf"), 0.0], 1.0), ([1.0, 1.0], float("inf"))]
)
def test_a_step_that_is_not_finite_is_left_out(weight, gradient, loss):
    guard = NaNGuard()
    step(guard, weight, gradient, l_g_gan=loss)
    assert weight.tolist() == [1, 2]
    assert weight.grad is None
    assert guard.skipped == 1


def test_so_many_in_a_row_end_the_training_and_the_first_is_named(weight):
    guard = NaNGuard(patience=3)
    nan = float("nan")
    step(guard, weight, [nan, nan], l_g_gan=1.0, l_g_feat=nan)
    step(guard, weight, [0.0, 0.0], "d", l_d=1.0)  # a good step of D does not hide the generator's
    step(guard, weight, [nan, nan], l_g_gan=nan)
    with pytest.raises(
        TrainingError, match=r"nonfinite_patience: 3: 3 steps in a row .* l_g_feat \(nan\) was the first"
    ):
        step(guard, weight, [nan, nan], l_g_gan=nan)


def test_a_good_step_in_between_starts_the_count_again(weight):
    guard = NaNGuard(patience=2)
    for _ in range(3):
        step(guard, weight, [float("nan")] * 2, l_g_gan=1.0)
        step(guard, weight, [0.0, 0.0], l_g_gan=1.0)
    assert guard.skipped == 3


def test_patience_0_never_ends(weight):
    guard = NaNGuard(patience=0)
    for _ in range(30):
        step(guard, weight, [float("nan")] * 2)
    assert guard.skipped == 30


def test_counts_survive_a_resumption(weight):
    guard, other = NaNGuard(patience=2), NaNGuard(patience=2)
    step(guard, weight, [float("nan")] * 2)
    other.load_state_dict(guard.state_dict())
    with pytest.raises(TrainingError, match="2 steps in a row"):
        step(other, weight, [float("nan")] * 2)
