"""mGANprior: what it composes, and that it finds what a prior has drawn."""

import pytest
import torch
from helpers.small_networks import saved
from test_pulse import CPU, SIDE, prior, sampled_case
from torchvision.models.vgg import VGG, make_layers

from gpen_plugin.baselines.inversion import Downscaler
from gpen_plugin.baselines.mgan_prior import FILE, MGANPrior, Search
from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError
from gpen_plugin.evaluate.methods import build_method as build

ENTRY = {"type": "mganprior", "codes": 3, "compose_at": 8, "iterations": 4, "perceptual_weight": 0}


@pytest.fixture(params=["concat", "add", "none"])
def noise_mode(request):
    return request.param


@pytest.fixture
def method(noise_mode, tmp_path):
    """Builds the method on a prior of `noise_mode`."""
    weights = saved(tmp_path / "prior.pth", {"params_ema": prior(noise_mode).state_dict()})
    return lambda **change: build({**ENTRY, "prior": str(weights), **change}, "m", CPU, None)


@pytest.fixture
def concat(tmp_path):
    return str(saved(tmp_path / "prior.pth", {"params_ema": prior().state_dict()}))


def found_in(method: MGANPrior, importance: float) -> Search:
    """One and the same code three times, which is also the style."""
    width = method.prior.net.blocks["8"].out_channels
    z = torch.randn(1, 16, generator=torch.Generator().manual_seed(2))
    shares = [torch.full((3, channels, 1, 1), importance) for channels in (width, 3)]
    return Search(z.expand(3, -1), *shares, z)


def test_equal_codes_compose_the_image_of_one_code(method):
    method = method()
    net = method.prior.net
    noise = net.make_noise(1, torch.Generator().manual_seed(0))
    found = found_in(method, 1 / 3)
    expected = net(found.style, noise)
    assert torch.allclose(method.compose(found, noise), expected, atol=1e-5)
    assert not torch.allclose(method.compose(found_in(method, 0.2), noise), expected, atol=1e-2)


def test_each_code_and_channel_has_its_importance(method):
    method = method()
    net, found = method.prior.net, found_in(method, 0.0)
    found = Search(torch.randn(3, 16), found.importances, found.image_importances, found.style)
    found.importances[1] = found.image_importances[1] = 1
    noise = net.make_noise(1)
    below, above = net.to_latents(found.codes[1:2]), net.to_latents(found.style)
    x, images = net.run_blocks(0, 2, net.constant, None, below, noise)
    expected = net.run_blocks(2, None, x, images[-1], above, noise)[1][-1]
    assert torch.allclose(method.compose(found, noise), expected, atol=1e-5)


@pytest.mark.parametrize("noise_mode", ["concat"])
def test_it_finds_a_face_that_downscales_to_the_input(method):
    method = method(codes=6, iterations=60, lr=0.1, lr_importance=0.03)
    _, losses = method.search(sampled_case(net=method.prior.net))
    assert min(losses) < 0.25 * losses[0]
    assert losses[-1] < losses[30] < losses[0]


def test_best_step_is_returned(concat):
    method = build({**ENTRY, "prior": concat, "lr": 30.0, "lr_importance": 1.0, "iterations": 6}, "m", CPU, None)
    sample = sampled_case()
    image, losses = method.search(sample)
    assert min(losses) < losses[-1]  # so large a rate overshoots
    small = Downscaler("bicubic", SIDE, 8, 8)(image)
    assert float((small - method.prior.to_tensor(sample.lq)).square().mean()) / 4 == pytest.approx(
        min(losses), rel=1e-4
    )


def test_all_unknowns_have_gradients(concat):
    method = build({**ENTRY, "prior": concat}, "m", CPU, None)
    found, noise = method._start(torch.Generator().manual_seed(0)), method.prior.net.make_noise(1)
    method.compose(found, noise).square().mean().backward()
    for tensor in (found.codes, found.importances, found.image_importances, found.style):
        assert tensor.grad.flatten(1).abs().sum(dim=1).min() > 0
    assert all(parameter.grad is None for parameter in method.prior.net.parameters())


@pytest.fixture
def vgg(tmp_path, monkeypatch):
    """VGG-16 with narrow layers and random weights, as torchvision would publish it."""
    widths = [8, 8, "M", 8, 8, "M", 8, 8, 8, "M", 8, 8, 8, "M", 8, 8, 8, "M"]

    def narrow(weights: None = None) -> VGG:
        net = VGG(make_layers(widths), init_weights=True)
        net.classifier = torch.nn.Identity()
        return net

    monkeypatch.setattr("torchvision.models.vgg16", narrow)
    torch.manual_seed(0)
    return str(saved(tmp_path / FILE.name, narrow().state_dict()))


def test_perceptual_loss_uses_vgg_if_present(vgg, concat):
    entry = {**ENTRY, "prior": concat, "vgg": vgg, "iterations": 1}
    plain, with_vgg = (build({**entry, "perceptual_weight": w}, "m", CPU, None) for w in (0, 0.5))
    assert "VGG-16" in with_vgg.description
    assert with_vgg.identity["vgg_sha256"]
    assert vgg not in str(with_vgg.identity)
    sample = sampled_case()
    target = with_vgg.prior.to_tensor(sample.lq)
    assert with_vgg.features(target).square().sum(dim=1).allclose(torch.ones(1, 4, 4), atol=1e-5)
    (_, without), (_, losses) = plain.search(sample), with_vgg.search(sample)
    assert losses[0] > without[0]


def test_missing_vgg_is_noted_in_the_description(concat, tmp_path, monkeypatch):
    monkeypatch.setenv("GPEN_PLUGIN_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    method = build({**ENTRY, "prior": concat, "perceptual_weight": 0.1}, "m", CPU, None)
    assert f"without the perceptual loss ({FILE.name} is missing)" in method.description
    assert method.identity["vgg_sha256"] is None
    with pytest.raises(MissingFileError, match="m:vgg"):
        build({**ENTRY, "prior": concat, "perceptual_weight": 0.1, "vgg": "none.pth"}, "m", CPU, None)


def test_file_of_another_network_is_an_error(concat):
    with pytest.raises(CheckpointError, match=r"no weights|not those of"):
        build({**ENTRY, "prior": concat, "perceptual_weight": 0.1, "vgg": concat}, "m", CPU, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"codes": 0}, "m:codes"), ({"compose_at": 16}, "m:compose_at"), ({"compose_at": 5}, "m:compose_at")],
)
def test_wrong_options_are_reported_by_key_path(change, message, concat):
    with pytest.raises(OptionError, match=message):
        build({**ENTRY, "prior": concat, **change}, "m", CPU, None)
