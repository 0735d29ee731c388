"""The fused Adam: the plain one's numbers, whatever a state brings along."""

import copy

import pytest
import torch
from basicsr.models import build_model
from torch import nn

from gpen_plugin.models.adversarial_model import FUSED_ADAM, restore_fused_state


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)).to(memory_format=torch.channels_last)


def fused(net: nn.Module) -> torch.optim.Adam:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.5, 0.99), **FUSED_ADAM)
    optimizer.register_load_state_dict_post_hook(restore_fused_state)
    return optimizer


def train(net: nn.Module, optimizer: torch.optim.Adam, seeds: range) -> None:
    for seed in seeds:
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def contiguous(state: dict) -> dict:
    """As a GPU, whose weights do not have the channels last, would have saved it."""
    state = copy.deepcopy(state)
    for held in state["state"].values():
        held.update({name: value.contiguous() for name, value in held.items()})
    return state


@pytest.mark.parametrize("layout", [copy.deepcopy, contiguous])
def test_a_state_of_the_plain_kernel_goes_on_fused_to_the_same_numbers(layout):
    plain, other = network(), network()
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01, betas=(0.5, 0.99))
    train(plain, optimizer, range(3))
    state, weights = layout(optimizer.state_dict()), copy.deepcopy(plain.state_dict())
    assert state["param_groups"][0]["fused"] is None
    train(plain, optimizer, range(3, 6))
    other.load_state_dict(weights)
    resumed = fused(other)
    resumed.load_state_dict(state)
    train(other, resumed, range(3, 6))
    assert resumed.param_groups[0]["fused"]
    for one, two in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)
        assert resumed.state[two]["exp_avg_sq"].stride() == two.stride()


def test_its_extra_state_goes_on_bit_for_bit():
    whole, other = network(), network()
    optimizer = fused(whole)
    train(whole, optimizer, range(3))
    other.load_state_dict(whole.state_dict())
    resumed = fused(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for net, one in ((whole, optimizer), (other, resumed)):
        train(net, one, range(3, 6))
    for one, two in zip(whole.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_plain_optimizer_takes_its_state():
    net = network()
    optimizer = fused(net)
    train(net, optimizer, range(2))
    plain = torch.optim.Adam(net.parameters())
    plain.load_state_dict(optimizer.state_dict())
    train(net, plain, range(2, 3))
    assert {int(held["step"]) for held in plain.state.values()} == {3}


@pytest.mark.parametrize("given", ["options", "prior_options"])
def test_both_models_train_with_it_and_resume_states_from_before_it(given, request):
    options = request.getfixturevalue(given)
    model = build_model(copy.deepcopy({**options, "is_train": True, "dist": False, "rank": 0, "world_size": 1}))
    model.feed_data({name: torch.rand(2, 3, 16, 16) * 2 - 1 for name in ("lq", "gt")})
    model.optimize_parameters(1)
    for optimizer in model.optimizers:
        before = optimizer.state_dict()
        for group in before["param_groups"]:
            group |= {"fused": None, "foreach": True}
        optimizer.load_state_dict(before)
        assert all(group["fused"] and group["foreach"] is None for group in optimizer.param_groups)
    model.optimize_parameters(2)
    assert model.guard.skipped == 0
