"""The names that the authors' released files give to the tensors, and ours: one table, read in both directions.

The authors number their layers; where a number counts from the largest resolution down, the table needs to know how
many layers there are, and reads it from the keys at hand.

Their prior and their discriminator are StyleGAN2's under the names of its best known PyTorch implementation, so that
its files are read by the same table; BasicSR's StyleGAN2 respells those names (`stylegan2_keys`).
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn

from gpen_plugin.archs.stylegan2_keys import is_fixed_noise, stylegan2_name
from gpen_plugin.ops import fir_kernel
from gpen_plugin.wrapper_prefixes import without_wrapper_prefixes

Kind = Literal["GPEN", "GPENPrior", "GPENDiscriminator"]
Layout = Literal["ours", "authors", "stylegan2"]

# A pair of keys that no other network in no other layout has.
_MARKS: dict[tuple[str, ...], tuple[Kind, Layout]] = {
    ("decoder.constant", "encoder.stem.weight"): ("GPEN", "ours"),
    ("generator.input.input", "ecd0.0.0.weight"): ("GPEN", "authors"),
    ("constant", "blocks.4.to_rgb.weight"): ("GPENPrior", "ours"),
    ("input.input", "to_rgb1.conv.weight"): ("GPENPrior", "authors"),
    ("stem.weight", "logit.weight"): ("GPENDiscriminator", "ours"),
    ("convs.0.0.weight", "final_linear.1.weight"): ("GPENDiscriminator", "authors"),
    ("constant_input.weight", "to_rgb1.modulated_conv.weight"): ("GPENPrior", "stylegan2"),
    ("conv_body.0.0.weight", "final_linear.1.weight"): ("GPENDiscriminator", "stylegan2"),
}


class Pair(NamedTuple):
    """One tensor: the foreign key, ours, and how many leading and trailing dimensions of size 1 theirs has more."""

    theirs: str
    ours: str
    leading: int = 0
    trailing: int = 0

    @property
    def is_fir(self) -> bool:
        """Whether this is the constant FIR filter of a layer, which our files leave out."""
        return self.theirs.endswith(".kernel")

    @property
    def gain(self) -> float:
        """The sum of a FIR filter: 4 where it makes up for upsampling."""
        return 4.0 if ".blur." in self.theirs or ".upsample." in self.theirs else 1.0


def recognise(keys: Collection[str]) -> tuple[Kind, Layout] | None:
    """Which network, in whose layout, a state dict with these keys is of; ``None`` if of none of ours."""
    return next((found for marks, found in _MARKS.items() if all(mark in keys for mark in marks)), None)


def to_ours(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename and reshape tensors into our layout; FIR filters and fixed noise, which we do not store, are left out.

    Args:
        state_dict: in any layout; ours, and keys that are in none, come back as they are.
    """
    found = recognise(state_dict)
    if found is None or found[1] == "ours":
        return dict(state_dict)
    kind, layout = found
    pairs = {pair.theirs: pair for pair in key_pairs(kind, state_dict, layout)}
    renamed = {}
    for key, tensor in state_dict.items():
        pair = pairs.get(key, Pair(key, key))
        if not (is_fixed_noise(key) or (key in pairs and pair.is_fir)):
            renamed[pair.ours] = _trimmed(tensor, pair)
    return renamed


def to_authors(
    state_dict: Mapping[str, torch.Tensor], resample_kernel: Sequence[float] = (1, 3, 3, 1)
) -> dict[str, torch.Tensor]:
    """Rename and reshape our tensors into the authors' layout, in their order and with their FIR filters.

    Args:
        state_dict: in our layout or BasicSR's; theirs, and keys that are in none, come back as they are.
        resample_kernel: the taps with which the network was built.
    """
    found = recognise(state_dict)
    if found is None or found[1] == "authors":
        return dict(state_dict)
    ours = to_ours(state_dict)
    return written(ours, key_pairs(found[0], ours), resample_kernel)


def written(
    ours: Mapping[str, torch.Tensor], pairs: Sequence[Pair], resample_kernel: Sequence[float]
) -> dict[str, torch.Tensor]:
    """Our tensors under the other names and in the order of `pairs`, with FIR filters where `pairs` has them."""
    renamed = {}
    for pair in pairs:
        if pair.is_fir:
            renamed[pair.theirs] = fir_kernel(resample_kernel, pair.gain)
        elif pair.ours in ours:
            tensor = ours[pair.ours]
            renamed[pair.theirs] = tensor.reshape((1,) * pair.leading + tensor.shape + (1,) * pair.trailing)
    known = {pair.ours for pair in pairs}
    return renamed | {key: tensor for key, tensor in ours.items() if key not in known}


def key_pairs(kind: Kind, keys: Collection[str], layout: Layout = "authors") -> list[Pair]:
    """All tensors of a network in the authors' order.

    Args:
        kind: which network.
        keys: of its state dict, in any layout; only their numbers are counted.
        layout: whose names stand as ``theirs``: ``authors`` or ``stylegan2``.
    """
    pairs = _authors_pairs(kind, keys)
    if layout == "authors":
        return pairs
    return [pair._replace(theirs=stylegan2_name(kind, pair.theirs)) for pair in pairs if not pair.is_fir]


def _authors_pairs(kind: Kind, keys: Collection[str]) -> list[Pair]:
    if kind == "GPENDiscriminator":
        return list(_discriminator(_count(keys, r"(?:(?:convs|conv_body)\.\d+\.skip\.1|blocks\.\d+\.skip)\.weight")))
    layers = _count(keys, r"(?:generator\.|decoder\.)?(?:style|style_mlp|mapping)\.\d+\.weight")
    octaves = _count(keys, r"(?:generator\.|decoder\.)?(?:to_rgbs\.\d+\.|blocks\.(?!4\.)\d+\.to_rgb\.)bias")
    if kind == "GPENPrior":
        return list(_prior(layers, octaves))
    inside = (p._replace(theirs=f"generator.{p.theirs}", ours=f"decoder.{p.ours}") for p in _prior(layers, octaves))
    return [*inside, *_encoder(_count(keys, r"(?:ecd\d+\.0\.1|encoder\.down\.\d+)\.weight"))]


def decoder_of(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """The decoder alone, in its own layout, of a state dict that holds a whole `GPEN`; ``None`` of any other."""
    found = recognise(state_dict)
    if found is None or found[0] != "GPEN":
        return None
    inside = "decoder." if found[1] == "ours" else "generator."
    return {key.removeprefix(inside): tensor for key, tensor in state_dict.items() if key.startswith(inside)}


def accept_authors_layout(
    module: nn.Module,
    state_dict: dict[str, torch.Tensor],
    prefix: str,
    local_metadata: Mapping,
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Hook of `Module.load_state_dict`: brings any layout into ours before the tensors are matched.

    The authors' FIR filters are held against the network's own: with other filters it would be another network.
    """
    inner = {key.removeprefix(prefix): tensor for key, tensor in state_dict.items() if key.startswith(prefix)}
    if inner.keys() == module.state_dict().keys():  # nothing to rename, e.g. where a part of it is compiled
        return
    plain = without_wrapper_prefixes(inner)
    error_msgs.extend(foreign_filters(module, plain))
    for key in inner:
        del state_dict[prefix + key]
    state_dict.update({prefix + key: tensor for key, tensor in to_ours(plain).items()})


def foreign_filters(module: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> list[str]:
    """One sentence for each FIR filter of the authors' layout that differs from the network's own."""
    found = recognise(state_dict)
    if found is None or found != (type(module).__name__, "authors"):
        return []
    own = dict(module.named_buffers())
    return [
        f"{pair.theirs}: another FIR filter than the network's resample_kernel; build the network with the file's."
        for pair in key_pairs(found[0], state_dict)
        if pair.is_fir and pair.ours in own and pair.theirs in state_dict
        if not same_filter(state_dict[pair.theirs], own[pair.ours])
    ]


def same_filter(theirs: torch.Tensor, ours: torch.Tensor) -> bool:
    """Whether two FIR filters, (K, K), are equal as far as a file in half precision can tell.

    A network on the meta device has filters without values: of those only the shape can be compared.
    """
    return theirs.shape == ours.shape and (ours.is_meta or torch.allclose(theirs.to(ours), ours, atol=1e-3))


def _trimmed(tensor, pair):
    for _ in range(pair.leading):
        tensor = tensor.squeeze(0)
    for _ in range(pair.trailing):
        tensor = tensor.squeeze(-1)
    return tensor


def _count(keys, pattern):
    return sum(re.fullmatch(pattern, key) is not None for key in keys)


def _prior(layers: int, octaves: int) -> Iterator[Pair]:
    for index in range(layers):
        yield Pair(f"style.{index + 1}.weight", f"mapping.{index}.weight")
        yield Pair(f"style.{index + 1}.bias", f"mapping.{index}.bias")
    yield Pair("input.input", "constant")
    yield from _styled_conv("conv1", "blocks.4.conv1", up=False)
    yield from _to_rgb("to_rgb1", "blocks.4.to_rgb", up=False)
    blocks = [f"blocks.{8 << octave}" for octave in range(octaves)]
    for octave, block in enumerate(blocks):
        yield from _styled_conv(f"convs.{2 * octave}", f"{block}.conv0", up=True)
        yield from _styled_conv(f"convs.{2 * octave + 1}", f"{block}.conv1", up=False)
    for octave, block in enumerate(blocks):
        yield from _to_rgb(f"to_rgbs.{octave}", f"{block}.to_rgb", up=True)


def _styled_conv(theirs: str, ours: str, up: bool) -> Iterator[Pair]:
    yield Pair(f"{theirs}.conv.weight", f"{ours}.weight", leading=1)
    if up:
        yield Pair(f"{theirs}.conv.blur.kernel", f"{ours}.kernel")
    yield from _modulation(theirs, ours)
    yield Pair(f"{theirs}.noise.weight", f"{ours}.noise_weight")
    yield Pair(f"{theirs}.activate.bias", f"{ours}.bias")


def _to_rgb(theirs: str, ours: str, up: bool) -> Iterator[Pair]:
    yield Pair(f"{theirs}.bias", f"{ours}.bias", leading=1, trailing=2)
    if up:
        yield Pair(f"{theirs}.upsample.kernel", f"{ours}.kernel")
    yield Pair(f"{theirs}.conv.weight", f"{ours}.weight", leading=1)
    yield from _modulation(theirs, ours)


def _modulation(theirs: str, ours: str) -> Iterator[Pair]:
    yield Pair(f"{theirs}.conv.modulation.weight", f"{ours}.modulation.weight")
    yield Pair(f"{theirs}.conv.modulation.bias", f"{ours}.modulation.bias")


def _encoder(halvings: int) -> Iterator[Pair]:
    yield Pair("ecd0.0.0.weight", "encoder.stem.weight")
    yield Pair("ecd0.0.1.bias", "encoder.stem.bias")
    for index in range(1, halvings + 1):
        layer = f"encoder.down.{4 << (halvings - index)}"
        yield Pair(f"ecd{index}.0.0.kernel", f"{layer}.kernel")
        yield Pair(f"ecd{index}.0.1.weight", f"{layer}.weight")
        yield Pair(f"ecd{index}.0.2.bias", f"{layer}.bias")
    yield Pair("final_linear.0.weight", "encoder.to_z.weight")
    yield Pair("final_linear.0.bias", "encoder.to_z.bias")


def _discriminator(halvings: int) -> Iterator[Pair]:
    yield Pair("convs.0.0.weight", "stem.weight")
    yield Pair("convs.0.1.bias", "stem.bias")
    for index in range(1, halvings + 1):
        theirs, ours = f"convs.{index}", f"blocks.{8 << (halvings - index)}"
        yield Pair(f"{theirs}.conv1.0.weight", f"{ours}.conv1.weight")
        yield Pair(f"{theirs}.conv1.1.bias", f"{ours}.conv1.bias")
        yield Pair(f"{theirs}.conv2.0.kernel", f"{ours}.conv2.kernel")
        yield Pair(f"{theirs}.conv2.1.weight", f"{ours}.conv2.weight")
        yield Pair(f"{theirs}.conv2.2.bias", f"{ours}.conv2.bias")
        yield Pair(f"{theirs}.skip.0.kernel", f"{ours}.skip.kernel")
        yield Pair(f"{theirs}.skip.1.weight", f"{ours}.skip.weight")
    yield Pair("final_conv.0.weight", "final_conv.weight")
    yield Pair("final_conv.1.bias", "final_conv.bias")
    for index, layer in enumerate(["hidden", "logit"]):
        yield Pair(f"final_linear.{index}.weight", f"{layer}.weight")
        yield Pair(f"final_linear.{index}.bias", f"{layer}.bias")
