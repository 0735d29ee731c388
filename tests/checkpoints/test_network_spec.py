import pytest
import torch

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.key_maps import to_authors
from gpen_plugin.checkpoints.network_spec import infer_spec
from gpen_plugin.errors import CheckpointError

GENERATORS = [
    {"out_size": 16},
    {"out_size": 32, "narrow": 0.5},
    {"out_size": 64, "channel_multiplier": 1, "narrow": 0.25, "noise_mode": "add"},
    {"out_size": 128, "in_size": 32, "narrow": 0.5, "noise_mode": "none"},
    {"out_size": 256, "channel_multiplier": 1, "narrow": 0.5},
    {"out_size": 256, "channel_multiplier": 1, "narrow": 0.3, "num_style_feat": 64, "num_mlp": 3},
    {"out_size": 512, "in_size": 16, "channel_multiplier": 0.5},
    {"out_size": 512},
    {"out_size": 1024, "in_size": 512, "noise_mode": "add"},
    {"out_size": 2048, "channel_multiplier": 1, "narrow": 1},
]
DEFAULTS = {"num_style_feat": 512, "num_mlp": 8, "channel_multiplier": 2, "narrow": 1, "noise_mode": "concat"}


def shapes_of(network, **arguments):
    with torch.device("meta"):
        return network(**arguments).state_dict()


def full(arguments, **more):
    """The arguments with the defaults, without a multiplier that no shape can show."""
    complete = DEFAULTS | more | arguments
    if complete["out_size"] <= 32:
        del complete["channel_multiplier"]
    return complete


@pytest.mark.parametrize("arguments", GENERATORS, ids=str)
def test_constructor_to_shapes_to_constructor(arguments):
    spec = infer_spec(shapes_of(GPEN, **arguments))
    assert (spec.kind, spec.layout) == ("GPEN", "ours")
    assert spec.arguments() == full(arguments, in_size=arguments.get("in_size", arguments["out_size"]))


@pytest.mark.parametrize("arguments", [a for a in GENERATORS if "in_size" not in a], ids=str)
def test_prior_shapes_give_its_arguments(arguments):
    spec = infer_spec(shapes_of(GPENPrior, **arguments))
    assert spec.kind == "GPENPrior"
    assert spec.arguments() == full(arguments)


@pytest.mark.parametrize("size", [16, 64, 256, 2048])
@pytest.mark.parametrize("widths", [{}, {"channel_multiplier": 1, "narrow": 0.5}], ids=str)
def test_discriminator_shapes_give_its_arguments(size, widths):
    spec = infer_spec(shapes_of(GPENDiscriminator, out_size=size, **widths))
    expected = {"out_size": size, "channel_multiplier": 2, "narrow": 1} | widths
    if size <= 32:
        del expected["channel_multiplier"]
    assert spec.kind == "GPENDiscriminator"
    assert spec.arguments() == expected


@pytest.mark.parametrize("narrow", [0.04, 0.1, 1 / 3, 0.7, 1.37])
@pytest.mark.parametrize("channel_multiplier", [0.3, 1, 1.1, 2, 3])
def test_crooked_widths_are_built_again(channel_multiplier, narrow):
    widths = {"channel_multiplier": channel_multiplier, "narrow": narrow}
    before = shapes_of(GPENDiscriminator, out_size=128, **widths)
    after = shapes_of(GPENDiscriminator, **infer_spec(before).arguments())
    assert {key: t.shape for key, t in before.items()} == {key: t.shape for key, t in after.items()}


@pytest.mark.parametrize("arguments", [GENERATORS[0], GENERATORS[2]], ids=str)
def test_authors_layout_gives_the_same_spec(arguments):
    ours = shapes_of(GPEN, **arguments)
    spec = infer_spec(to_authors(ours))
    assert spec.layout == "authors"
    assert spec.arguments() == infer_spec(ours).arguments()


def test_spec_as_text():
    spec = infer_spec(shapes_of(GPEN, out_size=256, channel_multiplier=1, narrow=0.5))
    assert str(spec) == "GPEN 256 px, channel_multiplier 1, narrow 0.5, noise concat"
    spec = infer_spec(shapes_of(GPEN, out_size=32, in_size=16, num_style_feat=64, num_mlp=2))
    assert str(spec) == "GPEN 32 px, input 16 px, narrow 1, noise concat, 2 mapping layers of 64"
    assert str(infer_spec(shapes_of(GPENDiscriminator, out_size=512))) == (
        "GPENDiscriminator 512 px, channel_multiplier 2, narrow 1"
    )


def test_foreign_weights():
    with pytest.raises(CheckpointError, match=r"net\.pth: holds conv\.weight; expected the weights of a GPEN"):
        infer_spec({"conv.weight": torch.zeros(1)}, "net.pth")


@pytest.mark.parametrize("lost", ["decoder.blocks.8.conv1.weight", "decoder.blocks.4.conv1.modulation.weight"])
def test_missing_tensors_are_refused(lost):
    state_dict = dict(shapes_of(GPEN, out_size=16))
    del state_dict[lost]
    with pytest.raises(CheckpointError, match="a GPEN with tensors missing or misshapen"):
        infer_spec(state_dict)
