"""Convert weight files: choose networks, rename their tensors to another layout, interpolate two files."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gpen_plugin.archs.key_maps import (
    USUAL_TAPS,
    Layout,
    fixed_noise,
    from_authors,
    key_pairs,
    rename_keys,
    taps_equal,
    to_authors,
)
from gpen_plugin.archs.layers import check_taps
from gpen_plugin.archs.prior_layouts import refusal
from gpen_plugin.checkpoints import checkpoint, metadata
from gpen_plugin.checkpoints.checkpoint import (
    Network,
    check_stated,
    entries,
    is_network,
    license_in,
    network_of,
    report,
)
from gpen_plugin.checkpoints.metadata import Metadata
from gpen_plugin.checkpoints.network_spec import NetworkSpec, infer_spec
from gpen_plugin.errors import CheckpointError, GPENError, OptionError, plain_message

if TYPE_CHECKING:
    from gpen_plugin.checkpoints import Target

AVERAGED = ("params_ema", "g_ema", "G_ema", "generator_smooth", "g_running", "avgG")
"""Entries that hold a running average of the weights; all others hold the weights themselves."""
_MAX_STYLEGAN2_SIZE = 1024  # of BasicSR's table of channels


def convert_file(options: argparse.Namespace, target: "Target") -> None:
    """Write one file; print its content and what was left out."""
    networks, left_out = read_networks(options.input[0], options.key, options.mapping)
    source, networks = read_stated(options.input[0], networks)
    discriminator = None if options.discriminator is None else _read_discriminator(options.discriminator)
    chosen = select_networks(networks, target, discriminator)
    left_out += [f"{one.entry} ({one.spec})" for one in networks if one not in chosen.values()]
    if options.blend:
        weight = 0.5 if options.weight is None else options.weight
        chosen = interpolate(
            chosen, select_networks(read_networks(options.blend, options.key)[0], target, discriminator), weight
        )
    content = convert(chosen, target.layout, options.resample_kernel, half=options.half)
    stated = _restate(options, source, chosen[target.averaged], content.get(target.averaged, content))
    make_folder(options.output.parent)
    checkpoint.write(options.output, content, stated)
    print(f"{options.output}: written as {options.to}")
    _print_summary(target, chosen, [name for name in left_out if name != "license"])
    if stated.license is not None:
        print(f"  license: {stated.license}")
    if chosen[target.averaged].spec.kind == "GPEN" and "template" not in stated.conventions:
        print("  its alignment is not known, and ffhq is assumed; --template states another")


def read_stated(path: Path, networks: Sequence[Network]) -> tuple[Metadata, list[Network]]:
    """The metadata of a file and its networks, which then have the FIR taps that only the metadata state.

    Metadata of another network than the file's first one are left out, and a line on stderr says so.
    """
    try:
        stated = metadata.read(path)
        check_stated(stated, networks[0].spec, str(path))
    except CheckpointError as error:
        print(f"{plain_message(error)} Its metadata are left out.", file=sys.stderr)
        return Metadata(), list(networks)
    taps = stated.hidden.get("resample_kernel")
    return stated, [replace(network, taps=network.taps or taps) for network in networks]


def _restate(
    options: argparse.Namespace, source: Metadata, network: Network, written: Mapping[str, torch.Tensor]
) -> Metadata:
    """What the file states: what the command line gives, else the input's metadata, else what its name stands for."""
    restores, given = network.spec.kind == "GPEN", options.conventions
    if given and not restores:
        got = f"got it for a {network.spec.kind}"
        raise OptionError(f"--{next(iter(given)).replace('_', '-')}", got, "a GPEN", "Leave it out.")
    for name, value in given.items():
        if source.conventions.get(name, value) != value:
            print(f"{name.replace('_', ' ')}: {value}; the input states {source.conventions[name]}", file=sys.stderr)
    license = options.license or source.license or options.usual_license or license_in(entries(options.input[0]))
    return replace(
        restate(source, network, options.resample_kernel),
        conventions=options.usual | source.conventions | given if restores else {},
        title=source.title or options.input[0].stem,
        license=license,
        data=options.data or source.data,
        weights_sha256=metadata.digest(from_authors(written)),
    )


def restate(source: Metadata, network: Network, resample_kernel: Sequence[float] | None = None) -> Metadata:
    """Metadata of a network that was made from one with the metadata `source`."""
    hidden = dict(source.hidden)
    if network.spec.kind == "GPEN" or network.spec.prior in (None, "GPENPrior"):
        hidden["resample_kernel"] = list(_taps(network, resample_kernel))
    return replace(
        source,
        architecture=network.spec.kind,
        arguments=network.spec.arguments() | hidden,
        weights_sha256=metadata.digest(network.tensors),
    )


def inspect_file(path: Path) -> bool:
    """Print what a file holds. Returns whether all of it is valid."""
    try:
        text, sound = report(path)
    except GPENError as error:
        print(f"gpen_plugin: error: {plain_message(error)}", file=sys.stderr, flush=True)
        return False
    print(text)
    return sound


def select_networks(
    networks: Sequence[Network],  # of one file
    target: "Target",
    discriminator: Network | None = None,  # used if it is not among `networks`
) -> dict[str, Network]:
    """The networks to write by entry; the one network of a flat file by ``""``.

    A generator precedes a discriminator if only one fits. Of raw and averaged weights, those that exist replace missing
    ones. Raises CheckpointError: a required generator or discriminator is missing, or their sizes differ.
    """
    generators = [network for network in networks if not network.is_discriminator]
    discriminators = [discriminator] if discriminator else [network for network in networks if network.is_discriminator]
    if target.discriminator:
        _check_pair(networks[0].where, generators, discriminators)
    candidates = generators or discriminators
    averaged = next((one for one in candidates if one.entry in AVERAGED), candidates[0])
    raw = next((one for one in candidates if one.entry not in AVERAGED), averaged)
    chosen = {target.raw: raw, target.averaged: averaged}  # of a flat file the second, for both names are empty
    return chosen | {target.discriminator: discriminators[0]} if target.discriminator else chosen


def interpolate(
    chosen: dict[str, Network],  # from `select_networks`
    others: dict[str, Network],  # the same of the other file
    weight: float,  # of `others`, from 0 to 1
) -> dict[str, Network]:
    """Interpolate two states of a network, weight by weight: Wang et al., ESRGAN, ECCVW 2018, section 3.4.

    The result is useful only if one was trained from the other, or both from a third. Raises OptionError if `weight` is
    out of range, CheckpointError if the files hold networks of different kinds or sizes.
    """
    if not 0 <= weight <= 1:
        raise OptionError("--weight", f"got {weight:g}", "a number from 0 to 1")
    return {entry: _interpolate_network(network, others[entry], weight) for entry, network in chosen.items()}


def _interpolate_network(one: Network, other: Network, weight: float) -> Network:
    shapes = [{name: tensor.shape for name, tensor in network.tensors.items()} for network in (one, other)]
    if one.spec.kind != other.spec.kind or shapes[0] != shapes[1]:
        raise CheckpointError(f"--blend: {other.where}", f"holds {other.spec}", f"{one.spec}, as {one.where}")
    pairs = {name: (tensor.float(), other.tensors[name].float()) for name, tensor in one.tensors.items()}  # or half
    tensors = {name: torch.lerp(*pair, weight) for name, pair in pairs.items()}
    return replace(one, where=f"{one.where} and, to {weight:g}, {other.where}", tensors=tensors)


def convert(
    chosen: dict[str, Network],  # from `select_networks`
    layout: Layout,  # the names to write
    # taps of FIR filters that the files do not store; None means 1 3 3 1
    resample_kernel: Sequence[float] | None = None,
    *,
    half: bool = False,  # write float16, which all our readers turn back into float32
) -> dict:
    """Rename the tensors of networks; the result is the content for `checkpoint.write`.

    Raises CheckpointError: the layout has no names for a network, or a value is too large for half precision. Raises
    OptionError: `resample_kernel` is not what a network was built with.
    """
    renamed = {}
    for network in dict.fromkeys(chosen.values()):
        tensors = to_layout(network.tensors, layout, _taps(network, resample_kernel), network.where)
        # a tensor that is a part of a larger one would be written with the whole of it
        separate = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
        renamed[network] = _to_fp16(separate, network.where) if half else separate
    content = {entry: renamed[network] for entry, network in chosen.items()}
    return content.get("", content)


def to_layout(
    state_dict: Mapping[str, torch.Tensor],  # flat
    layout: Layout,  # `ours`, `authors` (in their order, with FIR filters) or `stylegan2` (with fixed noise)
    resample_kernel: Sequence[float] = USUAL_TAPS,  # taps with which the network was built
    where: str = "state dict",  # file or key path, for the error
) -> dict[str, torch.Tensor]:
    """Rename and reshape tensors from any layout into any other; no value changes.

    Raises CheckpointError: they are of none of our networks, or the layout has no names for this one.
    """
    spec, ours = infer_spec(state_dict, where), from_authors(state_dict)
    if layout == "ours":
        return ours
    if spec.prior not in (None, "GPENPrior"):
        expected = "a StyleGAN2: other priors have no names in this layout"
        raise CheckpointError(where, f"holds {spec}", expected, "Use --to ours or basicsr.")
    if layout == "authors":
        return to_authors(ours, resample_kernel)
    _check_stylegan2(spec, where)
    renamed = rename_keys(ours, key_pairs(spec.kind, ours, "stylegan2"), resample_kernel)
    return renamed | fixed_noise(spec.out_size) if spec.kind == "GPENPrior" else renamed


def _check_stylegan2(spec: NetworkSpec, where: str) -> None:
    expected = "for StyleGAN2's names a GPENPrior with noise_mode add, or a GPENDiscriminator"
    if spec.kind == "GPEN" or spec.noise_mode not in (None, "add"):
        raise CheckpointError(where, f"holds {spec}", expected, "Use another layout.")
    if spec.out_size > _MAX_STYLEGAN2_SIZE:
        raise CheckpointError(where, f"holds {spec}", f"at most {_MAX_STYLEGAN2_SIZE} px", "Use another layout.")


def _to_fp16(tensors: checkpoint.StateDict, where: str) -> checkpoint.StateDict:
    halved = {name: tensor.half() for name, tensor in tensors.items()}
    for name, tensor in halved.items():
        if not tensor.isfinite().all():
            hint = "Leave --half out, and check the weights."
            raise CheckpointError(where, f"{name} has values beyond half precision", "up to 65504", hint)
    return halved


def read_networks(path: Path, key: str | None, more: Path | None = None) -> tuple[list[Network], list[str]]:
    """Networks of a file, or of its entry `key`, and names of its other entries. CheckpointError: no network.

    `more` is a flat file with the rest of a flat file's tensors: PULSE's mapping network.
    """
    held = {key: checkpoint.read(path, key)} if key else entries(path)
    if more is not None:
        held = {None: {**checkpoint.read(path, key), **checkpoint.read(more)}}
    for value in held.values():
        if isinstance(value, Mapping) and refusal(value):
            expected, hint = "a StyleGAN2, StyleGAN v1 or PGGAN", "Name another file."
            raise CheckpointError(str(path), refusal(value), expected, hint)
    networks = [network_of(path, entry, value) for entry, value in held.items() if is_network(value)]
    if not networks:
        expected = "weights of a GPEN, GAN prior, GPENDiscriminator or StyleGAN"
        got = checkpoint.summarize_file(held.get(None, held))
        raise CheckpointError(str(path), got, expected, "Name the right file or --key.")
    return networks, [str(entry) for entry, value in held.items() if not is_network(value)]


def _read_discriminator(path: Path) -> Network:
    discriminator = network_of(path, None, checkpoint.read(path, order=checkpoint.OF_DISCRIMINATOR))
    if not discriminator.is_discriminator:
        raise CheckpointError(f"--discriminator: {path}", f"holds {discriminator.spec}", "a GPENDiscriminator")
    return discriminator


def _check_pair(where: str, generators: Sequence[Network], discriminators: Sequence[Network]) -> None:
    expected = "a generator and a discriminator for authors-training"
    if not generators:
        raise CheckpointError(where, "holds no generator", expected, "Name the generator's file as the input.")
    if not discriminators:
        raise CheckpointError(where, "holds no discriminator", expected, "Name its file with --discriminator.")
    sizes = generators[0].spec.out_size, discriminators[0].spec.out_size
    if sizes[0] != sizes[1]:
        got = f"takes {sizes[1]} px, but {generators[0].where} makes {sizes[0]} px"
        raise CheckpointError(discriminators[0].where, got, "one size")


def _taps(network: Network, given: Sequence[float] | None) -> Sequence[float]:
    if given is not None:
        check_taps(given)
    if given and network.taps and not taps_equal(given, network.taps):
        stored = f"{' '.join(f'{tap:g}' for tap in network.taps)}, as {network.where} has them"
        raise OptionError("--resample-kernel", f"got {' '.join(f'{tap:g}' for tap in given)}", stored, "Leave it out.")
    return network.taps or given or USUAL_TAPS


def make_folder(folder: Path) -> None:
    """Make a folder for an output. Raises `CheckpointError` if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        got, expected = f"cannot be created ({error.strerror})", "a folder that exists or can be made"
        raise CheckpointError(str(folder), got, expected, "Choose another --output.") from error


def _print_summary(target: "Target", chosen: dict[str, Network], left_out: Sequence[str]) -> None:
    for entry, network in chosen.items():
        print(f"  {entry or 'flat'}: {network.spec}, from {network.where}")
        if network.taps and not taps_equal(network.taps, USUAL_TAPS) and target.layout != "authors":
            taps = ", ".join(f"{tap:g}" for tap in network.taps)
            print(f"    build it with resample_kernel: [{taps}], which this layout does not store")
    if left_out:
        print(f"  left out: {', '.join(left_out)}")
