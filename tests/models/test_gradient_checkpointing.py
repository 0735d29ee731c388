"""``train:gradient_checkpointing``: the same training with less memory."""

import copy

import pytest
import torch
from basicsr.models import build_model
from helpers.small_networks import SMALL, built

from gpen_plugin.archs.gpen_arch import GPEN


def trained(options: dict, on: bool) -> dict[str, torch.Tensor]:
    """All weights after two iterations, with R1 (and path length) in each."""
    options = copy.deepcopy(options) | {"is_train": True, "dist": False, "rank": 0, "world_size": 1}
    options["train"] |= {"gradient_checkpointing": on, "net_d_reg_every": 1}
    if "net_g_reg_every" in options["train"]:
        options["train"]["net_g_reg_every"] = 1
    torch.manual_seed(0)
    model = build_model(options)
    batch = {name: torch.rand(2, 3, 16, 16) * 2 - 1 for name in ("gt", "lq")}
    for iteration in (1, 2):
        torch.manual_seed(iteration)  # of the prior's latent codes
        model.feed_data(batch)
        model.optimize_parameters(iteration)
    return {
        f"{net}.{name}": value for net in ("net_g", "net_d") for name, value in getattr(model, net).state_dict().items()
    }


@pytest.mark.parametrize("stage", ["options", "prior_options"])
def test_weights_are_the_same_bits(request, stage):
    options = request.getfixturevalue(stage)
    plain, checkpointed = (trained(options, on) for on in (False, True))
    assert plain.keys() == checkpointed.keys()
    for name, value in plain.items():
        assert torch.equal(value, checkpointed[name]), name


def stored_bytes(net: GPEN) -> int:
    """Bytes of the tensors that a forward pass keeps for the backward pass, without the weights."""
    weights = {parameter.data_ptr() for parameter in net.parameters()}
    stored = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = net(torch.zeros(1, 3, 64, 64))
    assert result.requires_grad
    return sum(stored.values())


def test_features_inside_the_blocks_are_not_stored():
    net = built(lambda: GPEN(64, **SMALL))
    plain = stored_bytes(net)
    for module in net.modules():
        if hasattr(module, "checkpointing"):
            module.checkpointing = True
    assert stored_bytes(net) < plain / 3


def test_nothing_is_computed_twice_without_gradients():
    net, calls = built(lambda: GPEN(16, **SMALL)), []
    net.decoder.checkpointing = net.encoder.checkpointing = True
    net.decoder.blocks["16"].register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        net(torch.zeros(1, 3, 16, 16))
    assert len(calls) == 1
    net(torch.zeros(1, 3, 16, 16)).sum().backward()
    assert len(calls) == 3
