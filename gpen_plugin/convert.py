"""Convert weight files from one layout into another, or say what they are.

    python -m gpen_plugin.convert INPUT -o OUTPUT --to ours|basicsr|authors|authors-training|modelscope|stylegan2
    python -m gpen_plugin.convert --inspect INPUT...

Which network the input holds, its size and its widths are read off its tensors; no value changes.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gpen_plugin import checkpoint
from gpen_plugin.archs.authors_keys import Layout
from gpen_plugin.archs.layers import check_taps
from gpen_plugin.archs.layouts import USUAL_TAPS, same_taps, to_layout
from gpen_plugin.errors import CheckpointError, GPENError, OptionError, plain_message, told_plainly
from gpen_plugin.weight_file import Network, entries, is_network, network_of, report

AVERAGED = ("params_ema", "g_ema")
"""Entries that hold a running average of the weights; all others hold the weights themselves."""


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        layout: whose names its tensors have.
        raw: entry of the weights themselves; empty in a flat file, which holds the averaged ones where there are any.
        averaged: entry of their average.
        judge: entry of the discriminator; empty where a file holds one network and its average alone.
    """

    layout: Layout
    raw: str = ""
    averaged: str = ""
    judge: str = ""


TARGETS = {
    "ours": Target("ours"),
    "basicsr": Target("ours", "params", "params_ema"),
    "authors": Target("authors"),
    "authors-training": Target("authors", "g", "g_ema", "d"),
    "modelscope": Target("authors"),
    "stylegan2": Target("stylegan2", "params", "params_ema"),
}


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m gpen_plugin.convert", description=__doc__.partition("\n")[0])
    parser.add_argument("input", type=Path, nargs="+", help="weight file: .pth, .pt or .safetensors")
    parser.add_argument("-o", "--output", type=Path, help="file to write: .pth, .pt, or .safetensors if it is flat")
    parser.add_argument("--to", choices=TARGETS, help="kind of file to write")
    parser.add_argument("--key", help="entry of the input, e.g. params; default: all that the output can hold")
    parser.add_argument("--discriminator", type=Path, help="file of the d that authors-training needs")
    taps_help = "taps of the FIR filters to write, default: the input's, or 1 3 3 1"
    parser.add_argument("--resample-kernel", type=float, nargs="+", metavar="TAP", help=taps_help)
    parser.add_argument("--force", action="store_true", help="overwrite the output if it exists; never an input")
    parser.add_argument("--inspect", action="store_true", help="write nothing, say what each input is")
    return parser


@told_plainly
def main(argv: Sequence[str] | None = None) -> int:
    """Convert one file, or inspect several; one that cannot be inspected is reported, and the others go on.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if the file was written, or if every inspected file is sound; 1 otherwise.
    """
    options = parser().parse_args(argv)
    if options.inspect:
        sound = [_inspect(path) for path in options.input]
        return 0 if all(sound) else 1
    if len(options.input) != 1 or options.output is None or options.to is None:
        parser().error("give one input, --output and --to; or --inspect")
    if options.discriminator is not None and not TARGETS[options.to].judge:
        parser().error(f"--discriminator: --to {options.to} holds one network; convert the discriminator on its own")
    _check_output(options)
    source, left_out = _read(options.input[0], options.key)
    judge = None if options.discriminator is None else _read_judge(options.discriminator)
    chosen = choose(source, TARGETS[options.to], judge)
    content = convert(chosen, TARGETS[options.to].layout, options.resample_kernel)
    _make_folder(options.output.parent)
    checkpoint.write(options.output, content)
    left_out += [f"{one.entry} ({one.spec})" for one in source if one not in chosen.values()]
    _tell(options.output, options.to, chosen, left_out)
    return 0


def choose(networks: Sequence[Network], target: Target, judge: Network | None = None) -> dict[str, Network]:
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
    if target.judge:
        _check_pair(networks[0].place, generators, judges)
    candidates = generators or judges
    averaged = next((one for one in candidates if one.entry in AVERAGED), candidates[0])
    raw = next((one for one in candidates if one.entry not in AVERAGED), averaged)
    chosen = {target.raw: raw, target.averaged: averaged}  # of a flat file the second, for both names are empty
    return chosen | {target.judge: judges[0]} if target.judge else chosen


def convert(chosen: dict[str, Network], layout: Layout, resample_kernel: Sequence[float] | None = None) -> dict:
    """Rename the tensors of networks.

    Args:
        chosen: as `choose` gives them.
        layout: the names to write.
        resample_kernel: taps of FIR filters that the files do not store; ``None`` means 1 3 3 1.
    Returns:
        What the file is to hold, ready for `checkpoint.write`.
    Raises:
        CheckpointError: the layout has no names for a network.
        OptionError: `resample_kernel` is not what a network was built with.
    """
    renamed = {}
    for network in dict.fromkeys(chosen.values()):
        tensors = to_layout(network.tensors, layout, _taps(network, resample_kernel), network.place)
        # a tensor that is a part of a larger one would be written with the whole of it
        renamed[network] = {
            name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
    content = {entry: renamed[network] for entry, network in chosen.items()}
    return content.get("", content)


def _read(path: Path, key: str | None) -> tuple[list[Network], list[str]]:
    """The networks of a file, and the names of what else it holds."""
    held = {key: checkpoint.read(path, key)} if key else entries(path)
    networks = [network_of(path, entry, value) for entry, value in held.items() if is_network(value)]
    if not networks:
        expected = "weights of a GPEN, GPENPrior, GPENDiscriminator or StyleGAN2"
        came = checkpoint.contents(held.get(None, held))
        raise CheckpointError(str(path), came, expected, "Name the right file or --key.")
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
        came = f"judges {sizes[1]} px, and {generators[0].place} makes {sizes[0]} px"
        raise CheckpointError(judges[0].place, came, "one size")


def _taps(network: Network, given: Sequence[float] | None) -> Sequence[float]:
    if given is not None:
        check_taps(given)
    if given and network.taps and not same_taps(given, network.taps):
        stored = f"{' '.join(f'{tap:g}' for tap in network.taps)}, as {network.place} has them"
        raise OptionError("--resample-kernel", f"got {' '.join(f'{tap:g}' for tap in given)}", stored, "Leave it out.")
    return network.taps or given or USUAL_TAPS


def _check_output(options: argparse.Namespace) -> None:
    path = options.output
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        raise OptionError("--output", f"got {path.name}", "a name that ends in .pth, .pt or .safetensors")
    for given in (*options.input, options.discriminator):
        if given is not None and given.exists() and path.exists() and path.samefile(given):
            way_out = "Name a new one: what the layout has no room for would be lost."
            raise OptionError("--output", f"{path} is an input", "another file", way_out)
    if path.exists() and not options.force:
        raise OptionError("--output", f"{path} is there already", "a free name", "Pass --force to overwrite it.")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        came, expected = f"cannot be made a folder ({error.strerror})", "a folder, or a place where one can be made"
        raise CheckpointError(str(folder), came, expected, "Choose another --output.") from error


def _tell(path: Path, kind: str, chosen: dict[str, Network], left_out: Sequence[str]) -> None:
    print(f"{path}: written as {kind}")
    for entry, network in chosen.items():
        print(f"  {entry or 'flat'}: {network.spec}, from {network.place}")
        if network.taps and not same_taps(network.taps, USUAL_TAPS) and TARGETS[kind].layout != "authors":
            taps = ", ".join(f"{tap:g}" for tap in network.taps)
            print(f"    build it with resample_kernel: [{taps}], for which these names have no room")
    if left_out:
        print(f"  left out: {', '.join(left_out)}")


def _inspect(path: Path) -> bool:
    try:
        text, sound = report(path)
    except GPENError as error:
        print(f"gpen_plugin: error: {plain_message(error)}", file=sys.stderr, flush=True)
        return False
    print(text)
    return sound


if __name__ == "__main__":
    sys.exit(main())
