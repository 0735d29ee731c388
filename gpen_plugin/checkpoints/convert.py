"""The work behind ``gpen-convert``: which network of a file goes where, and under what names."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gpen_plugin.archs.key_maps import Layout
from gpen_plugin.archs.layers import check_taps
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.checkpoints.checkpoint import Network, entries, is_network, network_of, report
from gpen_plugin.checkpoints.layouts import USUAL_TAPS, taps_equal, to_layout
from gpen_plugin.errors import CheckpointError, GPENError, OptionError, plain_message

if TYPE_CHECKING:
    from gpen_plugin.checkpoints.targets import Target

AVERAGED = ("params_ema", "g_ema")
"""Entries that hold a running average of the weights; all others hold the weights themselves."""


def convert_file(options: argparse.Namespace, target: "Target") -> None:
    """Write the one file that a command line asks for, and tell what it holds and what was left out."""
    source, left_out = read_networks(options.input[0], options.key)
    judge = None if options.discriminator is None else _read_judge(options.discriminator)
    chosen = select_networks(source, target, judge)
    left_out += [f"{one.entry} ({one.spec})" for one in source if one not in chosen.values()]
    if options.blend:
        share = 0.5 if options.share is None else options.share
        chosen = blend(chosen, select_networks(read_networks(options.blend, options.key)[0], target, judge), share)
    content = convert(chosen, target.layout, options.resample_kernel, half=options.half)
    make_folder(options.output.parent)
    checkpoint.write(options.output, content)
    print(f"{options.output}: written as {options.to}")
    _tell(target, chosen, left_out)


def inspect_file(path: Path) -> bool:
    """Print what a file holds; whether it is sound."""
    try:
        text, sound = report(path)
    except GPENError as error:
        print(f"gpen_plugin: error: {plain_message(error)}", file=sys.stderr, flush=True)
        return False
    print(text)
    return sound


def select_networks(networks: Sequence[Network], target: "Target", judge: Network | None = None) -> dict[str, Network]:
    """Say which network goes where.

    Args:
        networks: of one file. Generators go before discriminators where there is room for one of them.
        target: what is to be written. Of raw and averaged weights, the ones there are stand for missing others.
        judge: the discriminator, where it is not among `networks`.
    Returns:
        By entry; the one network of a flat file by ``""``.
    Raises:
        CheckpointError: the target needs a generator or a discriminator, and there is none; or their sizes differ.
    """
    generators = [network for network in networks if not network.is_discriminator]
    judges = [judge] if judge else [network for network in networks if network.is_discriminator]
    if target.discriminator:
        _check_pair(networks[0].place, generators, judges)
    candidates = generators or judges
    averaged = next((one for one in candidates if one.entry in AVERAGED), candidates[0])
    raw = next((one for one in candidates if one.entry not in AVERAGED), averaged)
    chosen = {target.raw: raw, target.averaged: averaged}  # of a flat file the second, for both names are empty
    return chosen | {target.discriminator: judges[0]} if target.discriminator else chosen


def blend(chosen: dict[str, Network], others: dict[str, Network], share: float) -> dict[str, Network]:
    """Networks between two states of one, weight by weight: Wang et al., ESRGAN, ECCVW 2018, section 3.4.

    It makes sense where one was trained on from the other, or both from a third: weights of trainings that began apart
    have nothing to do with each other.

    Args:
        chosen: as `select_networks` gives them.
        others: likewise, of the other file.
        share: of `others`, from 0 to 1.
    Returns:
        As `chosen`.
    Raises:
        OptionError: the share is not within 0 and 1.
        CheckpointError: the files hold networks of different kinds or sizes.
    """
    if not 0 <= share <= 1:
        raise OptionError("--share", f"got {share:g}", "a number from 0 to 1")
    return {entry: _between(network, others[entry], share) for entry, network in chosen.items()}


def _between(one: Network, other: Network, share: float) -> Network:
    shapes = [{name: tensor.shape for name, tensor in network.tensors.items()} for network in (one, other)]
    if one.spec.kind != other.spec.kind or shapes[0] != shapes[1]:
        raise CheckpointError(f"--blend: {other.place}", f"holds {other.spec}", f"{one.spec}, as {one.place}")
    pairs = {name: (tensor.float(), other.tensors[name].float()) for name, tensor in one.tensors.items()}  # or half
    tensors = {name: torch.lerp(*pair, share) for name, pair in pairs.items()}
    return replace(one, place=f"{one.place} and, to {share:g}, {other.place}", tensors=tensors)


def convert(
    chosen: dict[str, Network], layout: Layout, resample_kernel: Sequence[float] | None = None, *, half: bool = False
) -> dict:
    """Rename the tensors of networks.

    Args:
        chosen: as `select_networks` gives them.
        layout: the names to write.
        resample_kernel: taps of FIR filters that the files do not store; ``None`` means 1 3 3 1.
        half: whether the tensors become float16, which every reader of ours turns back into float32.
    Returns:
        What the file is to hold, ready for `checkpoint.write`.
    Raises:
        CheckpointError: the layout has no names for a network, or a value is too large for half precision.
        OptionError: `resample_kernel` is not what a network was built with.
    """
    renamed = {}
    for network in dict.fromkeys(chosen.values()):
        tensors = to_layout(network.tensors, layout, _taps(network, resample_kernel), network.place)
        # a tensor that is a part of a larger one would be written with the whole of it
        separate = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
        renamed[network] = _halved(separate, network.place) if half else separate
    content = {entry: renamed[network] for entry, network in chosen.items()}
    return content.get("", content)


def _halved(tensors: checkpoint.StateDict, place: str) -> checkpoint.StateDict:
    halved = {name: tensor.half() for name, tensor in tensors.items()}
    for name, tensor in halved.items():
        if not tensor.isfinite().all():
            hint = "Leave --half out, and look at the weights."
            raise CheckpointError(place, f"{name} has values beyond half precision", "up to 65504", hint)
    return halved


def read_networks(path: Path, key: str | None) -> tuple[list[Network], list[str]]:
    """The networks of a file, or of the one entry `key`; and the names of what else it holds.

    Raises:
        CheckpointError: it cannot be read, or holds none of our networks.
    """
    held = {key: checkpoint.read(path, key)} if key else entries(path)
    networks = [network_of(path, entry, value) for entry, value in held.items() if is_network(value)]
    if not networks:
        expected = "weights of a GPEN, GPENPrior, GPENDiscriminator or StyleGAN2"
        got = checkpoint.summarize_file(held.get(None, held))
        raise CheckpointError(str(path), got, expected, "Name the right file or --key.")
    return networks, [str(entry) for entry, value in held.items() if not is_network(value)]


def _read_judge(path: Path) -> Network:
    judge = network_of(path, None, checkpoint.read(path, order=checkpoint.OF_DISCRIMINATOR))
    if not judge.is_discriminator:
        raise CheckpointError(f"--discriminator: {path}", f"holds {judge.spec}", "a GPENDiscriminator")
    return judge


def _check_pair(place: str, generators: Sequence[Network], judges: Sequence[Network]) -> None:
    expected = "a generator and a discriminator for authors-training"
    if not generators:
        raise CheckpointError(place, "holds no generator", expected, "Name the generator's file as the input.")
    if not judges:
        raise CheckpointError(place, "holds no discriminator", expected, "Name its file with --discriminator.")
    sizes = generators[0].spec.out_size, judges[0].spec.out_size
    if sizes[0] != sizes[1]:
        got = f"judges {sizes[1]} px, and {generators[0].place} makes {sizes[0]} px"
        raise CheckpointError(judges[0].place, got, "one size")


def _taps(network: Network, given: Sequence[float] | None) -> Sequence[float]:
    if given is not None:
        check_taps(given)
    if given and network.taps and not taps_equal(given, network.taps):
        stored = f"{' '.join(f'{tap:g}' for tap in network.taps)}, as {network.place} has them"
        raise OptionError("--resample-kernel", f"got {' '.join(f'{tap:g}' for tap in given)}", stored, "Leave it out.")
    return network.taps or given or USUAL_TAPS


def make_folder(folder: Path) -> None:
    """Make a folder for an output. Raises `CheckpointError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        got, expected = f"cannot be made a folder ({error.strerror})", "a folder, or a place where one can be made"
        raise CheckpointError(str(folder), got, expected, "Choose another --output.") from error


def _tell(target: "Target", chosen: dict[str, Network], left_out: Sequence[str]) -> None:
    for entry, network in chosen.items():
        print(f"  {entry or 'flat'}: {network.spec}, from {network.place}")
        if network.taps and not taps_equal(network.taps, USUAL_TAPS) and target.layout != "authors":
            taps = ", ".join(f"{tap:g}" for tap in network.taps)
            print(f"    build it with resample_kernel: [{taps}], for which these names have no room")
    if left_out:
        print(f"  left out: {', '.join(left_out)}")
