import pytest
import torch

from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator, _with_deviation
from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.ops import force_implementation

SMALL = {"channel_multiplier": 1, "narrow": 0.03}


def build(size=32, **arguments):
    torch.manual_seed(0)
    return GPENDiscriminator(size, **SMALL, **arguments)


@pytest.mark.parametrize("size", [16, 32, 128])
def test_logits_and_features(size):
    net, x = build(size), torch.randn(2, 3, size, size)
    logits, features = net(x, return_features=True)
    assert logits.shape == (2, 1)
    assert torch.equal(logits, net(x))
    assert [feature.shape[-1] for feature in features] == [size >> i for i in range(len(features))]
    assert features[-1].shape[-1] == 4
    assert torch.equal(features[0], net.stem(x))
    assert torch.equal(features[1], net.blocks[str(size)](features[0]))


@pytest.mark.parametrize(
    ("batch", "largest", "group"), [(1, 4, 1), (4, 4, 4), (8, 4, 4), (6, 4, 3), (7, 4, 1), (4, 8, 4)]
)
def test_deviation_within_groups(batch, largest, group):
    x = torch.randn(batch, 5, 4, 4, generator=torch.Generator().manual_seed(batch))
    out = _with_deviation(x, largest)
    assert torch.equal(out[:, :5], x)
    for n in range(batch):
        # a group holds every (batch / group)-th image
        members = x[n % (batch // group) :: batch // group]
        assert len(members) == group
        expected = (members.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(out[n, 5], expected.expand(4, 4))


def test_group_of_one_ignores_other_images():
    net, x = build(stddev_group=1), torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(net(x), torch.cat([net(x[n : n + 1]) for n in range(3)]))
    assert not torch.allclose(build(stddev_group=3)(x), net(x))


def test_fast_ops_equal_reference_ops():
    net, x = build().double(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    fast = net(x)
    with force_implementation("reference"):
        torch.testing.assert_close(fast, net(x))


def r1(net, x):
    """The squared gradient at the image (R1), which training differentiates again."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    return gradient.square().sum()


@pytest.mark.parametrize("batch", [1, 2])
def test_r1_is_differentiable(batch):
    net, x = build(16).double(), torch.randn(batch, 3, 16, 16, dtype=torch.float64)
    r1(net, x).backward()
    for name in ["stem.weight", "blocks.16.skip.weight", "blocks.8.conv2.weight", "final_conv.weight", "logit.weight"]:
        parameter = net.get_parameter(name)
        direction = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64)).reshape(parameter.shape)
        values = []
        for step in (1e-7, -1e-7):  # so short that no activation crosses its kink on the way
            parameter.data.add_(direction, alpha=step)
            values.append(r1(net, x).item())
            parameter.data.sub_(direction, alpha=step)
        slope = (values[0] - values[1]) / 2e-7
        assert float((parameter.grad * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-8), name


def test_r1_is_finite_for_one_image_in_float32():
    net = build()
    r1(net, torch.randn(1, 3, 32, 32)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_bfloat16_under_autocast():
    net, x = build(), torch.randn(4, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x)
    torch.testing.assert_close(out.float(), net(x), rtol=0, atol=0.1)


def test_bad_arguments_and_input():
    with pytest.raises(OptionError, match="out_size: got 500"):
        GPENDiscriminator(500)
    with pytest.raises(OptionError, match="stddev_group: got 0"):
        build(stddev_group=0)
    with pytest.raises(ShapeError, match=r"x: got W=16 in shape \(1, 3, 32, 16\)"):
        build()(torch.zeros(1, 3, 32, 16))
