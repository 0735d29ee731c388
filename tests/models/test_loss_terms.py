"""The generator's losses as one list: what each entry gets, and how its terms are named."""

import pytest
import torch
from basicsr.losses.basic_loss import L1Loss, WeightedTVLoss
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY
from test_gpen_model import assert_same, batch, ready, states
from test_preflight import parsed
from torch import nn
from torch.nn import functional as F

from gpen_plugin.errors import CheckpointError, GPENError, OptionError
from gpen_plugin.losses import IdentityLoss
from gpen_plugin.models.loss_terms import LossTerm, list_losses
from gpen_plugin.preflight import check_run

LAYERS = {"relu1_1": 0.5}


class PairLoss(nn.Module):
    """Returns what BasicSR's PerceptualLoss does: two terms, either of which may be None."""

    def __init__(self, content: float | None = 1.0, style: float | None = 1.0):
        super().__init__()
        self.weights = (content, style)

    def forward(self, fake, real):
        values = (fake - real).abs().mean(), (fake.mean() - real.mean()).abs()
        return tuple(None if w is None else w * value for w, value in zip(self.weights, values, strict=True))


class UnitLoss(nn.Module):
    """Remembers its images, which it wants in [0, 1]; applies its own weight."""

    value_range = (0, 1)

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight, self.seen = weight, []

    def forward(self, fake, real):
        self.seen.append((fake.detach(), real))
        return self.weight * (fake - real).square().mean()


class Recognizer(nn.Module):
    """Embeddings of gray images of 128 px."""

    def __init__(self, scale: float):
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 32, stride=32, bias=False)
        self.scale = scale

    def forward(self, x):
        return self.scale * self.layer(x).flatten(1)


@pytest.fixture(autouse=True)
def own_classes(monkeypatch):
    for registry, cls in ((LOSS_REGISTRY, PairLoss), (LOSS_REGISTRY, UnitLoss), (ARCH_REGISTRY, Recognizer)):
        monkeypatch.setitem(registry._obj_map, cls.__name__, cls)


def step(options: dict):
    """The model after one iteration, and D's features of its output and the ground truth before it."""
    torch.manual_seed(0)
    model = build_model(ready(options))
    model.feed_data(batch())
    with torch.no_grad():
        (_, fake), (_, real) = (model.net_d(image, return_features=True) for image in (model.net_g(model.lq), model.gt))
    model.optimize_parameters(1)
    return model, (fake, real)


def with_losses(options: dict, *entries: dict) -> dict:
    options["train"]["losses"] = [*entries]
    check_run(parsed(options))
    return options


def test_each_entry_gets_its_inputs_and_is_logged_with_its_share(options):
    entries = [
        {"type": "WeightedTVLoss", "weight": 2.0, "name": "tv"},
        {"type": "L1Loss", "on": "feature", "weight": 0.5},
        {"type": "DiscriminatorFeatureMatchingLoss", "norm": "mse", "layers": [0]},
        {"type": "UnitLoss", "weight": 3.0},
        {"type": "CharbonnierLoss", "loss_weight": 0.1, "value_range": [0, 255]},
    ]
    model, (fake_features, real_features) = step(with_losses(options, *entries))
    fake, real = model.output.detach(), model.gt
    unit = (fake + 1) / 2, (real + 1) / 2
    expected = {
        "pix": F.l1_loss(fake, real),
        "tv": 2 * WeightedTVLoss()(fake),
        "l1": 0.5 * sum(F.l1_loss(a, b) for a, b in zip(fake_features, real_features, strict=True)),
        "discriminatorfeaturematching": F.mse_loss(fake_features[0], real_features[0]),
        "unit": 3 * F.mse_loss(*unit),
        "charbonnier": 0.1 * (255 * (unit[0] - unit[1])).square().add(1e-12).sqrt().mean(),
    }
    for name, value in expected.items():
        assert model.losses[f"l_g_{name}"].item() == pytest.approx(value.item(), rel=1e-4), name
    log = model.get_current_log()
    names = [*expected, "gan", "feat"]
    assert {name.removeprefix("l_g_") for name in log if name.startswith("l_g_")} == set(names)
    total = sum(abs(log[f"l_g_{name}"]) for name in names)
    assert [log[f"share_{name}"] for name in names] == pytest.approx([abs(log[f"l_g_{n}"]) / total for n in names])
    torch.testing.assert_close(model.loss_terms["unit"].loss.seen[0], unit)


def test_an_entry_of_the_list_is_the_section_of_the_same_loss(options, train, tmp_path):
    """The paper's L_C and L_F, written as entries, give the same weights bit for bit."""
    options["logger"]["use_tb_logger"] = False
    sections = train(options, tmp_path / "sections")
    entries = [
        {"name": "pix", **options["train"].pop("pixel_opt")},
        {"name": "feat", **options["train"].pop("feature_matching_opt")},
    ]
    listed = train(with_losses(options, *entries), tmp_path / "list")
    one, other = states(sections, 4), states(listed, 4)
    for state in (one, other):
        del state["training_states/{}.state"]["options"]  # they differ
    assert_same(one, other)


def test_terms_of_a_perceptual_loss_are_logged_each(options, random_vgg):
    perceptual = {"type": "PerceptualLoss", "layer_weights": LAYERS, "use_input_norm": False}
    options["train"]["perceptual_opt"] = {**perceptual, "perceptual_weight": 2.0, "style_weight": 3.0}
    model, _ = step(with_losses(options, {**perceptual, "name": "vgg", "perceptual_weight": 0, "style_weight": 3.0}))
    percep, style = model.loss_terms["percep"].loss(model.output.detach(), model.gt)
    assert model.losses["l_g_percep"].item() == pytest.approx(percep.item(), rel=1e-4)
    assert model.losses["l_g_style"].item() == pytest.approx(style.item(), rel=1e-4)
    assert "l_g_vgg_style" in model.losses
    assert "l_g_vgg" not in model.losses  # None


@pytest.mark.parametrize(
    ("arguments", "names"),
    [({}, ["l_g_pix", "l_g_pix_2"]), ({"content": None}, ["l_g_pix_2"]), ({"content": None, "style": None}, [])],
)
def test_terms_of_a_pair_may_be_none(options, arguments, names):
    options["train"]["pixel_opt"] = {"type": "PairLoss", **arguments}
    options["train"]["feature_matching_opt"] = None
    model, _ = step(options)
    assert [name for name in model.losses if name.startswith("l_g")] == ["l_g_gan", *names]


def term(options: dict, loss):
    return LossTerm(next(entry for entry in list_losses(options) if entry.name == "pix"), loss)


@pytest.mark.parametrize(
    ("returned", "got"), [(torch.ones(2, 3), r"a tensor of shape \(2, 3\)"), ("text", "str"), ([1.0], "float")]
)
def test_a_loss_that_returns_no_scalar_is_refused(options, returned, got):
    with pytest.raises(OptionError, match=f"train:pixel_opt: function: returned {got}; expected a scalar tensor, or"):
        term(options, lambda fake, real: returned)(torch.zeros(1), torch.zeros(1), None, (-1, 1))


def gfpgan(options: dict, path) -> dict:
    """The identity loss as GFPGAN's files have it."""
    options["network_identity"] = {"type": "Recognizer", "scale": 2.0}
    options["path"]["pretrain_network_identity"] = str(path)
    options["train"] |= {"identity_weight": 10, "L1_opt": {"type": "L1Loss", "loss_weight": 1, "reduction": "mean"}}
    return options


def test_identity_loss_in_gfpgans_form(options, tmp_path):
    network = Recognizer(2.0)
    torch.save(network.state_dict(), tmp_path / "identity.pth")
    options = gfpgan(options, tmp_path / "identity.pth")
    check_run(parsed(options))
    model, _ = step(options)

    def embed(image):  # GFPGANModel.gray_resize_for_identity
        gray = 0.2989 * image[:, 0] + 0.5870 * image[:, 1] + 0.1140 * image[:, 2]
        return network(F.interpolate(gray.unsqueeze(1), (128, 128), mode="bilinear", align_corners=False))

    expected = 10 * L1Loss()(embed(model.output.detach()), embed(model.gt))
    assert model.losses["l_g_identity"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_gfpgans_recognition_network_keeps_its_file_on_resume(options, train, tmp_path):
    torch.save(Recognizer(2.0).state_dict(), tmp_path / "identity.pth")
    options = gfpgan(options, tmp_path / "identity.pth")
    options["logger"]["use_tb_logger"], options["val"] = False, None
    whole = train(options, tmp_path / "whole")
    options["train"]["total_iter"] = 2
    train(options, tmp_path / "parts")
    options["train"]["total_iter"] = 4
    assert_same(states(whole, 4), states(train(options, tmp_path / "parts", "--auto_resume"), 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses": [{"type": "L2Loss"}]}, "train:losses:0:type: got 'L2Loss'.*Did you mean 'L1Loss'"),
        ({"losses": ["L1Loss"]}, "train:losses: got"),
        (
            {"losses": [{"type": "L1Loss", "on": "pixels"}]},
            "losses:0:on: got 'pixels'.*one of 'pixel', 'feature'",
        ),
        ({"losses": [{"type": "L1Loss", "weigth": 1}]}, "train:losses:0:weigth: unknown key"),
        ({"losses": [{"type": "L1Loss", "reduction": "none"}]}, r"losses:0:reduction: the loss has the shape \[2, 3,"),
        ({"losses": [{"type": "L1Loss"}] * 2}, "train:losses:0:name: got 'l1', which another loss has too"),
        ({"losses": [{"type": "L1Loss", "name": "gan"}]}, "train:losses:0:name: got 'gan', which another loss has"),
        (
            {"losses": [{"type": "WeightedTVLoss", "on": "pixel"}]},
            "on: got pixel; expected output, because W",
        ),
        (
            {"losses": [{"type": "L1Loss", "on": "output"}]},
            "on: got output; expected pixel or feature, because",
        ),
        (
            {"losses": [{"type": "PerceptualLoss", "layer_weights": {}, "value_range": [0, 1], "range_norm": True}]},
            "train:losses:0:range_norm: got True; expected false, for images from 0 to 1",
        ),
        ({"identity_weight": 10}, "train:identity_weight: given without network_identity"),
        ({"L1_opt": {"type": "L1Loss"}}, "train:L1_opt: given without network_identity"),
    ],
)
def test_wrong_entries_are_found_before_the_run(options, change, message):
    options["train"] |= change
    with pytest.raises(GPENError, match=message):
        check_run(parsed(options))


def test_recognition_network_without_its_file_is_found_before_the_run(options, tmp_path):
    with pytest.raises(CheckpointError, match=r"path:pretrain_network_identity: .*identity\.pth is not there"):
        check_run(parsed(gfpgan(options, tmp_path / "identity.pth")))


def test_identity_loss_with_a_criterion(random_arcface):
    fake, real = torch.rand(2, 2, 3, 128, 128)
    loss = IdentityLoss(2.0, criterion={"type": "MSELoss"})
    assert loss(fake, real).item() == pytest.approx(2 * F.mse_loss(loss.embed(fake), loss.embed(real)).item())
    with pytest.raises(OptionError, match="criterion:type: got 'Nothing'"):
        IdentityLoss(criterion={"type": "Nothing"})
