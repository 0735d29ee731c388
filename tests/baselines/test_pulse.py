"""PULSE, and what all inversions share: downscaling, options, the way in and out of the prior."""

import math

import numpy as np
import pytest
import torch
from basicsr.utils.matlab_functions import imresize
from helpers.small_networks import saved

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.baselines.inversion import Downscaler, resize_matrix
from gpen_plugin.baselines.method import Sample
from gpen_plugin.baselines.pulse import LatentSphere, SphericalAdam, geodesic_cross, lr_factor
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.evaluate.methods import build_method as build
from gpen_plugin.evaluate.protocols import reduce_bicubic

SIDE, CPU = 16, torch.device("cpu")


def prior(noise_mode="concat") -> GPENPrior:
    torch.manual_seed(1)
    net = GPENPrior(SIDE, num_style_feat=16, num_mlp=2, narrow=0.03125, noise_mode=noise_mode)
    for name, parameter in net.named_parameters():
        if name.endswith("noise_weight"):
            parameter.data.fill_(0.1)
        if name.endswith("to_rgb.weight"):
            parameter.data.mul_(0.3)  # within [-1, 1], beyond which files cannot tell what was drawn
    return net


@pytest.fixture
def concat(tmp_path):
    return str(saved(tmp_path / "prior.pth", {"params_ema": prior().state_dict()}))


def sampled_case(key="a", net=None) -> Sample:
    """An image that the prior can draw, made small."""
    net = prior() if net is None else net
    with torch.no_grad():
        draw = torch.Generator().manual_seed(9)
        image = net(torch.randn(1, 16, generator=draw), net.make_noise(1, draw))
        small = Downscaler("bicubic", SIDE, 8, 8)(image)[0]
    lq = ((small.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()[..., ::-1]
    return Sample(key, "", np.ascontiguousarray(lq), None, SIDE)


@pytest.mark.parametrize(("size", "wanted"), [(32, 8), (64, 8), (48, 13), (32, 32), (64, 4), (24, 48)])
def test_bicubic_is_the_hosts(size, wanted):
    image = torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    expected = imresize(image, wanted / size)
    assert expected.shape[1:] == (wanted, wanted)
    assert torch.allclose(Downscaler("bicubic", size, wanted, wanted)(image[None])[0], expected, atol=2e-6)


@pytest.mark.parametrize(("size", "wanted"), [(64, 8), (48, 13), (64, 1), (16, 16)])
def test_bicubic_is_the_protocols(size, wanted):
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    small = Downscaler("bicubic", size, wanted, wanted)(torch.from_numpy(image).float().permute(2, 0, 1)[None])
    ours = small[0].permute(1, 2, 0).clamp(0, 255).numpy()
    assert np.abs(ours - reduce_bicubic(image, wanted)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(("size", "wanted"), [(32, 8), (48, 13), (32, 1), (8, 20)])
def test_area_downscaling_is_the_mean(size, wanted):
    fine = torch.rand(size, generator=torch.Generator().manual_seed(0)).double()
    expected = fine.repeat_interleave(wanted).reshape(wanted, size).mean(dim=1)
    assert torch.allclose(resize_matrix("area", size, wanted).double() @ fine, expected, atol=1e-6)


def test_downscaling_has_any_shape_and_gradients():
    image = torch.rand(2, 3, 16, 16, requires_grad=True)
    small = Downscaler("bicubic", 16, 3, 5)(image)
    assert small.shape == (2, 3, 3, 5)
    small.sum().backward()
    assert image.grad.abs().min() > 0
    assert torch.allclose(resize_matrix("bicubic", 16, 1).sum(), torch.tensor(1.0))  # where the host itself fails


def test_sphere_matches_mapping_network_outputs():
    net = prior()
    sphere = LatentSphere(net)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        real = net.mapping(torch.randn(20000, 16, generator=draw))
        ours = sphere.to_latents(torch.randn(20000, 16, generator=draw))
    real, ours = (torch.where(w < 0, 5 * w, w) / math.sqrt(2) for w in (real, ours))  # before the activation
    assert (real.mean(dim=0) - ours.mean(dim=0)).abs().max() < 0.05 * real.std()
    assert (torch.cov(real.T) - torch.cov(ours.T)).abs().max() < 0.05 * real.var()


def test_step_stays_on_the_sphere_and_reduces_the_loss():
    draw = torch.Generator().manual_seed(0)
    codes, maps = (torch.randn(shape, generator=draw, requires_grad=True) for shape in ((4, 16), (1, 3, 8, 8)))
    optimizer = SphericalAdam([codes], [maps], 0.3)
    values = []
    for _ in range(100):
        value = (codes[:, 0] - 4).square().sum() - maps[:, :, 0, 0].sum()
        values.append(float(value.detach()))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        assert torch.allclose(codes.norm(dim=1), torch.full((4,), 4.0), rtol=1e-5)
        assert torch.allclose(maps.flatten(2).norm(dim=2), torch.full((1, 3), 8.0), rtol=1e-5)
    assert values[-1] < values[0] - 30
    assert codes[:, 0].min() > 3.5  # the pole that the value asks for


def test_geodesic_cross_loss():
    right_angles = 4 * torch.eye(16)[:3]
    assert geodesic_cross(right_angles) == pytest.approx(3 * (math.pi / 2) ** 2, rel=1e-5)
    opposite = torch.stack([right_angles[0], -right_angles[0]])
    assert geodesic_cross(opposite) == pytest.approx(math.pi**2, rel=1e-5)
    near = torch.stack([right_angles[0], right_angles[0] + 1e-3 * right_angles[1]])
    assert geodesic_cross(near) == pytest.approx(1e-6, rel=1e-2)


def test_rate_rises_and_falls():
    assert lr_factor(0) == pytest.approx(0.1)
    assert lr_factor(0.45) == pytest.approx(1)
    assert lr_factor(0.99) == pytest.approx(0.01)
    assert all(0 < lr_factor(share / 100) <= 1 for share in range(100))


def test_it_finds_a_face_that_downscales_to_the_input(concat):
    """With maps to search; without: test_other_priors.py."""
    method = build({"type": "pulse", "prior": concat, "iterations": 60, "eps": 0, "cross_weight": 0}, "m", CPU, None)
    sample = sampled_case(net=method.prior.net)
    image, differences = method.search(sample)
    assert min(differences) < 0.2 * differences[0]
    small = Downscaler("bicubic", SIDE, 8, 8)(image)
    found = float((small - method.prior.to_tensor(sample.lq)).square().mean()) / 4
    assert found == pytest.approx(min(differences), rel=1e-3)


def test_cross_loss_limits_the_search(concat):
    entry = {"type": "pulse", "prior": concat, "iterations": 12, "eps": 0}
    near, far = (build({**entry, "cross_weight": w}, "m", CPU, None).search(sampled_case())[1] for w in (1, 0))
    assert min(far) < min(near)


def test_it_ends_where_it_is_near_enough(concat):
    entry = {"type": "pulse", "prior": concat, "iterations": 120, "cross_weight": 0}
    differences = build({**entry, "eps": 1e-3}, "m", CPU, None).search(sampled_case())[1]
    assert len(differences) < 120
    assert differences[-1] < 1e-3 <= min(differences[:-1])


@pytest.mark.parametrize("kind", ["pulse", "mganprior"])
def test_result_depends_on_seed_key_and_condition(kind, concat):
    entry = {"type": kind, "prior": concat, "iterations": 5, "seed": 3}
    if kind == "mganprior":
        entry |= {"codes": 2, "compose_at": 4, "perceptual_weight": 0}
    method = build(entry, "m", CPU, None)
    one = method(sampled_case())
    torch.manual_seed(99)
    method(sampled_case(key="b"))
    assert np.array_equal(one, build(entry, "m", CPU, None)(sampled_case()))
    assert not np.array_equal(one, method(sampled_case(key="b")))
    assert not np.array_equal(one, build({**entry, "seed": 4}, "m", CPU, None)(sampled_case()))
    other = sampled_case()
    assert not np.array_equal(one, method(Sample(other.key, "16x", other.lq, None, SIDE)))


@pytest.mark.parametrize("size", [16, 48])
def test_inputs_may_have_any_size(size, concat):
    entry = {"type": "pulse", "prior": concat, "iterations": 2, "downscale": "area"}
    rng = np.random.default_rng(0)
    image = build(entry, "m", CPU, None)(Sample("a", "", rng.integers(0, 256, (7, 40, 3), np.uint8), None, size))
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8


def test_channels_and_range_survive_the_round_trip(concat):
    prior_ = build({"type": "pulse", "prior": concat}, "m", CPU, None).prior
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    assert np.array_equal(prior_.to_image(prior_.to_tensor(image), SIDE), image)
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 2] = 255
    assert prior_.to_tensor(red)[0, :, 0, 0].tolist() == [1, -1, -1]


def test_identity_contains_what_affects_the_result(concat, tmp_path):
    one = build({"type": "pulse", "prior": concat}, "m", CPU, None)
    assert one.identity["iterations"] == 100
    assert concat not in str(one.identity)
    assert "100 steps" in one.description
    assert one.prior.sha256[:12] in one.description
    changed = {name: tensor + 1 for name, tensor in prior().state_dict().items()}
    other = str(saved(tmp_path / "other.pth", {"params_ema": changed}))
    assert build({"type": "pulse", "prior": other}, "m", CPU, None).identity != one.identity


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"itertions": 3}, "m:itertions"),
        ({"iterations": 0}, "m:iterations"),
        ({"lr": 0}, "m:lr"),
        ({"lr": math.nan}, "m:lr"),
        ({"eps": -1}, "m:eps"),
        ({"noise_maps": 9}, "m:noise_maps"),
        ({"downscale": "lanczos"}, "m:downscale"),
        ({"type": "puls"}, "m:type"),
    ],
)
def test_wrong_options_are_reported_by_key_path(change, message, concat):
    with pytest.raises(OptionError, match=message):
        build({"type": "pulse", "prior": concat, **change}, "m", CPU, None)


def test_missing_prior_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"m:prior:.*no such file"):
        build({"type": "pulse", "prior": str(tmp_path / "none.pth")}, "m", CPU, None)


@pytest.mark.parametrize(("kind", "key"), [("pulse", "other_noise"), ("mganprior", "noise")])
def test_other_noise_is_zero_by_default(kind, key, concat, monkeypatch):
    """Fixed noise is grain that the small image cannot tell of, so the search cannot remove it."""
    entry = {"type": kind, "prior": concat, "iterations": 1}
    entry |= {"noise_maps": 1} if kind == "pulse" else {"codes": 2, "compose_at": 8, "perceptual_weight": 0}
    draw = GPENPrior.make_noise
    zero, fixed = (build({**entry, **more}, "m", CPU, None)(sampled_case()) for more in ({}, {key: "fixed"}))
    monkeypatch.setattr(
        GPENPrior,
        "make_noise",
        lambda net, batch, generator: [
            map_ if kind == "pulse" and place < 1 else torch.zeros_like(map_)
            for place, map_ in enumerate(draw(net, batch, generator))
        ],
    )
    assert np.array_equal(build({**entry, key: "fixed"}, "m", CPU, None)(sampled_case()), zero)
    assert not np.array_equal(zero, fixed)
