import copy

import pytest
import torch
from small_networks import NETWORKS, SMALL, built

from gpen_plugin.archs import GPEN, PSP, GPENPrior
from gpen_plugin.archs.folding import fold
from gpen_plugin.ops import force_implementation

KINDS = {
    **NETWORKS,
    "PSP": lambda: PSP(32, **SMALL),
    "GPEN of three taps": lambda: GPEN(32, resample_kernel=(1, 2, 1), **SMALL),
    "GPEN of five taps": lambda: GPEN(32, noise_mode="add", resample_kernel=(1, 4, 6, 4, 1), **SMALL),
    "GPEN that scales weights": lambda: GPEN(64, num_style_feat=8, num_mlp=2, channel_multiplier=1, narrow=0.01),
    "GPEN that scales features": lambda: GPEN(16, num_style_feat=8, num_mlp=2, channel_multiplier=1, narrow=0.2),
}


def arguments(net, batch):
    generator = torch.Generator().manual_seed(batch)
    if isinstance(net, GPENPrior):
        noise = net.make_noise(batch, generator)
        return torch.randn(batch, net.num_style_feat, generator=generator), noise
    return (torch.rand(batch, 3, net.out_size, net.out_size, generator=generator) * 2 - 1,)


def assert_near(ours, theirs, tolerance):
    largest = theirs.abs().max().item()
    assert largest > 0.01, "numbers near zero would prove nothing"
    assert (ours - theirs).abs().max().item() <= tolerance * largest


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_gives_the_numbers_of_the_reference(kind, batch, layout):
    net = built(KINDS[kind]).eval().to(memory_format=layout)
    inputs = arguments(net, batch)
    with force_implementation("reference"), torch.no_grad():
        expected = net(*inputs)
    assert_near(fold(net)(*inputs), expected, 1e-5)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("GPEN")])
def test_bfloat16_stays_near(kind, batch):
    net = built(KINDS[kind]).eval().to(memory_format=torch.channels_last)
    inputs = arguments(net, batch)
    with torch.no_grad():
        expected = net(*inputs)
    given = fold(net, torch.bfloat16)(*inputs)
    assert given.dtype == torch.float32
    assert 0 < (given - expected).square().mean().sqrt() < 0.02 * expected.square().mean().sqrt()


def test_gives_what_else_is_asked_for():
    net = built(KINDS["GPEN concat"]).eval()
    (lq,) = arguments(net, 2)
    ours, theirs = (one(lq, return_latents=True, return_rgbs=True) for one in (fold(net), net))
    assert_near(ours.latents, theirs.latents.detach(), 1e-5)
    assert len(ours.rgbs) == len(theirs.rgbs) == 4
    for mine, yours in zip(ours.rgbs, theirs.rgbs, strict=True):
        assert_near(mine, yours.detach(), 1e-5)


def test_each_resolution_is_one_whose_weight_or_features_are_scaled():
    """Otherwise the networks above would test one way only."""
    ways = {}
    for kind in ("GPEN that scales weights", "GPEN that scales features"):
        net = fold(built(KINDS[kind]))
        ways[kind] = []
        for conv in (conv for block in net.decoder.blocks.values() for conv in block.convs):
            conv.register_forward_pre_hook(
                lambda conv, given, kind=kind: ways[kind].append(conv._has_few_pixels(given[0]))
            )
        net(torch.zeros(1, 3, net.out_size, net.out_size))
    assert ways["GPEN that scales weights"].count(False) >= 6
    assert all(ways["GPEN that scales features"])


def test_leaves_the_network_and_its_input_as_they_are():
    net = built(KINDS["GPEN add, small input"])
    before, inputs = copy.deepcopy(net.state_dict()), arguments(net, 2)
    lq = inputs[0].clone()
    folded = fold(net)
    first = folded(*inputs)
    assert torch.equal(folded(*inputs), first), "what is written in place must not be what the next call reads"
    assert torch.equal(inputs[0], lq)
    folded.to(torch.float64)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training
    assert not folded.training


def test_noise_that_is_given_is_not_written_to():
    net = built(NETWORKS["GPENPrior concat"])
    z, noise = arguments(net, 2)
    kept = [one.clone() for one in noise]
    fold(net)(z, noise)
    assert all(torch.equal(one, before) for one, before in zip(noise, kept, strict=True))


def test_cannot_learn():
    folded = fold(built(KINDS["GPEN concat"]))
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert not folded(torch.zeros(1, 3, 32, 32, requires_grad=True)).requires_grad


def test_folding_again_changes_nothing():
    net = fold(built(KINDS["GPEN concat"]))
    inputs = arguments(net, 1)
    assert torch.equal(fold(net)(*inputs), net(*inputs))
