"""The names that other layouts give to the tensors, and ours: the authors' files and StyleGAN2's in PyTorch.

The authors number their layers, some from the largest resolution down, so the number of layers is read from the keys.
Their prior and discriminator are those of the best known StyleGAN2 in PyTorch, so the same table reads its files;
BasicSR's StyleGAN2 spells those names in another way.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import nn

from gpen_plugin.archs import prior_layouts
from gpen_plugin.errors import CheckpointError
from gpen_plugin.ops import fir_kernel

USUAL_TAPS = (1, 3, 3, 1)

_Tensor = TypeVar("_Tensor")
_COMPILED = re.compile(r"(?<![^.])_orig_mod\.")  # by torch.compile, before the part that was compiled
_PARALLEL = "module."  # by DataParallel and DistributedDataParallel


def without_wrapper_prefixes(state_dict: Mapping[str, _Tensor]) -> dict[str, _Tensor]:
    """Remove each ``_orig_mod.``, and leading ``module.`` if all keys have it; nested in any order.

    If two keys would become one, all stay as they are.
    """
    plain = {_COMPILED.sub("", key): tensor for key, tensor in state_dict.items()}
    if len(plain) < len(state_dict):
        return dict(state_dict)
    while plain and all(key.startswith(_PARALLEL) for key in plain):
        plain = {key.removeprefix(_PARALLEL): tensor for key, tensor in plain.items()}
    return plain


# The authors' spelling -> BasicSR's, applied one after the other.
_RESPELLINGS = {
    "GPENPrior": (
        (r"^style\.", "style_mlp."),
        (r"^input\.input$", "constant_input.weight"),
        (r"^conv(1|s\.\d+)\.noise\.weight$", r"style_conv\1.weight"),
        (r"^conv(1|s\.\d+)\.", r"style_conv\1."),
        (r"\.conv\.", ".modulated_conv."),
    ),
    "GPENDiscriminator": ((r"^convs\.", "conv_body."),),
}


def stylegan2_name(kind: Literal["GPENPrior", "GPENDiscriminator"], theirs: str) -> str:
    """BasicSR's key of the tensor whose key in the authors' layout is `theirs`."""
    for pattern, spelling in _RESPELLINGS[kind]:
        theirs = re.sub(pattern, spelling, theirs)
    return theirs


def is_fixed_noise(key: str) -> bool:
    """Whether this is one of the noise maps that StyleGAN2 files carry; our noise is an argument."""
    return re.fullmatch(r"(?:generator\.)?noises\.noise_?\d+", key) is not None


def fixed_noise(out_size: int) -> dict[str, torch.Tensor]:
    """The maps without which BasicSR's generator does not load strictly: N(0, 1), the same at each call.

    One (1, 1, r, r) per convolution, coarse to fine: one of 4 px, two of each r from 8 to `out_size`.
    """
    source = torch.Generator().manual_seed(0)
    sizes = [4] + [2**octave for octave in range(3, out_size.bit_length()) for _ in range(2)]
    return {f"noises.noise{index}": torch.randn(1, 1, size, size, generator=source) for index, size in enumerate(sizes)}


PriorKind = Literal["GPENPrior", "StyleGAN1Prior", "PGGANPrior", "BigGANPrior"]
Kind = Literal["GPEN", "GPENDiscriminator", PriorKind]
Layout = Literal["ours", "authors", "stylegan2", "nvlabs", "genforce", "rosinality", "pulse", "mganprior", "gan_zoo"]

# A pair of keys that no other network in no other layout has.
_MARKS: dict[tuple[str, ...], tuple[Kind, Layout]] = {
    ("decoder.constant", "encoder.stem.weight"): ("GPEN", "ours"),
    ("decoder.dense.weight", "encoder.stem.weight"): ("GPEN", "ours"),
    ("decoder.linear.weight", "encoder.stem.weight"): ("GPEN", "ours"),
    ("generator.input.input", "ecd0.0.0.weight"): ("GPEN", "authors"),
    ("constant", "blocks.4.to_rgb.weight"): ("GPENPrior", "ours"),
    ("constant", "blocks.4.conv0.style.weight"): ("StyleGAN1Prior", "ours"),
    ("input.input", "to_rgb1.conv.weight"): ("GPENPrior", "authors"),
    ("stem.weight", "logit.weight"): ("GPENDiscriminator", "ours"),
    ("convs.0.0.weight", "final_linear.1.weight"): ("GPENDiscriminator", "authors"),
    ("constant_input.weight", "to_rgb1.modulated_conv.weight"): ("GPENPrior", "stylegan2"),
    ("conv_body.0.0.weight", "final_linear.1.weight"): ("GPENDiscriminator", "stylegan2"),
    ("dense.weight", "blocks.4.conv1.weight"): ("PGGANPrior", "ours"),
    ("linear.weight", "blocks.8.conv_sc.weight"): ("BigGANPrior", "ours"),
    **prior_layouts.MARKS,
}


class KeyPair(NamedTuple):
    """One tensor in both layouts."""

    theirs: str
    ours: str
    leading: int = 0  # dimensions of size 1 that theirs has in front
    trailing: int = 0  # the same at the end

    @property
    def is_fir(self) -> bool:
        """Whether this is the constant FIR filter of a layer, which our files leave out."""
        return self.theirs.endswith(".kernel")

    @property
    def gain(self) -> float:
        """The sum of a FIR filter: 4 where it makes up for upsampling."""
        return 4.0 if ".blur." in self.theirs or ".upsample." in self.theirs else 1.0


def detect_layout(keys: Collection[str]) -> tuple[Kind, Layout] | None:
    """The network and the layout that these keys of a state dict belong to; ``None`` if they are of none of ours."""
    return next((found for marks, found in _MARKS.items() if all(mark in keys for mark in marks)), None)


def from_authors(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Bring tensors of any layout into ours, without FIR filters and fixed noise; unknown keys stay.

    CheckpointError: tensors of another code base's layout are missing or misshapen.
    """
    found = detect_layout(state_dict)
    if found is None or found[1] == "ours":
        return dict(state_dict)
    kind, layout = found
    if found in prior_layouts.IMPORTERS:
        try:
            return prior_layouts.IMPORTERS[found](state_dict)
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            got = f"a {kind} in the layout of {layout} with tensors missing or misshapen ({error})"
            raise CheckpointError("state dict", got, "all its tensors", "Download it again.") from error
    pairs = {pair.theirs: pair for pair in key_pairs(kind, state_dict, layout)}
    renamed = {}
    for key, tensor in state_dict.items():
        pair = pairs.get(key, KeyPair(key, key))
        if not (is_fixed_noise(key) or (key in pairs and pair.is_fir)):
            renamed[pair.ours] = _squeeze(tensor, pair)
    return renamed


def to_authors(
    state_dict: Mapping[str, torch.Tensor],
    resample_kernel: Sequence[float] = USUAL_TAPS,  # taps with which the network was built
) -> dict[str, torch.Tensor]:
    """Rename and reshape our tensors or BasicSR's into the authors' layout; unknown keys, and other priors, stay."""
    found = detect_layout(state_dict)
    if found is None or found[1] == "authors" or prior_kind(state_dict) not in (None, "GPENPrior"):
        return dict(state_dict)
    ours = from_authors(state_dict)
    return rename_keys(ours, key_pairs(found[0], ours), resample_kernel)


def rename_keys(
    ours: Mapping[str, torch.Tensor], pairs: Sequence[KeyPair], resample_kernel: Sequence[float]
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


def key_pairs(
    kind: Kind,
    keys: Collection[str],  # of its state dict, in any layout; only their numbers are counted
    layout: Layout = "authors",  # `authors` or `stylegan2`
) -> list[KeyPair]:
    """All tensors of a network in the authors' order; ``theirs`` are the names of `layout`."""
    pairs = _authors_pairs(kind, keys)
    if layout == "authors":
        return pairs
    return [pair._replace(theirs=stylegan2_name(kind, pair.theirs)) for pair in pairs if not pair.is_fir]


def _authors_pairs(kind: Kind, keys: Collection[str]) -> list[KeyPair]:
    if kind == "GPENDiscriminator":
        return list(_discriminator(_count(keys, r"(?:(?:convs|conv_body)\.\d+\.skip\.1|blocks\.\d+\.skip)\.weight")))
    layers = _count(keys, r"(?:generator\.|decoder\.)?(?:style|style_mlp|mapping)\.\d+\.weight")
    octaves = _count(keys, r"(?:generator\.|decoder\.)?(?:to_rgbs\.\d+\.|blocks\.(?!4\.)\d+\.to_rgb\.)bias")
    if kind == "GPENPrior":
        return list(_prior(layers, octaves))
    inside = (p._replace(theirs=f"generator.{p.theirs}", ours=f"decoder.{p.ours}") for p in _prior(layers, octaves))
    return [*inside, *_encoder(_count(keys, r"(?:ecd\d+\.0\.1|encoder\.down\.\d+)\.weight"))]


def prior_kind(keys: Collection[str]) -> PriorKind | None:
    """Which prior these keys are of, or which the GPEN has; None for a discriminator or unknown keys."""
    found = detect_layout(keys)
    if found is None or found[0] != "GPEN":
        return None if found is None or found[0] == "GPENDiscriminator" else found[0]
    inside = "decoder." if found[1] == "ours" else "generator."
    decoder = detect_layout({key.removeprefix(inside) for key in keys if key.startswith(inside)})
    return "GPENPrior" if decoder is None else decoder[0]


def extract_decoder(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """The decoder's tensors, in its own layout, of a whole `GPEN`; ``None`` of any other state dict."""
    found = detect_layout(state_dict)
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

    It compares the authors' FIR filters with the network's own: with other filters it would be another network.
    """
    inner = {key.removeprefix(prefix): tensor for key, tensor in state_dict.items() if key.startswith(prefix)}
    if inner.keys() == module.state_dict().keys():  # nothing to rename, e.g. where a part of it is compiled
        return
    plain = without_wrapper_prefixes(inner)
    error_msgs.extend(foreign_filters(module, plain))
    for key in inner:
        del state_dict[prefix + key]
    state_dict.update({prefix + key: tensor for key, tensor in from_authors(plain).items()})


def foreign_filters(module: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> list[str]:
    """One sentence for each FIR filter of the authors' layout that differs from the network's own."""
    found = detect_layout(state_dict)
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
    """Whether two FIR filters, (K, K), are equal up to the rounding of half precision. On meta: in shape."""
    return theirs.shape == ours.shape and (ours.is_meta or torch.allclose(theirs.to(ours), ours, atol=1e-3))


def filter_taps(state_dict: Mapping[str, torch.Tensor], where: str = "state dict") -> tuple[float, ...] | None:
    """The FIR taps of a network, the smallest 1; ``None`` where the layout does not store them.

    Raises CheckpointError if the filters of the file differ from each other.
    """
    found = detect_layout(state_dict)
    if found is not None and found in prior_layouts.IMPORTERS:
        return None  # its importer compares them
    stored = {key: tensor for key, tensor in state_dict.items() if key.endswith(".kernel")}
    if not stored:
        return None
    taps = taps_of(next(iter(stored.values())))
    rewritten = to_authors(from_authors(state_dict), taps)
    foreign = [key for key, kernel in stored.items() if not same_filter(kernel, rewritten.get(key, torch.empty(0)))]
    if foreign:
        got = f"its FIR filters differ among each other ({foreign[0]})"
        raise CheckpointError(where, got, "the same taps in all layers", "Download or write it again.")
    return taps


def taps_equal(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two lists of taps make the same filter; their common factor does not matter."""
    return same_filter(fir_kernel(one), fir_kernel(other))


def taps_of(kernel: torch.Tensor) -> tuple[float, ...]:
    """The taps of a separable FIR filter, (K, K), the smallest 1: rows are multiples of them, and so is their sum."""
    line = torch.atleast_2d(kernel).double().flatten(0, -2).sum(dim=0).tolist()  # (K,)
    smallest = min((abs(tap) for tap in line if tap), default=1.0)
    return tuple(round(tap / smallest, 4) for tap in line)


def _squeeze(tensor, pair):
    for _ in range(pair.leading):
        tensor = tensor.squeeze(0)
    for _ in range(pair.trailing):
        tensor = tensor.squeeze(-1)
    return tensor


def _count(keys, pattern):
    return sum(re.fullmatch(pattern, key) is not None for key in keys)


def _prior(layers: int, octaves: int) -> Iterator[KeyPair]:
    for index in range(layers):
        yield KeyPair(f"style.{index + 1}.weight", f"mapping.{index}.weight")
        yield KeyPair(f"style.{index + 1}.bias", f"mapping.{index}.bias")
    yield KeyPair("input.input", "constant")
    yield from _styled_conv("conv1", "blocks.4.conv1", up=False)
    yield from _to_rgb("to_rgb1", "blocks.4.to_rgb", up=False)
    blocks = [f"blocks.{8 << octave}" for octave in range(octaves)]
    for octave, block in enumerate(blocks):
        yield from _styled_conv(f"convs.{2 * octave}", f"{block}.conv0", up=True)
        yield from _styled_conv(f"convs.{2 * octave + 1}", f"{block}.conv1", up=False)
    for octave, block in enumerate(blocks):
        yield from _to_rgb(f"to_rgbs.{octave}", f"{block}.to_rgb", up=True)


def _styled_conv(theirs: str, ours: str, up: bool) -> Iterator[KeyPair]:
    yield KeyPair(f"{theirs}.conv.weight", f"{ours}.weight", leading=1)
    if up:
        yield KeyPair(f"{theirs}.conv.blur.kernel", f"{ours}.kernel")
    yield from _modulation(theirs, ours)
    yield KeyPair(f"{theirs}.noise.weight", f"{ours}.noise_weight")
    yield KeyPair(f"{theirs}.activate.bias", f"{ours}.bias")


def _to_rgb(theirs: str, ours: str, up: bool) -> Iterator[KeyPair]:
    yield KeyPair(f"{theirs}.bias", f"{ours}.bias", leading=1, trailing=2)
    if up:
        yield KeyPair(f"{theirs}.upsample.kernel", f"{ours}.kernel")
    yield KeyPair(f"{theirs}.conv.weight", f"{ours}.weight", leading=1)
    yield from _modulation(theirs, ours)


def _modulation(theirs: str, ours: str) -> Iterator[KeyPair]:
    yield KeyPair(f"{theirs}.conv.modulation.weight", f"{ours}.modulation.weight")
    yield KeyPair(f"{theirs}.conv.modulation.bias", f"{ours}.modulation.bias")


def _encoder(halvings: int) -> Iterator[KeyPair]:
    yield KeyPair("ecd0.0.0.weight", "encoder.stem.weight")
    yield KeyPair("ecd0.0.1.bias", "encoder.stem.bias")
    for index in range(1, halvings + 1):
        layer = f"encoder.down.{4 << (halvings - index)}"
        yield KeyPair(f"ecd{index}.0.0.kernel", f"{layer}.kernel")
        yield KeyPair(f"ecd{index}.0.1.weight", f"{layer}.weight")
        yield KeyPair(f"ecd{index}.0.2.bias", f"{layer}.bias")
    yield KeyPair("final_linear.0.weight", "encoder.to_z.weight")
    yield KeyPair("final_linear.0.bias", "encoder.to_z.bias")


def _discriminator(halvings: int) -> Iterator[KeyPair]:
    yield KeyPair("convs.0.0.weight", "stem.weight")
    yield KeyPair("convs.0.1.bias", "stem.bias")
    for index in range(1, halvings + 1):
        theirs, ours = f"convs.{index}", f"blocks.{8 << (halvings - index)}"
        yield KeyPair(f"{theirs}.conv1.0.weight", f"{ours}.conv1.weight")
        yield KeyPair(f"{theirs}.conv1.1.bias", f"{ours}.conv1.bias")
        yield KeyPair(f"{theirs}.conv2.0.kernel", f"{ours}.conv2.kernel")
        yield KeyPair(f"{theirs}.conv2.1.weight", f"{ours}.conv2.weight")
        yield KeyPair(f"{theirs}.conv2.2.bias", f"{ours}.conv2.bias")
        yield KeyPair(f"{theirs}.skip.0.kernel", f"{ours}.skip.kernel")
        yield KeyPair(f"{theirs}.skip.1.weight", f"{ours}.skip.weight")
    yield KeyPair("final_conv.0.weight", "final_conv.weight")
    yield KeyPair("final_conv.1.bias", "final_conv.bias")
    for index, layer in enumerate(["hidden", "logit"]):
        yield KeyPair(f"final_linear.{index}.weight", f"{layer}.weight")
        yield KeyPair(f"final_linear.{index}.bias", f"{layer}.bias")
