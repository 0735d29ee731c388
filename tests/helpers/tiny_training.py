"""A few iterations of a `RestorationGANModel` on random pairs."""

import copy

import torch
from basicsr.models import build_model


def tiny_training(options: dict, *, iterations: int = 2, size: int = 32, ref: bool = False):
    """The model after its iterations. Most parameters of both networks have moved, and all losses are finite."""
    torch.manual_seed(0)
    given = {**copy.deepcopy(options), "is_train": True, "dist": False, "rank": 0, "world_size": 1}
    model = build_model(given)
    low, high = model.value_range
    nets = (model.net_g, model.net_d)
    before = [[parameter.detach().clone() for parameter in net.parameters()] for net in nets]
    for iteration in range(1, iterations + 1):
        names = ("lq", "gt", "ref") if ref else ("lq", "gt")
        model.feed_data({name: low + (high - low) * torch.rand(2, 3, size, size) for name in names})
        model.optimize_parameters(iteration)
        assert all(value.isfinite() for value in model.losses.values()), model.losses
    for net, old in zip(nets, before, strict=True):
        moved = [not torch.equal(a, b) for a, b in zip(net.parameters(), old, strict=True)]
        assert sum(moved) > 0.7 * len(moved)  # a bias before a normalization has no gradient
    model.test()
    assert model.get_current_visuals()["result"].shape == (2, 3, size, size)
    return model
