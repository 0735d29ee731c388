"""PULSE and mGANprior on the priors of their authors, with the settings of their programs."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.small_networks import saved
from test_pulse import CPU, sampled_case

from gpen_plugin.archs.layers import normalize_2nd_moment
from gpen_plugin.archs.pggan_prior_arch import PGGANPrior
from gpen_plugin.archs.stylegan1_prior_arch import StyleGAN1Prior
from gpen_plugin.baselines.inversion import Downscaler
from gpen_plugin.baselines.mgan_prior import AUTHORS_LAYERS, MGANPriorOptions, Search, VGGFeatures
from gpen_plugin.baselines.pulse import LatentSphere, PulseOptions, geodesic_cross
from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate.methods import build_method as build

SMALL = {"num_style_feat": 16, "narrow": 0.03125}
PRIORS = {
    "PGGANPrior": lambda: PGGANPrior(16, noise_mode="none", **SMALL),
    "StyleGAN1Prior": lambda: StyleGAN1Prior(16, num_mlp=2, noise_mode="add", **SMALL),
}


def prior(kind):
    torch.manual_seed(1)
    net = PRIORS[kind]()
    net.blocks["16"].to_rgb.weight.data.mul_(0.3)  # within [-1, 1]
    for name, parameter in net.named_parameters():
        if name.endswith("noise_weight"):
            parameter.data.fill_(0.1)
    return net


@pytest.fixture
def method(tmp_path):
    def make(kind, name, **options):
        path = saved(tmp_path / f"{kind}.pth", {"params_ema": prior(kind).state_dict()})
        return build({"type": name, "prior": str(path), **options}, "m", CPU, None)

    return make


@pytest.mark.parametrize("kind", PRIORS)
def test_pulse_finds_a_face_that_downscales_to_the_input(kind, method):
    pulse = method(kind, "pulse", cross_weight=0, iterations=40)
    _, differences = pulse.search(sampled_case(net=prior(kind)))
    assert min(differences) < 0.3 * differences[0]
    assert kind in pulse.description


def test_pulse_searches_pggan_on_the_sphere_of_z():
    codes = torch.randn(1, 16)
    assert torch.equal(LatentSphere(prior("PGGANPrior")).to_latents(codes), codes)


def test_pulse_with_the_authors_settings(method):
    options = PulseOptions("x", preset="authors")
    assert (options.eps, options.gaussian, options.cross, options.lr) == (2e-3, "diagonal", "mean", 0.4)
    assert PulseOptions("x", preset="authors", eps=0.5).eps == 0.5
    pulse = method("StyleGAN1Prior", "pulse", preset="authors", iterations=3)
    w = torch.randn(8, 16)
    pairs = [(a, b) for a in w for b in w]
    angles = [2 * math.atan2((a - b).norm(), (a + b).norm()) for a, b in pairs]
    expected = sum(angle**2 for angle in angles) / len(angles) * 16 / 8
    assert float(pulse._cross(None, w)) == pytest.approx(expected, rel=1e-4)
    assert torch.equal(pulse.sphere.root, pulse.sphere.root.diag().diag())
    assert pulse.search(sampled_case(net=prior("StyleGAN1Prior")))[0].shape == (1, 3, 16, 16)
    assert float(geodesic_cross(w[:1])) == 0


@pytest.mark.parametrize("kind", PRIORS)
def test_mganprior_finds_a_face_that_downscales_to_the_input(kind, method):
    mgan = method(kind, "mganprior", codes=4, compose_at=8, perceptual_weight=0, iterations=40, lr=0.1)
    _, losses = mgan.search(sampled_case(net=prior(kind)))
    assert min(losses) < 0.3 * losses[0]


def test_codes_of_pggan_are_summed_before_the_pixel_norm(method):
    mgan = method("PGGANPrior", "mganprior", codes=3, compose_at=8, perceptual_weight=0)
    net, z, weights = mgan.prior.net, torch.randn(3, 16), torch.rand(3, 16, 1, 1)
    found = Search(z, weights, torch.ones(3, 3, 1, 1), z[:1])
    none = [None] * 3
    below, block = (
        net.run_blocks(0, 1, net.first_features(net.to_latents(z)), None, net.to_latents(z), none)[0],
        net.blocks["8"],
    )
    raw = F.conv2d(block.conv0(below, z, None), block.conv1.weight * block.conv1.scale, padding=1)
    raw = math.sqrt(2) * F.leaky_relu(raw + block.conv1.bias[:, None, None], 0.2)
    x = normalize_2nd_moment((raw * weights).sum(dim=0, keepdim=True))
    expected = net.run_blocks(2, None, x, None, net.to_latents(z[:1]), none)[1][-1]
    torch.testing.assert_close(mgan.compose(found, none), expected, rtol=1e-4, atol=1e-5)
    # the norm removes a common factor of the importances, such as the program's second 1 / N
    scaled = Search(z, weights / 3, found.image_importances, found.style)
    torch.testing.assert_close(mgan.compose(scaled, none), expected, rtol=1e-3, atol=1e-4)


def test_mganprior_with_the_authors_settings(method, tmp_path):
    options = MGANPriorOptions("x", preset="authors")
    assert (options.codes, options.iterations, options.optimizer, options.lr) == (20, 2000, "sgd", 1.0)
    assert (options.compose_at, options.downscale) == (16, "bilinear")
    mgan = method("PGGANPrior", "mganprior", preset="authors", compose_at=8, codes=2, iterations=3, perceptual_weight=0)
    target = sampled_case(net=prior("PGGANPrior"))
    found, losses = mgan.search(target)
    assert len(losses) == 3
    image, wanted = found, mgan.prior.to_tensor(target.lq)
    small = F.interpolate(image, size=wanted.shape[2:], mode="bilinear", align_corners=False)
    assert min(losses) == pytest.approx(float(F.mse_loss(small, wanted)), rel=1e-4)


def test_features_of_the_authors_are_those_after_conv3_3(tmp_path):
    from torchvision.models import vgg16

    torch.manual_seed(0)
    with torch.device("meta"):
        layers = vgg16(weights=None).features[:AUTHORS_LAYERS]
    layers = layers.to_empty(device="cpu")
    for parameter in layers.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    tensors = {f"features.{name}": tensor for name, tensor in layers.state_dict().items()}
    path = saved(tmp_path / "vgg16.pth", tensors)
    features = VGGFeatures(path, CPU, authors=True)
    one, other = torch.rand(2, 1, 3, 8, 8) * 2 - 1

    def seen(image):
        mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        return layers(F.interpolate(((image + 1) / 2 - mean) / deviation, size=256))

    with torch.no_grad():
        expected = 0.001 * F.l1_loss(seen(one), seen(other))
        torch.testing.assert_close(features.distance(features(one), features(other))[0], expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("sizes", [(32, 8), (24, 7)])
def test_bilinear_downscaling_is_pytorchs(sizes):
    image = torch.rand(1, 3, sizes[0], sizes[0])
    expected = F.interpolate(image, size=(sizes[1], sizes[1]), mode="bilinear", align_corners=False)
    torch.testing.assert_close(Downscaler("bilinear", sizes[0], sizes[1], sizes[1])(image), expected)


def test_psp_is_refused_on_another_prior(method):
    with pytest.raises(
        OptionError, match=r"m:prior: holds a PGGANPrior; expected a GPENPrior: pSp is defined on StyleGAN2"
    ):
        method("PGGANPrior", "psp", train={"dataroot_gt": "x"})
