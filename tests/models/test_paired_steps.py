"""The two steps with one forward pass of D per image, against the formulas and against separate forward passes."""

import copy
from contextlib import nullcontext

import pytest
import torch
from basicsr.losses.gan_loss import GANLoss
from basicsr.models import build_model
from helpers.linear_discriminator import LinearDiscriminator
from torch import nn
from torch.nn import functional as F

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.losses import DiscriminatorFeatureMatchingLoss
from gpen_plugin.models.gan_steps import NaNGuard, Part, generator_and_discriminator_step


@pytest.fixture
def gan():
    return GANLoss("wgan_softplus")


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 2, 2, generator=generator) for _ in range(2)]


def test_both_steps_by_hand(gan, images):
    """G's is Equation 3, D's is Equation 1 at the images from before G's step."""
    fake, real = images
    net_d, parameter = LinearDiscriminator(), nn.Parameter(torch.zeros(()))
    losses = generator_and_discriminator_step(
        net_d,
        *[torch.optim.SGD([parameter, *net_d.parameters()], lr=1.0)] * 2,
        [Part(real, fake + parameter)],
        gan=gan,
        guard=NaNGuard(),
        losses=lambda a, b, features: {
            "l_g_pix": 0.7 * F.l1_loss(a, b),
            "l_g_feat": 0.02 * sum((p - q).abs().sum() for p, q in zip(*features, strict=True)),
        },
    )
    fake_logits, real_logits = (0.3 * image.sum(dim=(1, 2, 3)) + 0.1 for image in images)
    assert losses["l_g_gan"].item() == pytest.approx(F.softplus(-fake_logits).mean().item(), rel=1e-5)
    assert losses["l_g_pix"].item() == pytest.approx(0.7 * (fake - real).abs().mean().item(), rel=1e-5)
    total = sum(losses[f"l_g_{name}"].item() for name in ("gan", "pix", "feat"))
    for name in ("gan", "pix", "feat"):
        assert losses[f"share_{name}"].item() == pytest.approx(losses[f"l_g_{name}"].item() / total, rel=1e-5)
    sign = (fake - real).sign()
    slope_of_g = -(torch.sigmoid(-fake_logits) * 0.3 * 12).mean() + 0.7 * sign.mean() + 0.02 * sign.sum()
    assert parameter.item() == pytest.approx(-slope_of_g.item(), rel=1e-4)
    assert losses["grad_norm_g"].item() == pytest.approx(slope_of_g.abs().item(), rel=1e-4)

    slope_of_b = torch.sigmoid(fake_logits).mean() - torch.sigmoid(-real_logits).mean()
    assert losses["l_d"].item() == pytest.approx((F.softplus(-real_logits) + F.softplus(fake_logits)).mean().item())
    assert net_d.b.item() == pytest.approx(0.1 - slope_of_b.item(), rel=1e-4)
    slope_of_w = torch.sigmoid(fake_logits) * fake.sum(dim=(1, 2, 3))
    slope_of_w -= torch.sigmoid(-real_logits) * real.sum(dim=(1, 2, 3))
    assert losses["grad_norm_d"].item() == pytest.approx(torch.hypot(slope_of_w.mean(), slope_of_b).item(), rel=1e-4)
    assert losses["d_sign_real"].item() == pytest.approx(real_logits.sign().mean().item())
    assert losses["out_d_real"].item() == pytest.approx(real_logits.mean().item(), rel=1e-5)
    assert losses["out_d_fake"].item() == pytest.approx(fake_logits.mean().item(), rel=1e-5)


class Setting:
    """Two small networks and a batch, to be trained by either way from the same start."""

    def __init__(self, bf16: bool = False, freeze_decoder: bool = False, features: bool = True):
        torch.manual_seed(0)
        self.net_g = GPEN(16, num_style_feat=16, num_mlp=2, narrow=0.03125).to(memory_format=torch.channels_last)
        self.net_d = GPENDiscriminator(16, narrow=0.03125).to(memory_format=torch.channels_last)
        self.net_g.decoder.requires_grad_(not freeze_decoder)
        parameters = [p for net in (self.net_g, self.net_d) for p in net.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=0.01, betas=(0.0, 0.99))
        self.gan, self.pixel, self.guard = GANLoss("wgan_softplus"), F.l1_loss, NaNGuard()
        self.feature_matching = DiscriminatorFeatureMatchingLoss(0.02) if features else None
        self.autocast = (lambda: torch.autocast("cpu", torch.bfloat16)) if bf16 else nullcontext
        self.batches = torch.rand(3, 2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1

    def draw(self, lq: torch.Tensor) -> torch.Tensor:
        with self.autocast():
            return self.net_g(lq)

    def anew(self, lq: torch.Tensor, real: torch.Tensor) -> None:
        """Each step runs D on the images anew."""
        fake = self.draw(lq)
        self.net_d.requires_grad_(False)
        with self.autocast():
            logits, features = self.net_d(fake, return_features=True)
        loss = self.gan(logits.float(), True) + self.pixel(fake, real)
        if self.feature_matching:
            with torch.no_grad(), self.autocast():
                _, real_features = self.net_d(real, return_features=True)
            loss = loss + self.feature_matching(features, real_features)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.net_d.requires_grad_(True)
        self.optimizer.zero_grad()
        for image, is_real in ((real, True), (fake.detach(), False)):
            with self.autocast():
                logits = self.net_d(image)
            self.gan(logits.float(), is_real, is_disc=True).backward()
        self.optimizer.step()

    def paired(self, lq: torch.Tensor, real: torch.Tensor) -> None:
        def losses(fake, real, features):
            of_features = {"l_g_feat": self.feature_matching(*features)} if self.feature_matching else {}
            return {"l_g_pix": self.pixel(fake, real), **of_features}

        how = {"losses": losses, "autocast": self.autocast}
        parts = [Part(real, self.draw(lq))]
        generator_and_discriminator_step(
            self.net_d, self.optimizer, self.optimizer, parts, gan=self.gan, guard=self.guard, **how
        )

    def weights(self) -> dict[str, torch.Tensor]:
        return {**self.net_g.state_dict(prefix="g."), **self.net_d.state_dict(prefix="d.")}


@pytest.mark.parametrize(
    "setting", [{}, {"bf16": True}, {"freeze_decoder": True}, {"features": False}], ids=lambda given: str([*given])
)
def test_three_iterations_equal_those_with_separate_forward_passes(setting):
    one, other = Setting(**setting), Setting(**setting)
    before = copy.deepcopy(one.weights())
    for lq, real in one.batches:
        one.anew(lq, real)
        other.paired(lq, real)
    expected, weights = one.weights(), other.weights()
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor), name
    moved = {name for name, tensor in expected.items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in moved} == {"g", "d"}
    assert any(name.startswith("g.decoder") for name in moved) != setting.get("freeze_decoder", False)


def test_a_step_of_g_that_is_left_out_leaves_that_of_d():
    one, other = Setting(), Setting()
    lq, real = one.batches[0]
    other.pixel = lambda fake, real: F.l1_loss(fake, real) * float("nan")
    before = copy.deepcopy(other.weights())
    one.paired(lq, real)
    other.paired(lq, real)
    assert (one.guard.skipped, other.guard.skipped) == (0, 1)
    for name, tensor in other.weights().items():
        assert torch.equal(tensor, before[name] if name.startswith("g.") else one.weights()[name]), name


def test_d_sees_each_image_once_per_iteration(options):
    torch.manual_seed(0)
    model = build_model(copy.deepcopy({**options, "is_train": True, "dist": False, "rank": 0, "world_size": 1}))
    judged = []
    model.net_d.register_forward_hook(lambda net, given, result: judged.append(len(given[0])))
    model.feed_data({name: torch.rand(2, 3, 16, 16) * 2 - 1 for name in ("lq", "gt")})
    model.optimize_parameters(1)
    assert judged == [2, 2]
