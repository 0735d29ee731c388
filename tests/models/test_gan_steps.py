"""The steps against hand-made gradients, on a discriminator small enough to differentiate on paper."""

import pytest
import torch
from basicsr.losses.gan_loss import GANLoss
from torch import nn
from torch.nn import functional as F

from gpen_plugin.models.gan_steps import discriminator_step, generator_step, r1_step


class LinearDiscriminator(nn.Module):
    """D(x) = w * sum(x) + b, with x itself as its one feature."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.3))
        self.b = nn.Parameter(torch.tensor(0.1))

    def forward(self, x, return_features=False):
        logits = self.w * x.sum(dim=(1, 2, 3)).unsqueeze(1) + self.b  # (N, 1)
        return (logits, [x]) if return_features else logits


@pytest.fixture
def gan():
    return GANLoss("wgan_softplus")


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 2, 2, generator=generator) for _ in range(2)]


def test_generator_step_is_equation_3(gan, pictures):
    fake_values, real = pictures
    parameter = nn.Parameter(torch.zeros(()))
    net_d = LinearDiscriminator()
    optimizer = torch.optim.SGD([parameter, *net_d.parameters()], lr=1.0)
    losses = generator_step(
        net_d,
        optimizer,
        fake_values + parameter,
        real,
        gan=gan,
        pixel=lambda a, b: 0.7 * F.l1_loss(a, b),
        feature_matching=lambda a, b: 0.02 * sum((p - q).abs().sum() for p, q in zip(a, b, strict=True)),
    )
    logits = 0.3 * fake_values.sum(dim=(1, 2, 3)) + 0.1
    assert losses["l_g_gan"].item() == pytest.approx(torch.log1p(torch.exp(-logits)).mean().item(), rel=1e-5)
    assert losses["l_g_pix"].item() == pytest.approx(0.7 * (fake_values - real).abs().mean().item(), rel=1e-5)
    sign = (fake_values - real).sign()
    by_hand = (-torch.sigmoid(-logits) * 0.3 * 12).mean() + 0.7 * sign.mean() + 0.02 * sign.sum()
    assert parameter.item() == pytest.approx(-by_hand.item(), rel=1e-4)


def test_generator_step_leaves_the_discriminator_alone(gan, pictures):
    net_d, parameter = LinearDiscriminator(), nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam([parameter, *net_d.parameters()], lr=0.1)
    generator_step(net_d, optimizer, pictures[0] + parameter, None, gan=gan)
    assert parameter.item() != 0
    assert net_d.w.item() == pytest.approx(0.3)
    assert all(weight.requires_grad and weight.grad is None for weight in net_d.parameters())


def test_discriminator_step_by_hand(gan, pictures):
    fake, real = pictures
    net_d, parameter = LinearDiscriminator(), nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([parameter, *net_d.parameters()], lr=1.0)
    losses = discriminator_step(net_d, optimizer, fake * parameter, real, gan=gan)
    real_logits = 0.3 * real.sum(dim=(1, 2, 3)) + 0.1
    fake_logits = 0.3 * fake.sum(dim=(1, 2, 3)) + 0.1
    slope = -torch.sigmoid(-real_logits).mean() + torch.sigmoid(fake_logits).mean()
    assert net_d.b.item() == pytest.approx(0.1 - slope.item(), rel=1e-4)
    assert parameter.item() == 1
    expected = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    assert losses["l_d"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["out_d_real"].item() == pytest.approx(real_logits.mean().item(), rel=1e-5)


def test_r1_step_carries_the_weight_of_the_iterations_it_stands_for(pictures):
    """|grad D|^2 = 12 w^2, so the step is 16 * 10 / 2 * 24 w; the bias stays, with a gradient of zero."""
    net_d = LinearDiscriminator()
    optimizer = torch.optim.SGD(net_d.parameters(), lr=1e-4)
    losses = r1_step(net_d, optimizer, pictures[1], gamma=10, every=16)
    assert losses["l_d_r1"].item() == pytest.approx(12 * 0.3**2, rel=1e-5)
    assert net_d.w.item() == pytest.approx(0.3 - 1e-4 * 16 * 10 / 2 * 24 * 0.3, rel=1e-5)
    assert net_d.b.grad.item() == 0
