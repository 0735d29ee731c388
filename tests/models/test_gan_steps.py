"""The steps against hand-made gradients, on a discriminator small enough to differentiate on paper."""

import pytest
import torch
from basicsr.losses.gan_loss import GANLoss
from helpers.linear_discriminator import LinearDiscriminator
from torch import nn
from torch.nn import functional as F

from gpen_plugin.models.gan_steps import NaNGuard, Part, discriminator_step, generator_step, path_length_step, r1_step


@pytest.fixture
def gan():
    return GANLoss("wgan_softplus")


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 2, 2, generator=generator) for _ in range(2)]


def test_generator_step_by_hand(gan, images):
    net_d, parameter = LinearDiscriminator(), nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter, *net_d.parameters()], lr=1.0)
    losses = generator_step(net_d, optimizer, [Part(images[1], images[0] + parameter)], gan=gan, guard=NaNGuard())
    logits = 0.3 * images[0].sum(dim=(1, 2, 3)) + 0.1
    slope = -(torch.sigmoid(-logits) * 0.3 * 12).mean()
    assert losses["l_g_gan"].item() == pytest.approx(F.softplus(-logits).mean().item(), rel=1e-5)
    assert losses["grad_norm_g"].item() == pytest.approx(abs(slope.item()), rel=1e-4)
    assert parameter.item() == pytest.approx(-slope.item(), rel=1e-4)


def test_generator_step_leaves_the_discriminator_alone(gan, images):
    net_d, parameter = LinearDiscriminator(), nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam([parameter, *net_d.parameters()], lr=0.1)
    generator_step(net_d, optimizer, [Part(images[1], images[0] + parameter)], gan=gan, guard=NaNGuard())
    assert parameter.item() != 0
    assert net_d.w.item() == pytest.approx(0.3)
    assert all(weight.requires_grad and weight.grad is None for weight in net_d.parameters())


def test_discriminator_step_by_hand(gan, images):
    fake, real = images
    net_d, parameter = LinearDiscriminator(), nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([parameter, *net_d.parameters()], lr=1.0)
    losses = discriminator_step(net_d, optimizer, [Part(real, fake * parameter)], gan=gan, guard=NaNGuard())
    real_logits = 0.3 * real.sum(dim=(1, 2, 3)) + 0.1
    fake_logits = 0.3 * fake.sum(dim=(1, 2, 3)) + 0.1
    slope = -torch.sigmoid(-real_logits).mean() + torch.sigmoid(fake_logits).mean()
    assert net_d.b.item() == pytest.approx(0.1 - slope.item(), rel=1e-4)
    assert parameter.item() == 1
    expected = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    assert losses["l_d"].item() == pytest.approx(expected.item(), rel=1e-5)
    gradient_of_w = -(torch.sigmoid(-real_logits) * (real_logits - 0.1) / 0.3).mean()
    gradient_of_w += (torch.sigmoid(fake_logits) * (fake_logits - 0.1) / 0.3).mean()
    assert losses["grad_norm_d"].item() == pytest.approx(torch.hypot(gradient_of_w, slope).item(), rel=1e-4)
    assert losses["d_sign_real"].item() == pytest.approx(real_logits.sign().mean().item())
    assert losses["out_d_real"].item() == pytest.approx(real_logits.mean().item(), rel=1e-5)


def test_r1_step_carries_the_weight_of_the_iterations_it_stands_for(images):
    """|grad D|^2 = 12 w^2, so the step is 16 * 10 / 2 * 24 w; the bias stays, with a gradient of zero."""
    net_d = LinearDiscriminator()
    optimizer = torch.optim.SGD(net_d.parameters(), lr=1e-4)
    losses = r1_step(net_d, optimizer, [Part(images[1])], gamma=10, every=16, guard=NaNGuard())
    assert losses["l_d_r1"].item() == pytest.approx(12 * 0.3**2, rel=1e-5)
    assert net_d.w.item() == pytest.approx(0.3 - 1e-4 * 16 * 10 / 2 * 24 * 0.3, rel=1e-5)
    assert net_d.b.grad.item() == 0


def test_path_length_step_by_hand():
    """Image = a * w in every pixel: J^T y = a * sum(y), so the lengths are |a * sum(y)| / 2 in a 2 x 2 image."""
    a = nn.Parameter(torch.tensor(0.5))
    latents = torch.ones(3, 1, 1, requires_grad=True)  # (N, codes, F)
    directions = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD([a], lr=1e-3)

    def draw():
        return (a * latents[:, :, :, None]).expand(3, 3, 2, 2), latents

    losses, mean = path_length_step(
        [(draw, directions, 1.0)], optimizer, torch.tensor(2.0), weight=2, every=4, guard=NaNGuard(), decay=0.25
    )
    slopes = directions.sum(dim=(1, 2, 3)).abs() / 2
    lengths = 0.5 * slopes
    assert mean.item() == pytest.approx(0.75 * 2 + 0.25 * lengths.mean().item(), rel=1e-5)
    assert losses["path_length"].item() == pytest.approx(lengths.mean().item(), rel=1e-5)
    assert losses["l_g_path"].item() == pytest.approx((lengths - mean).square().mean().item(), rel=1e-5)
    slope = 4 * 2 * (2 * (lengths - mean) * slopes).mean()
    assert a.item() == pytest.approx(0.5 - 1e-3 * slope.item(), rel=1e-5)


def test_a_broken_path_length_leaves_its_mean():
    latents = torch.ones(1, 1, 1, requires_grad=True)
    a = nn.Parameter(torch.tensor(float("nan")))
    _, mean = path_length_step(
        [(lambda: ((a * latents[:, :, :, None]).expand(1, 3, 2, 2), latents), torch.ones(1, 3, 2, 2), 1.0)],
        torch.optim.SGD([a], lr=1.0),
        torch.tensor(2.0),
        weight=2,
        every=4,
        guard=NaNGuard(),
    )
    assert mean.item() == 2
