import pytest
import torch
from helpers.small_networks import NETWORKS, SMALL, built, rounding_error

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.export.few_passes import fuse_decoder
from gpen_plugin.export.half_precision import to_half_precision

KINDS = {name: make for name, make in NETWORKS.items() if name.startswith("GPEN ")} | {
    "GPEN with another filter": lambda: GPEN(16, resample_kernel=(1, 2, 1), **SMALL),
    "GPEN concat, small input": lambda: GPEN(32, in_size=16, **SMALL),
}


def images(net, count=2):
    return torch.rand(count, 3, net.in_size, net.in_size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_same_images(kind):
    net = built(KINDS[kind]).eval()
    x = images(net)
    assert (fuse_decoder(net)(x) - net(x)).abs().max() < rounding_error(net, x, torch.float32)[0] < 1e-3


@torch.no_grad()
def test_a_network_in_half_precision_stays_in_it():
    net = built(NETWORKS["GPEN concat"]).eval()
    x = images(net)
    half = to_half_precision(net, [x])
    given = fuse_decoder(half)(x)
    assert given.dtype == torch.float32
    assert 0 < (given - net(x)).abs().max() < rounding_error(net, x, torch.float16)[0] < 0.1


@torch.no_grad()
def test_the_network_itself_stays_as_it_is():
    net = built(NETWORKS["GPEN concat"]).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = images(net)
    expected = net(x)
    fuse_decoder(net)(x)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(net(x), expected)


@torch.no_grad()
def test_nothing_as_large_as_features_is_concatenated_but_before_an_upsampling(monkeypatch):
    """With the image's own pixels, only what is read at a quarter of them is put side by side."""
    net = fuse_decoder(built(NETWORKS["GPEN concat"]).eval())
    sizes = []
    cat = torch.cat

    def watched(parts, *rest, **named):
        sizes.append(parts[0].shape[-1])
        return cat(parts, *rest, **named)

    monkeypatch.setattr(torch, "cat", watched)
    net(images(net, 1))
    assert sizes == [4, 8, 16]
