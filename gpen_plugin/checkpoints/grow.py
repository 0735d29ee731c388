"""Make a larger network of a trained one: what is copied, how new layers start (``python -m gpen_plugin.grow``)."""

import argparse
import math
from dataclasses import replace

import torch

from gpen_plugin.archs.layers import NoiseMode, check_positive
from gpen_plugin.checkpoints import TARGETS, checkpoint
from gpen_plugin.checkpoints.checkpoint import build
from gpen_plugin.checkpoints.convert import make_folder, read_networks, read_stated, restate, select_networks
from gpen_plugin.checkpoints.network_spec import NetworkSpec
from gpen_plugin.errors import OptionError
from gpen_plugin.ops import bias_act

QUIET = 0.25
"""Size of the new kernels that read concatenated noise, as a fraction of a fresh kernel's. Demodulation divides a
kernel by its norm, so new kernels shrink the old ones: by about 3 % with this, by 29 % with kernels of full size. With
kernels of zero, noise would never be learnt: its weight starts at zero, and neither of two zeros gets a gradient."""

PAIRS = 6
"""Channels of an image's colors, unchanged and negated."""


def grow_file(options: argparse.Namespace) -> None:
    """Write the file that a command line requests, and print its content."""
    networks, _ = read_networks(options.input, options.key)
    source, networks = read_stated(options.input, networks)
    grown = {}
    for entry, network in select_networks(networks, TARGETS["basicsr"]).items():
        target = grown_spec(network.spec, options.out_size, options.noise_mode, options.channel_multiplier)
        grown[entry] = replace(network, spec=target, tensors=grow(network.tensors, target, options.seed))
    make_folder(options.output.parent)
    stated = replace(
        restate(source, grown[TARGETS["basicsr"].averaged]),
        license=source.license or checkpoint.license_in(checkpoint.entries(options.input)),
        title=options.output.stem,
    )
    checkpoint.write(options.output, {entry: network.tensors for entry, network in grown.items()}, stated)
    for entry, network in grown.items():
        print(f"{options.output} [{entry}]: {network.spec}, from {network.where}")
    print(network.option_lines(stated))


def grown_spec(
    spec: NetworkSpec,  # of the trained network
    out_size: int | None = None,  # new size; None keeps it
    noise_mode: NoiseMode | None = None,  # new noise mode; None keeps it
    channel_multiplier: float | None = None,  # of sizes above 32 px, where `spec` has none; 2 if not given
) -> NetworkSpec:
    """The larger network; the input of a `GPEN` keeps its fraction of the size.

    Raises OptionError: nothing would change, the size would shrink, a discriminator was given a noise mode, or
    `channel_multiplier` has no effect.
    """
    if noise_mode and spec.noise_mode is None:
        raise OptionError("--noise-mode", f"got {noise_mode} for a {spec.kind}", "a generator", "Leave it out.")
    out_size, noise_mode = spec.out_size if out_size is None else out_size, noise_mode or spec.noise_mode
    if out_size < spec.out_size:
        raise OptionError("--out-size", f"got {out_size}", f"more than the {spec.out_size} px that the file has")
    multiplier = spec.channel_multiplier
    if channel_multiplier is not None:
        check_positive("--channel-multiplier", channel_multiplier)
        if multiplier is not None or out_size <= 32:
            got, expected = f"got {channel_multiplier:g}", f"none: {spec} keeps its widths"
            raise OptionError("--channel-multiplier", got, expected, "Leave it out.")
    if multiplier is None and out_size > 32:
        multiplier = 2 if channel_multiplier is None else channel_multiplier
    if noise_mode != spec.noise_mode and spec.prior == "BigGANPrior":
        got, hint = f"got {noise_mode} for a BigGANPrior", "Train it in this mode from the start."
        raise OptionError("--noise-mode", got, "another prior: spectral normalization would scale its kernels", hint)
    if out_size > spec.out_size and spec.prior not in (None, "GPENPrior"):
        got, expected = f"got {out_size} for a {spec.prior}", f"{spec.out_size}: its image comes from its last block"
        hint = "Train it at this size from the start. --noise-mode can be changed."
        raise OptionError("--out-size", got, expected, hint)
    in_size = None if spec.in_size is None else spec.in_size * out_size // spec.out_size
    target = replace(
        spec,
        out_size=out_size,
        in_size=in_size,
        noise_mode=noise_mode,
        channel_multiplier=multiplier,
        layout="ours",
    )
    if target == replace(spec, layout="ours"):
        raise OptionError("--out-size", f"the file holds {spec} already", "another size or --noise-mode")
    return target


def grow(
    tensors: checkpoint.StateDict,  # in our layout, of any floating dtype
    target: NetworkSpec,  # from `grown_spec`
    seed: int = 0,  # of what is new
) -> checkpoint.StateDict:
    """Fill a larger network, or one of another noise mode, with the weights of a trained one: float32, on the CPU.

    Common tensors are copied; kernels gain columns for noise that is concatenated from now on, or lose them with all
    they learnt from it. The noise weights start at zero in a new mode, as in a fresh prior. The finer blocks of a
    larger prior start with images of zeros: at first it generates the smaller one's images, enlarged.

    A larger discriminator or encoder has a new stem and new outer blocks. They start by halving the image and computing
    what the old stem did, so that the inputs of the old blocks stay: at first the outputs of a larger `GPEN` or
    discriminator are those of the smaller one. That needs six channels; narrower ones start at random.
    """
    before, demodulates = checkpoint.infer_spec(tensors), target.prior in (None, "GPENPrior")
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        grown = build(target).state_dict()
    for name, fresh in grown.items():
        old = tensors[name].to(fresh.dtype) if name in tensors else None
        if name.endswith("to_rgb.weight"):
            grown[name] = torch.zeros_like(fresh) if old is None else _resized_kernel(old, fresh)
        elif old is not None and not demodulates and "blocks." in name and fresh.ndim == 4:
            grown[name] = _resized_kernel(old, fresh, size=1)  # nothing that shrinks the old columns
        elif old is not None and not _is_reset(name, before, target):
            grown[name] = _resized(old, fresh)
    if before.out_size != target.out_size and target.kind != "GPENPrior":
        _pass_image_to_old_stem(grown, tensors, before, target)
    return grown


def _pass_image_to_old_stem(
    grown: checkpoint.StateDict, tensors: checkpoint.StateDict, before: NetworkSpec, target: NetworkSpec
):
    """Let the new outer layers pass the image on, and the last of them compute the old stem.

    A color passes as a pair of channels, unchanged and negated: the difference of the two undoes a leaky ReLU.
    """
    encoder = "encoder." if target.kind == "GPEN" else ""
    size, smallest = (target.in_size, before.in_size) if encoder else (target.out_size, before.out_size)
    stem = grown[f"{encoder}stem.weight"]
    if len(stem) < PAIRS:  # it is the narrowest of the new layers
        return
    old, bias = (tensors[f"{encoder}stem.{part}"].float() for part in ("weight", "bias"))
    unit = torch.cat([torch.eye(3), -torch.eye(3)])
    stem[:PAIRS] = unit[:, :, None, None]
    while size > smallest:
        size //= 2
        what = (unit, None) if size > smallest else (old[:, :, 0, 0], bias)
        if encoder:
            _pass_image_on(grown, f"encoder.down.{size}", *what)
        else:  # its sum with the skip path is divided by the root of 2
            _pass_image_on(grown, f"blocks.{2 * size}.conv1", unit, None)
            _pass_image_on(grown, f"blocks.{2 * size}.conv2", *what, gain=math.sqrt(2))
            grown[f"blocks.{2 * size}.skip.weight"][: len(what[0])] = 0


def _pass_image_on(
    grown: checkpoint.StateDict, layer: str, colors: torch.Tensor, bias: torch.Tensor | None, gain: float = 1
) -> None:
    """Make the first channels of a layer linear in the image that arrives as pairs: `colors` is (O, 3)."""
    weight = grown[f"{layer}.weight"]
    scale = 1 / math.sqrt(weight[0].numel())
    up, down = bias_act(torch.tensor([[1.0, -1.0]]), torch.zeros(2))[0]
    slope = up - down  # of the difference of a pair behind its leaky ReLUs
    middle, rows = weight.shape[2] // 2, len(colors)
    weight[:rows] = 0
    weight[:rows, :PAIRS, middle, middle] = torch.cat([colors, -colors], dim=1) * gain / (slope * scale)
    if bias is not None:
        grown[f"{layer}.bias"][:] = bias * gain


def _is_reset(name: str, before: NetworkSpec, target: NetworkSpec) -> bool:
    """Whether a common tensor depends on noise of another mode or on images of another size."""
    if name.endswith("noise_weight"):
        return before.noise_mode != target.noise_mode
    return "stem." in name and before.out_size != target.out_size


def _resized(old: torch.Tensor, fresh: torch.Tensor, size: float = QUIET) -> torch.Tensor:
    """`old` in the shape of `fresh`, both (A, ...) of equal rank: cropped, or with the end of `fresh` behind it.

    `size` multiplies that end of a kernel.
    """
    if old.shape == fresh.shape:
        return old.clone()
    new = fresh.clone() * (size if fresh.ndim == 4 else 1)
    common = tuple(slice(min(sizes)) for sizes in zip(old.shape, fresh.shape, strict=True))
    new[common] = old[common]
    return new


def _resized_kernel(old: torch.Tensor, fresh: torch.Tensor, size: float = QUIET) -> torch.Tensor:
    """A kernel (O, I, k, k) whose layer divides by the root of I and does not demodulate."""
    return _resized(old * math.sqrt(fresh.shape[1] / old.shape[1]), fresh, size)
