"""Infer from the shapes of its tensors which network a state dict is of."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping

import torch

from gpen_plugin.archs.key_maps import Kind, Layout, PriorKind, detect_layout, from_authors, prior_kind
from gpen_plugin.archs.layers import NoiseMode, channels_of, check_size, resolutions
from gpen_plugin.archs.prior_layouts import refusal
from gpen_plugin.archs.published_files import published_network
from gpen_plugin.errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """What the shapes in a state dict say about its network."""

    kind: Kind
    out_size: int  # height and width of the image
    in_size: int | None  # height and width that the encoder takes; None unless `GPEN`
    channel_multiplier: float | None  # None up to 32 px, where it changes nothing
    narrow: float  # factor of all channels
    num_style_feat: int | None  # length of the latent code; None for a discriminator
    num_mlp: int | None  # layers of the mapping network; None for a discriminator, and a prior without one
    noise_mode: NoiseMode | None  # None for a discriminator
    layout: Layout  # `authors` is GPEN's and the StyleGAN2 that they built upon, `stylegan2` BasicSR's
    prior: PriorKind | None  # of a `GPEN`, or the network itself; None for a discriminator
    bias_before_blur: bool | None = None  # of a `StyleGAN1Prior`, else None

    def arguments(self) -> dict[str, int | float | str | dict]:
        """Keyword arguments of the network's class; what no shape shows is left to the defaults."""
        own = () if self.kind == "StyleGAN1Prior" else ("bias_before_blur",)
        arguments = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("kind", "layout", "prior", *own) and getattr(self, field.name) is not None
        }
        if self.kind == "GPEN" and self.prior != "GPENPrior":
            arguments["prior"] = {"type": self.prior}
            if self.bias_before_blur is not None:
                arguments["prior"]["bias_before_blur"] = self.bias_before_blur
        return arguments

    def __str__(self) -> str:
        parts = [f"{self.kind} {self.out_size} px"]
        if self.kind == "GPEN" and self.prior != "GPENPrior":
            parts.append(f"prior {self.prior}")
        if self.in_size not in (None, self.out_size):
            parts.append(f"input {self.in_size} px")
        if self.channel_multiplier is not None:
            parts.append(f"channel_multiplier {self.channel_multiplier:g}")
        parts.append(f"narrow {self.narrow:g}")
        if self.noise_mode is not None:
            parts.append(f"noise {self.noise_mode}")
        if self.num_mlp is None and (self.num_style_feat or 512) != 512:
            parts.append(f"latent code of {self.num_style_feat}")
        elif (self.num_style_feat or 512, self.num_mlp or 8) != (512, 8):
            parts.append(f"{self.num_mlp} mapping layers of {self.num_style_feat}")
        return ", ".join(parts)


def infer_spec(
    state_dict: Mapping[str, torch.Tensor],
    where: str = "state dict",  # file or key path, for the error
) -> NetworkSpec:
    """Infer from the shapes which network a flat state dict is of, in any layout. Raises CheckpointError if of none.

    The learning rate's factor, the FIR taps and the value range leave no trace in the shapes.
    """
    found = detect_layout(state_dict)
    if found is None:
        reason = refusal(state_dict)
        if reason is not None:
            raise CheckpointError(where, reason, "a StyleGAN2, StyleGAN v1 or PGGAN", "Name another file.")
        expected = "the weights of a GPEN, GPENPrior or GPENDiscriminator"
        raise CheckpointError(where, summarize_file(state_dict), expected, "Name the right entry or file.")
    kind, layout = found
    try:
        shapes = {key: tuple(tensor.shape) for key, tensor in from_authors(state_dict).items()}
    except CheckpointError as error:
        raise CheckpointError(where, error.got, error.expected, error.hint) from error
    try:
        return _spec(kind, layout, shapes)
    except (KeyError, IndexError, ValueError) as error:
        got = f"a {kind} with tensors missing or misshapen ({error})"
        raise CheckpointError(where, got, "all tensors of one network", "Download or write it again.") from error


def summarize_file(content: Mapping) -> str:
    """What a file of another method holds, or the first names in a file, for an error message."""
    names = [str(name) for name in content]
    known = published_network(names)
    if known is not None:
        return f"holds {known}"
    return f"holds {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}" if names else "holds nothing"


def _spec(kind: Kind, layout: Layout, shapes: Shapes) -> NetworkSpec:
    inside = "decoder." if kind == "GPEN" else ""
    widths = _by_resolution(shapes, rf"{inside}blocks\.(\d+)\.conv1\.weight")
    if kind == "GPENDiscriminator":
        widths[4] = shapes["final_conv.weight"][0]
    if f"{inside}linear.weight" in shapes:  # a BigGANPrior, which has no convolution at 4 px
        widths[4] = shapes[f"{inside}linear.weight"][0] // 16
    narrow, channel_multiplier = _factors(widths)
    encoder = _by_resolution(shapes, r"encoder\.down\.(\d+)\.weight")
    prior = prior_kind(shapes)
    num_mlp = sum(re.fullmatch(rf"{inside}mapping\.\d+\.weight", key) is not None for key in shapes)
    return NetworkSpec(
        kind=kind,
        out_size=max(widths),
        in_size=2 * max(encoder) if kind == "GPEN" else None,
        channel_multiplier=channel_multiplier,
        narrow=narrow,
        num_style_feat=shapes[f"{inside}{_READS_CODE[prior]}.weight"][1] if prior else None,
        num_mlp=num_mlp or None,
        noise_mode=_noise_mode(shapes, inside, prior) if prior else None,
        layout=layout,
        prior=prior,
        bias_before_blur=f"{inside}blocks.8.conv0.blurred_bias" in shapes if prior == "StyleGAN1Prior" else None,
    )


_READS_CODE = {
    "GPENPrior": "blocks.4.conv1.modulation",
    "StyleGAN1Prior": "blocks.4.conv1.style",
    "PGGANPrior": "dense",
    "BigGANPrior": "linear",
}
"""A layer that takes a latent code."""


def _by_resolution(shapes: Shapes, pattern: str) -> dict[int, int]:
    """The output channels of the layers whose keys match, by the resolution in the key."""
    matches = {key: re.fullmatch(pattern, key) for key in shapes}
    return {int(match[1]): shapes[key][0] for key, match in matches.items() if match}


def _noise_mode(shapes: Shapes, inside: str, prior: PriorKind) -> NoiseMode:
    if prior == "BigGANPrior":
        own, taken = shapes[f"{inside}blocks.8.conv2.weight"][:2]
        return "concat" if taken == 2 * own else "add" if f"{inside}blocks.8.noise1.noise_weight" in shapes else "none"
    conv = f"{inside}blocks.4.conv1"
    own, taken = shapes[f"{conv}.weight"][:2]
    if (shapes[f"{conv}.bias"][0] if prior == "GPENPrior" else taken) == 2 * own:
        return "concat"
    return "add" if f"{conv}.noise_weight" in shapes else "none"


def _factors(widths: dict[int, int]) -> tuple[float, float | None]:
    """The shortest `narrow` and `channel_multiplier` that give these channels by resolution."""
    check_size("out_size", max(widths))
    narrow = _shortest(widths[4] / 512, lambda factor: channels_of(4, 1, factor) == widths[4])
    multiplier = None
    if 64 in widths:
        guess = widths[64] / (256 * narrow)
        multiplier = _shortest(guess, lambda factor: channels_of(64, factor, narrow) == widths[64])
    expected = {size: channels_of(size, multiplier or 1, narrow) for size in resolutions(max(widths))}
    if widths != expected:
        raise ValueError(f"channels by resolution {widths} are those of no channel_multiplier and narrow")
    return narrow, multiplier


def _shortest(guess: float, fits: Callable[[float], bool]) -> float:
    """The number with the fewest decimals near `guess` that fits; widths were rounded down, so many do."""
    candidates = [round(guess, digits) for digits in range(16)] + [math.nextafter(guess, math.inf)]
    found = next((factor for factor in candidates if factor > 0 and fits(factor)), guess)
    return int(found) if found == int(found) else found
