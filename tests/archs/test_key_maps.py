import copy
import pickle

import pytest
import torch
from torch import nn

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.archs.key_maps import detect_layout, from_authors, to_authors

SMALL = {"channel_multiplier": 1, "narrow": 0.04}
NETWORKS = {
    "GPEN 16": lambda: GPEN(16, num_style_feat=8, num_mlp=2, **SMALL),
    "GPEN 64 from 32": lambda: GPEN(64, in_size=32, num_style_feat=8, num_mlp=1, noise_mode="add", **SMALL),
    "GPEN 32 without noise": lambda: GPEN(32, num_style_feat=8, num_mlp=3, noise_mode="none", **SMALL),
    "GPENPrior 32": lambda: GPENPrior(32, num_style_feat=8, num_mlp=2, **SMALL),
    "GPENDiscriminator 16": lambda: GPENDiscriminator(16, **SMALL),
    "GPENDiscriminator 128": lambda: GPENDiscriminator(128, **SMALL),
}
each_network = pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)


def released_layout(size, widths, style=512, layers=8):
    """Keys and shapes of the authors' generator with concatenated noise, written down from the published lists."""
    shapes, last = {}, None
    for index in range(1, layers + 1):
        shapes |= {f"generator.style.{index}.weight": (style, style), f"generator.style.{index}.bias": (style,)}
    shapes["generator.input.input"] = (1, widths[4], 4, 4)

    def modulated(name, out, width, k):
        shapes[f"{name}.conv.weight"] = (1, out, width, k, k)
        shapes[f"{name}.conv.modulation.weight"] = (width, style)
        shapes[f"{name}.conv.modulation.bias"] = (width,)

    def styled(name, out, width):
        modulated(name, out, width, 3)
        shapes[f"{name}.noise.weight"], shapes[f"{name}.activate.bias"] = (1,), (2 * out,)

    for resolution, channels in sorted(widths.items()):
        octave = resolution.bit_length() - 4
        to_rgb = f"generator.to_rgbs.{octave}" if last else "generator.to_rgb1"
        if last:
            styled(f"generator.convs.{2 * octave}", channels, 2 * last)
            styled(f"generator.convs.{2 * octave + 1}", channels, 2 * channels)
        else:
            styled("generator.conv1", channels, channels)
        modulated(to_rgb, 3, 2 * channels, 1)
        shapes[f"{to_rgb}.bias"] = (1, 3, 1, 1)
        last = channels
    shapes |= {"ecd0.0.0.weight": (widths[size], 3, 1, 1), "ecd0.0.1.bias": (widths[size],)}
    for index, resolution in enumerate(sorted(widths, reverse=True)[1:], start=1):
        shapes[f"ecd{index}.0.1.weight"] = (widths[resolution], widths[2 * resolution], 3, 3)
        shapes[f"ecd{index}.0.2.bias"] = (widths[resolution],)
    shapes |= {"final_linear.0.weight": (style, widths[4] * 16), "final_linear.0.bias": (style,)}
    return shapes


@pytest.mark.parametrize(
    ("size", "channel_multiplier", "narrow", "widths"),
    [
        (16, 1, 1, [512, 512, 512]),
        (32, 2, 0.5, [256] * 4),
        (128, 2, 0.5, [256] * 4 + [256, 128]),
        (256, 1, 0.5, [256] * 4 + [128, 64, 32]),
        (512, 2, 1, [512] * 4 + [512, 256, 128, 64]),
        (2048, 2, 1, [512] * 4 + [512, 256, 128, 64, 32, 16]),
    ],
)
def test_released_layouts_load_strictly(size, channel_multiplier, narrow, widths):
    shapes = released_layout(size, dict(zip([4 << i for i in range(len(widths))], widths, strict=True)))
    with torch.device("meta"):
        net = GPEN(size, channel_multiplier=channel_multiplier, narrow=narrow)
        net.load_state_dict({key: torch.empty(shape) for key, shape in shapes.items()}, strict=True, assign=True)


@pytest.mark.parametrize(("size", "channel_multiplier", "narrow", "millions"), [(256, 1, 0.5, 18.9), (512, 2, 1, 71.0)])
def test_as_many_parameters_as_the_released_models(size, channel_multiplier, narrow, millions):
    with torch.device("meta"):
        net = GPEN(size, channel_multiplier=channel_multiplier, narrow=narrow)
    assert sum(parameter.numel() for parameter in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@each_network
def test_round_trip_of_our_tensors(build):
    ours = build().state_dict()
    theirs = to_authors(ours)
    assert detect_layout(theirs) == (detect_layout(ours)[0], "authors")
    assert not set(theirs) & set(ours) - {"final_conv.weight"}
    back = from_authors(theirs)
    assert set(back) == set(ours)
    assert all(torch.equal(back[key], ours[key]) and back[key].shape == ours[key].shape for key in ours)
    assert from_authors(ours) == dict(ours)
    assert to_authors(theirs) == theirs


PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module._orig_mod."]


@pytest.mark.parametrize(
    ("build", "prefix"),
    [*((build, "") for build in NETWORKS.values()), *((NETWORKS["GPEN 16"], prefix) for prefix in PREFIXES)],
    ids=[*NETWORKS, *PREFIXES],
)
def test_loads_the_authors_names_strictly(build, prefix):
    source, target = build(), build()
    state_dict = {prefix + key: tensor for key, tensor in to_authors(source.state_dict()).items()}
    given = list(state_dict)
    target.load_state_dict(state_dict, strict=True)
    assert list(state_dict) == given, "the caller's mapping stays as it was"
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_a_network_with_a_compiled_part_loads_its_own_tensors():
    source, target = (NETWORKS["GPEN 16"]() for _ in range(2))
    for net in (source, target):
        net.decoder = torch.compile(net.decoder, backend="eager")
    target.load_state_dict(source.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


@each_network
def test_loads_inside_another_module_and_after_being_copied(build):
    source, copied = build(), copy.deepcopy(pickle.loads(pickle.dumps(build())))
    outer = nn.ModuleDict({"net": copied, "x": nn.Linear(1, 1)})
    state_dict = {f"net.{key}": tensor for key, tensor in to_authors(source.state_dict()).items()}
    outer.load_state_dict(state_dict | {"x.weight": torch.ones(1, 1), "x.bias": torch.ones(1)}, strict=True)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), copied.parameters(), strict=True))


def test_our_names_are_readable():
    names = set(GPEN(16, num_style_feat=8, num_mlp=1, **SMALL).state_dict())
    assert {"encoder.stem.weight", "decoder.mapping.0.weight", "decoder.blocks.8.conv0.noise_weight"} <= names
    assert not any("kernel" in name for name in names)


@each_network
def test_another_filter_is_refused(build):
    net = build()
    state_dict = to_authors(net.state_dict(), resample_kernel=(1, 2, 2, 1))
    with pytest.raises(RuntimeError, match="another FIR filter than the network's resample_kernel"):
        net.load_state_dict(state_dict, strict=True)


@each_network
def test_missing_and_surplus_keys_are_still_reported(build):
    net = build()
    state_dict = to_authors(net.state_dict()) | {"surplus": torch.zeros(1)}
    del state_dict[next(key for key in state_dict if key.endswith("0.1.bias") or key.endswith("to_rgbs.0.bias"))]
    with pytest.raises(RuntimeError, match=r"(?s)Missing key.*(stem|8\.to_rgb)\.bias.*Unexpected key.*surplus"):
        net.load_state_dict(state_dict, strict=True)


def test_a_file_without_filters_loads_too():
    net = GPENDiscriminator(16, **SMALL)
    state_dict = {key: t for key, t in to_authors(net.state_dict()).items() if not key.endswith("kernel")}
    net.load_state_dict(state_dict, strict=True)
