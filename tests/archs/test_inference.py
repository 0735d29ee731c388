import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers.small_networks import NETWORKS, SMALL, built, rounding_error
from torch.utils._pytree import tree_map

from gpen_plugin.archs.gan_prior_arch import GANBlock, GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.inference import FusedConv2d, FusedStyledConv, FusedToRGB, fuse, memory_format_of
from gpen_plugin.archs.psp_arch import PSP
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


@pytest.mark.parametrize("kind", KINDS)
def test_matches_the_reference(kind):
    net = built(KINDS[kind]).eval()
    inputs = arguments(net, 3)
    bound, _ = rounding_error(net, inputs[0], torch.float32, *inputs[1:])
    for batch, layout in ((1, torch.contiguous_format), (3, torch.channels_last)):
        net.to(memory_format=layout)
        given = tree_map(lambda tensor, batch=batch: tensor[:batch], inputs)
        with force_implementation("reference"), torch.no_grad():
            expected = net(*given)
        assert bound < 1e-4 * expected.abs().max()
        for traceable in (False, True):
            assert (fuse(net, traceable=traceable)(*given) - expected).abs().max() <= bound, (batch, traceable)


@pytest.mark.parametrize("batch", [1, 2])
def test_features_stay_channels_last(batch):
    """Every convolution would have to copy features of another layout."""
    net = fuse(built(KINDS["GPEN concat"]).eval().to(memory_format=torch.channels_last))
    layouts = {}
    for name, module in net.named_modules():
        if isinstance(module, (FusedConv2d, FusedStyledConv, FusedToRGB)):
            module.register_forward_hook(
                lambda module, given, result, name=name: layouts.update({name: memory_format_of(result)})
            )
    net(torch.zeros(batch, 3, net.out_size, net.out_size).contiguous(memory_format=torch.channels_last))
    assert len(layouts) > 10
    assert set(layouts.values()) == {torch.channels_last}, layouts


def test_traceable_form_concatenates_only_before_upsampling(monkeypatch):
    """Side by side are only features that a transposed convolution reads, at a quarter of the image's pixels."""
    net = fuse(built(NETWORKS["GPEN concat"]).eval(), traceable=True)
    sizes = []
    cat = torch.cat

    def record(parts, *rest, **named):
        sizes.append(parts[0].shape[-1])
        return cat(parts, *rest, **named)

    monkeypatch.setattr(torch, "cat", record)
    net(torch.zeros(1, 3, 32, 32))
    assert sizes == [4, 8, 16]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("GPEN")])
def test_bfloat16_stays_near(kind):
    net = built(KINDS[kind]).eval().to(memory_format=torch.channels_last)
    inputs = arguments(net, 3)
    with torch.no_grad():
        expected = net(*inputs)
    given = fuse(net, torch.bfloat16)(*inputs)
    assert given.dtype == torch.float32
    assert 0 < (given - expected).square().mean().sqrt() < 0.02 * expected.square().mean().sqrt()


def test_latents_and_rgbs():
    net = built(KINDS["GPEN concat"]).eval()
    (lq,) = arguments(net, 2)
    ours, theirs = (one(lq, return_latents=True, return_rgbs=True) for one in (fuse(net), net))
    assert_near(ours.latents, theirs.latents.detach(), 1e-5)
    assert len(ours.rgbs) == len(theirs.rgbs) == 4
    for mine, yours in zip(ours.rgbs, theirs.rgbs, strict=True):
        assert_near(mine, yours.detach(), 1e-5)


def test_networks_above_cover_both_branches():
    branches = {}
    for kind in ("GPEN that scales weights", "GPEN that scales features"):
        net = fuse(built(KINDS[kind]))
        branches[kind] = []
        for conv in (conv for block in net.decoder.blocks.values() for conv in block.convs):
            conv.register_forward_pre_hook(
                lambda conv, given, kind=kind: branches[kind].append(conv._scales_features(given[0]))
            )
        net(torch.zeros(1, 3, net.out_size, net.out_size))
    assert branches["GPEN that scales weights"].count(False) >= 6
    assert all(branches["GPEN that scales features"])


def test_network_and_input_are_unchanged():
    net = built(KINDS["GPEN add, small input"])
    before, inputs = copy.deepcopy(net.state_dict()), arguments(net, 2)
    lq = inputs[0].clone()
    fused = fuse(net)
    first = fused(*inputs)
    assert torch.equal(fused(*inputs), first), "what is written in place must not be what the next call reads"
    assert torch.equal(inputs[0], lq)
    fused.to(torch.float64)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training
    assert not fused.training


@pytest.mark.parametrize("kind", KINDS)
def test_copy_has_weights_of_its_own(kind):
    net = built(KINDS[kind])
    fused, inputs = fuse(net), arguments(net, 1)
    before = fused(*inputs)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    assert torch.equal(fused(*inputs), before)


def test_given_noise_is_not_overwritten():
    net = built(NETWORKS["GPENPrior concat"])
    z, noise = arguments(net, 2)
    kept = [one.clone() for one in noise]
    fuse(net)(z, noise)
    assert all(torch.equal(one, before) for one, before in zip(noise, kept, strict=True))


@pytest.mark.parametrize("batch", [0, 3])
@pytest.mark.parametrize("kind", ["GPENPrior concat", "GPENPrior add"])
def test_batch_shares_noise_of_one(kind, batch):
    net = built(NETWORKS[kind]).eval()
    z = torch.randn(batch, net.num_style_feat, generator=torch.Generator().manual_seed(0))
    shared = net.make_noise(1, torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net(z, shared)
    given = fuse(net)(z, shared)
    assert given.shape == (batch, 3, net.out_size, net.out_size)
    if batch:
        assert (given - expected).abs().max() <= rounding_error(net, z, torch.float32, shared)[0] < 1e-3


def test_empty_batch():
    assert fuse(built(KINDS["GPEN concat"]))(torch.zeros(0, 3, 32, 32)).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_keeps_the_precision(kind):
    fused = fuse(built(KINDS[kind]))
    inputs = arguments(fused, 2)
    plain = fused(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        cast = fused(*inputs)
    assert_near(cast, plain, 0.02)  # what is not fused, such as the sums of an encoder's pyramid, may be cast


def test_restyle():
    net = built(KINDS["GPEN concat"]).eval()
    (lq,) = arguments(net, 2)
    with torch.no_grad():
        expected = net(lq, restyle=lambda latents: latents / 2)
    assert_near(fuse(net)(lq, restyle=lambda latents: latents / 2), expected, 1e-5)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_copies_and_pickles(again):
    fused = fuse(built(KINDS["PSP"]))
    inputs = arguments(built(KINDS["PSP"]), 1)
    assert torch.equal(again(fused)(*inputs), fused(*inputs))


def test_threads_share_it():
    fused = fuse(built(KINDS["GPEN that scales weights"]))
    batches = torch.rand(8, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = [fused(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        for given, wanted in zip(threads.map(fused, batches), expected, strict=True):
            assert torch.equal(given, wanted)


def test_hooks_of_the_copy_do_not_reach_the_network():
    net = built(KINDS["GPEN concat"])
    seen = []
    fuse(net).decoder.register_forward_pre_hook(lambda *given: seen.append(given))
    net(torch.zeros(1, 3, 32, 32))
    assert not seen


class SkippingBlock(GANBlock):
    """Reads its first convolution's features twice, which `GANBlock` does not."""

    def forward(self, x, latents, noise, earlier):
        first = self.conv0(x, latents[:, 0], noise)
        x = self.conv1(first, latents[:, 1], noise) + first
        return x, self.to_rgb(x, latents[:, -1], earlier)


def test_block_of_another_class_reads_features_twice():
    block = built(lambda: SkippingBlock(4, 4, 8, "add", (1, 3, 3, 1))).eval()
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator) for shape in ((2, 4, 8, 8), (2, 3, 8), (2, 4, 16, 16))]
    with torch.no_grad():
        expected, _ = block(*inputs, None)
    assert_near(fuse(block)(*inputs, None)[0], expected, 1e-5)


def test_result_needs_no_gradient():
    fused = fuse(built(KINDS["GPEN concat"]))
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert not fused(torch.zeros(1, 3, 32, 32, requires_grad=True)).requires_grad


def test_fusing_twice_changes_nothing():
    net = fuse(built(KINDS["GPEN concat"]))
    inputs = arguments(net, 1)
    assert torch.equal(fuse(net)(*inputs), net(*inputs))
