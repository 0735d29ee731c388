import math

import numpy as np
import pytest
import torch
from helpers.small_networks import SMALL, built

from gpen_plugin import GPEN
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.restore.network import FaceNetwork, TorchNetwork, open_network
from gpen_plugin.restore.variants import Layers, Variation, VariedNetwork, parse_layers, variation_of

CODES = 10  # of a 64 px network


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net_g_latest.pth"
    torch.save({"params_ema": built(lambda: GPEN(64, in_size=32, **SMALL)).state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def network(weights) -> TorchNetwork:
    return open_network(weights, device="cpu")


def faces(count: int = 2, side: int = 32) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random((side, side, 3), np.float32) for _ in range(count)]


def one_variant(network, index: int = 1, count: int = 2, **variation) -> list[np.ndarray]:
    return VariedNetwork(network, Variation(**variation), index)(faces(count))


def difference(some, others) -> float:
    return float(np.abs(np.stack(some) - np.stack(others)).mean())


@pytest.mark.parametrize(
    ("text", "layers", "indices"),
    [
        ("4-9", Layers(4, 9), range(4, 10)),
        ("4", Layers(4, 4), range(4, 5)),
        ("4-", Layers(4), range(4, 10)),
        (" 0-0 ", Layers(0, 0), range(1)),
        ("coarse", Layers(0, 2), range(3)),
        ("middle", Layers(3, 6), range(3, 7)),
        ("fine", Layers(7), range(7, 10)),
    ],
)
def test_layer_texts(text, layers, indices):
    assert parse_layers(text) == layers
    assert list(range(CODES))[layers.of(CODES)] == list(indices)
    assert parse_layers(str(layers)) == layers


@pytest.mark.parametrize("text", ["", "-", "-4", "9-4", "4-x", "1.5", "finest", "4 9", "1-2-3", "49-1", "99999-"])
def test_other_layers_are_refused(text):
    with pytest.raises(OptionError, match=r"^layers: got"):
        parse_layers(text)


@pytest.mark.parametrize("text", ["4-10", "10", "10-"])
def test_layers_beyond_the_network_are_refused(network, text):
    with pytest.raises(OptionError, match=rf"layers: got {text}.* has 10 latent codes; expected numbers up to 9"):
        VariedNetwork(network, Variation(parse_layers(text)), 1)


def test_named_layers_follow_block_sizes():
    """The named layers go by pixels: blocks of 4 and 8 px have the codes 0 to 2, and that of 64 px begins at 7."""
    blocks = GPEN(64, **SMALL).decoder.blocks
    ends = np.cumsum([len(block.convs) for block in blocks.values()])
    first = dict(zip(blocks, [0, *ends[:-1]], strict=True))
    assert first["16"] == parse_layers("middle").first == parse_layers("coarse").last + 1
    assert first["64"] == parse_layers("fine").first == parse_layers("middle").last + 1


def test_number_0_is_the_restoration_itself(network):
    plain = network(faces())
    assert difference(one_variant(network, index=0), plain) == 0
    assert difference(one_variant(network, index=1, strength=0.0), plain) == 0


def test_variant_depends_on_number_and_seed(network):
    first = one_variant(network)
    assert difference(first, one_variant(network)) == 0
    assert difference(first, network(faces())) > 1e-3
    assert difference(first, one_variant(network, index=2)) > 1e-3
    assert difference(first, one_variant(network, seed=1)) > 1e-3


def test_variant_depends_on_neither_batch_nor_global_rng(network):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    together = one_variant(network, count=3)
    assert torch.equal(torch.rand(1), expected)
    alone = VariedNetwork(network, Variation(), 1)(faces(3)[2:])
    assert np.abs(together[2] - alone[0]).max() < 1e-5


@pytest.fixture
def codes(network, monkeypatch):
    """What the decoder of `network` is given for two faces by a network around it."""
    synthesize, seen = network.net.decoder.synthesize, []

    def watched(latents, noise):
        seen.append(latents)
        return synthesize(latents, noise)

    monkeypatch.setattr(network.net.decoder, "synthesize", watched)

    def codes_by(varied, given=None) -> torch.Tensor:
        varied(faces() if given is None else given)
        return seen[-1]

    return codes_by


def test_random_variant_adds_a_sample_minus_the_mean(network, codes):
    before = codes(network)
    after = codes(VariedNetwork(network, Variation(Layers(2, 4), strength=0.25, seed=6), 3))
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(int(rng_from_key(6, 3).integers(2**63))))
    prior = network.net.decoder
    mean = prior.mean_latent(4096, torch.Generator().manual_seed(0))
    expected = before.clone()
    expected[:, 2:5] += 0.25 * (prior.mapping(z) - mean)
    assert torch.allclose(after, expected, atol=1e-6)
    assert (after - before)[:, 2:5].abs().max() > 0.01


def test_a_reference_pulls_towards_its_codes(network, codes):
    one, other = faces()
    wanted, given = codes(network, [one]), codes(network, [other])
    assert not torch.allclose(given, wanted, atol=1e-2)
    for strength in (0.0, 0.3, 1.0):
        varied = VariedNetwork(network, Variation(Layers(1, 8), strength, reference=one), 1)
        got = codes(varied, [other])
        assert torch.allclose(got[:, 1:9], torch.lerp(given, wanted, strength)[:, 1:9], atol=1e-6)
        assert torch.equal(got[:, [0, 9]], given[:, [0, 9]])
        assert np.abs(varied([one])[0] - network([one])[0]).max() < 1e-5


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_references_of_whole_numbers_are_the_same_faces(network, dtype):
    most = np.iinfo(dtype).max
    whole = np.rint(faces(1)[0] * most).astype(dtype)
    unit = whole.astype(np.float32) / np.float32(most)
    by_dtype = [one_variant(network, strength=1.0, reference=image) for image in (whole, unit)]
    assert difference(*by_dtype) < 1e-6


def test_a_reference_gives_one_variant(network):
    with pytest.raises(OptionError, match="variants: got number 2, but a reference gives one variant; expected 0 or 1"):
        one_variant(network, index=2, reference=faces(1)[0])
    with pytest.raises(OptionError, match="variants: got number -1"):
        one_variant(network, index=-1)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"strength": 1.5}, "strength: got 1.5; expected a number from 0 to 1"),
        ({"strength": math.nan}, "strength: got nan"),
        ({"seed": -1}, "seed: got -1"),
        ({"reference": np.zeros((4, 4), np.uint8)}, r"reference: got \(4, 4\)"),
        ({"reference": np.zeros((4, 4, 3))}, "reference: got float64"),
    ],
)
def test_wrong_variations(given, problem):
    with pytest.raises((OptionError, ShapeError), match=problem):
        Variation(**given)


def test_variation_of_command_line_values():
    assert str(variation_of()) == str(Variation())
    assert str(variation_of("3-5", 0.25, 7)) == "latents 3-5 by 0.25, seed 7"
    assert str(variation_of(reference=faces(1)[0])) == "latents 7- by 0.5, a reference"


def test_it_is_a_network_as_the_one_it_varies(network):
    varied = VariedNetwork(network, Variation(), 2)
    assert isinstance(varied, FaceNetwork)
    for name in ("in_size", "out_size", "template", "alpha", "task"):
        assert getattr(varied, name) == getattr(network, name)
    assert varied.description == f"{network.description}; variant 2: latents 7- by 0.5, seed 0"
    (result,) = varied(faces(1, side=20))
    assert result.shape == (64, 64, 3)
    assert result.dtype == np.float32
    assert 0 <= result.min() <= result.max() <= 1


def test_other_networks_have_no_variants():
    with pytest.raises(OptionError, match="variants: got a network in onnxruntime, which gives one result"):
        VariedNetwork(object(), Variation(), 1)


def test_bfloat16_runs_too(weights, network):
    half = open_network(weights, device="cpu", precision="bf16")
    assert difference(one_variant(half, strength=1.0), one_variant(network, strength=1.0)) < 0.02
