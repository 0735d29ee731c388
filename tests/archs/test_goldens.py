"""The networks compute what the authors' do: outputs of theirs for weights that are filled by a rule."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_networks import rounding_error

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.key_maps import from_authors, to_authors
from gpen_plugin.ops import force_implementation

GOLDENS = Path(__file__).parents[1] / "goldens"
TAGS = ["g64", "g64_add", "d64"]
FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64


def seeded(text, shape):
    return np.random.RandomState(zlib.crc32(text.encode())).standard_normal(shape).astype(np.float32)


def filled(key, shape):
    """The rule by which the authors' network was filled."""
    if key.endswith("kernel"):
        return FIR * 4 if "generator." in key else FIR
    x = seeded(key, shape)
    if key.endswith("noise.weight"):
        return x * np.float32(0.5)
    if ".style." in key:
        return x * np.float32(100 if key.endswith("weight") else 10)
    if key.endswith("modulation.bias"):
        return 1 + np.float32(0.1) * x
    return x * np.float32(0.1) if key.endswith("bias") else x


def golden(tag):
    facts = json.loads((GOLDENS / f"{tag}.json").read_text())
    state_dict = {key: torch.from_numpy(filled(key, shape)) for key, shape in facts["state_dict"].items()}
    return facts, state_dict, np.load(GOLDENS / f"{tag}.npz")


def network(facts):
    widths = {"channel_multiplier": facts["channel_multiplier"], "narrow": facts["narrow"]}
    if "isconcat" not in facts:
        return GPENDiscriminator(facts["size"], **widths)
    return GPEN(facts["size"], noise_mode="concat" if facts["isconcat"] else "add", **widths)


def degraded(tag, facts):
    return torch.from_numpy(np.tanh(seeded(tag, (facts["batch"], 3, facts["size"], facts["size"]))))


@pytest.mark.parametrize("impl", ["fast", "reference"])
@pytest.mark.parametrize("tag", TAGS)
def test_output_agrees(tag, impl):
    facts, state_dict, expected = golden(tag)
    net = network(facts)
    net.load_state_dict(state_dict, strict=True)
    with torch.no_grad(), force_implementation(impl):
        out = net(degraded(tag, facts)).numpy()
    span = max(np.ptp(expected["output"]), np.abs(expected["output"]).max())
    np.testing.assert_allclose(out, expected["output"], rtol=0, atol=1e-5 * span)


class Latents(torch.nn.Module):
    """What the latents of a GPEN go through."""

    def __init__(self, net):
        super().__init__()
        self.encoder, self.mapping = net.encoder, net.decoder.mapping

    def forward(self, lq):
        return self.mapping(self.encoder(lq)[0])


@pytest.mark.parametrize("tag", ["g64", "g64_add"])
def test_latent_agrees(tag):
    facts, state_dict, expected = golden(tag)
    net = network(facts)
    net.load_state_dict(state_dict, strict=True)
    lq = degraded(tag, facts)
    bound, _ = rounding_error(Latents(net), lq, torch.float32)
    assert bound < 1e-4 * np.abs(expected["latent"]).max()
    with torch.no_grad():
        latents = net(lq, return_latents=True).latents
    for index in range(net.decoder.num_latent):
        np.testing.assert_allclose(latents[:, index].numpy(), expected["latent"], rtol=0, atol=bound)


@pytest.mark.parametrize("tag", TAGS)
def test_round_trip_keeps_every_key_in_order_and_every_bit(tag):
    _, state_dict, _ = golden(tag)
    back = to_authors(from_authors(state_dict))
    assert list(back) == list(state_dict)
    for key, tensor in state_dict.items():
        assert torch.equal(back[key], tensor), key
        assert back[key].dtype == tensor.dtype
