"""Networks, models and losses of a user's own that build on ours."""

from dataclasses import dataclass

import pytest
import torch
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY
from models.test_gpen_model import batch, ready
from torch import nn

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.config.train_options import TrainOptions
from gpen_plugin.errors import OptionError
from gpen_plugin.models.gpen_model import GPENModel


class GPENWithHead(GPEN):
    """Parameters outside encoder and decoder: a layer, and one that stands alone."""

    def __init__(self, **options):
        super().__init__(**options)
        self.head = nn.Conv2d(3, 3, 1)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, *arguments, **options):
        return self.gain * self.head(super().forward(*arguments, **options))


class DiscriminatorWithFixedLayer(GPENDiscriminator):
    """One parameter that does not learn."""

    def __init__(self, **options):
        super().__init__(**options)
        next(self.parameters()).requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class OptionsWithTotalVariation(TrainOptions):
    """One key more than `TrainOptions`."""

    smoothness: float = 0.0


class GPENModelWithTotalVariation(GPENModel):
    """A loss term of its own."""

    options_class = OptionsWithTotalVariation

    def generator_losses(self, fake, real, features):
        variation = fake.diff(dim=3).abs().mean() + fake.diff(dim=2).abs().mean()
        return super().generator_losses(fake, real, features) | {"l_g_tv": self.settings.smoothness * variation}


@pytest.fixture(autouse=True)
def registered():
    entries = [
        (ARCH_REGISTRY, GPENWithHead),
        (ARCH_REGISTRY, DiscriminatorWithFixedLayer),
        (MODEL_REGISTRY, GPENModelWithTotalVariation),
    ]
    for registry, cls in entries:
        registry.register(cls)
    yield
    for registry, cls in entries:
        del registry._obj_map[cls.__name__]


@pytest.mark.parametrize("freeze_decoder", [False, True])
def test_every_parameter_of_a_subclass_of_gpen_learns(options, freeze_decoder):
    options["network_g"]["type"] = "GPENWithHead"
    options["train"]["freeze_decoder"] = freeze_decoder
    rates = {"encoder": 100, "decoder": 10, "discriminator": 1, "head": 50, "gain": 5}
    options["train"]["optim"]["lr_ratio"] = rates
    model = build_model(ready(options))
    (optimizer,) = model.optimizers
    groups = {group["name"]: group for group in optimizer.param_groups}
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    frozen = {id(parameter) for parameter in model.net_g.decoder.parameters()} if freeze_decoder else set()
    expected = [id(p) for net in (model.net_g, model.net_d) for p in net.parameters() if id(p) not in frozen]
    assert sorted(held) == sorted(expected)
    assert {name: len(groups[name]["params"]) for name in ("head", "gain")} == {"head": 2, "gain": 1}
    expected = {name: 2e-5 * rate for name, rate in rates.items() if not (freeze_decoder and name == "decoder")}
    assert {name: group["lr"] for name, group in groups.items()} == pytest.approx(expected)
    before = [p.detach().clone() for p in (*model.net_g.head.parameters(), model.net_g.gain)]
    model.feed_data(batch())
    model.optimize_parameters(1)
    after = [*model.net_g.head.parameters(), model.net_g.gain]
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (
            [100, 10, 1],
            r"lr_ratio: got none for gain, head\.weight, head\.bias; .*gain: 100, head",
        ),
        (
            {"encoder": 1, "decoder": 1, "discriminator": 1, "head": 1, "gain": 1, "haed": 1},
            "haed: .*Did you mean 'head'",
        ),
        ({"encoder": 1, "decoder": 1, "head": 1, "gain": 1}, r"lr_ratio: got .* expected three numbers"),
    ],
)
def test_parameters_without_a_rate_are_refused(options, rates, message):
    options["network_g"]["type"] = "GPENWithHead"
    options["train"]["optim"]["lr_ratio"] = rates
    with pytest.raises(OptionError, match=message):
        build_model(ready(options))


def test_parameter_groups_match_earlier_states(options):
    model = build_model(ready(options))
    groups = model.optimizers[0].param_groups
    for group, net in zip(groups, (model.net_g.encoder, model.net_g.decoder, model.net_d), strict=True):
        assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in net.parameters()]


@pytest.mark.parametrize("fixture", ["options", "prior_options"])
def test_a_discriminator_keeps_its_fixed_parameters(fixture, request):
    options = request.getfixturevalue(fixture)
    options["network_d"]["type"] = "DiscriminatorWithFixedLayer"
    model = build_model(ready(options))
    fixed = next(model.net_d.parameters())
    before = fixed.detach().clone()
    for iteration in (1, 2):
        model.feed_data(batch())
        model.optimize_parameters(iteration)
    assert torch.equal(fixed, before)
    assert not fixed.requires_grad


def test_a_subclass_of_the_model_adds_a_loss_term_with_a_key_of_its_own(options):
    options["model_type"] = "GPENModelWithTotalVariation"
    options["train"]["smoothness"] = 0.5
    model = build_model(ready(options))
    model.feed_data(batch())
    model.optimize_parameters(1)
    log = model.get_current_log()
    assert log["l_g_tv"] > 0
    assert {"l_g_pix", "share_tv"} <= set(log)
