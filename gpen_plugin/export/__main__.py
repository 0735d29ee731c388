"""``gpen-export net_g_latest.pth -o model.onnx``: a network for other runtimes, checked before it is kept."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gpen_plugin.archs import GPEN
from gpen_plugin.checkpoint import NetworkSpec
from gpen_plugin.errors import OptionError, told_plainly
from gpen_plugin.export.exporting import OPSETS, SUFFIXES, Exported, Plan, export
from gpen_plugin.fetch import find_weights, sha256_of
from gpen_plugin.restore import zoo
from gpen_plugin.restore.face_network import TorchNetwork, open_network, read_gpen, ready
from gpen_plugin.restore.tasks import TASKS
from gpen_plugin.restore.templates import TEMPLATES
from gpen_plugin.version import __version__


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="gpen-export",
        description="Write a GPEN as an ONNX file, or as a program of torch.export, and hold it against PyTorch.",
    )
    parser.add_argument("model", metavar="MODEL", help="a weight file, or a released name such as GPEN-BFR-512")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write: .onnx, or .pt2 for a program")
    parser.add_argument("--format", choices=SUFFIXES, help="default: as the output's suffix says")
    parser.add_argument(
        "--batch", type=_batch, metavar="N", help="how many pictures it takes at once, or dynamic: any number (default)"
    )
    parser.add_argument(
        "--precision", choices=["fp32", "fp16"], default="fp32", help="of the convolutions (default fp32)"
    )
    opset_help = f"version of ONNX's operators, {OPSETS[0]} to {OPSETS[-1]} (default {Plan.opset})"
    parser.add_argument("--opset", type=int, default=Plan.opset, metavar="N", help=opset_help)
    parser.add_argument("--template", choices=TEMPLATES, help="how its faces are aligned; default: as the model's are")
    parser.add_argument("--task", choices=TASKS, help="what it does; default: as the model is known for, or restore")
    parser.add_argument("--key", help="entry of the weight file, e.g. params; default: the averaged weights")
    tolerance_help = "largest difference, as a fraction of the value range (default 1e-4, in fp16 1e-2)"
    parser.add_argument("--tolerance", type=float, metavar="FRACTION", help=tolerance_help)
    parser.add_argument("--device", default="cpu", help="where it is checked, and a program will work (default cpu)")
    return parser


@told_plainly
def main(argv: Sequence[str] | None = None) -> int:
    """Export one network.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if the file was written and agrees with PyTorch, 1 otherwise.
    """
    options = parser().parse_args(argv)
    plan = Plan(_format(options), options.batch, options.precision, options.opset, options.tolerance)
    plan.check_packages()
    network = open_network(options.model, key=options.key, device=options.device)
    if not isinstance(network, TorchNetwork):
        raise OptionError("MODEL", f"{options.model} is an ONNX file already", "weights", "Name their file.")
    net, spec = read_gpen(_weights(options.model), options.key)  # what `network` holds is folded
    exported = export(ready(net, network.device, folded=False), options.output, plan, _facts(options, network, spec))
    _tell(exported, plan, net, spec)
    return 0


def _facts(options: argparse.Namespace, network: TorchNetwork, spec: NetworkSpec) -> dict[str, str]:
    """What the file says about itself. Tools that crop faces read their alignment and value range here."""
    low, high = network.value_range
    return {
        "gpen_version": __version__,
        "gpen_network": str(spec),
        "gpen_weights_sha256": sha256_of(_weights(options.model)),
        "gpen_precision": options.precision,
        "gpen_task": options.task or network.task,
        "gpen_template": options.template or network.template,
        "gpen_alpha": f"{network.alpha:g}",
        "gpen_value_range": f"[{low:g}, {high:g}]",
    }


def _weights(model: str) -> Path:
    """The file of a model that could be opened."""
    path = Path(os.path.expanduser(model))
    return path if path.is_file() else find_weights(zoo.released(path.name).file)


def _format(options: argparse.Namespace) -> str:
    suffix = options.output.suffix.lower()
    named = next((name for name, its in SUFFIXES.items() if its == suffix), None)
    if named is None or options.format not in (None, named):
        expected = f"a name that ends in {SUFFIXES[options.format] if options.format else '.onnx or .pt2'}"
        raise OptionError("--output", f"got {options.output.name}", expected)
    return named


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}; expected a number from 1, or dynamic")
    return int(text)


def _tell(exported: Exported, plan: Plan, net: GPEN, spec: NetworkSpec) -> None:
    batch = "N" if plan.batch is None else plan.batch
    sizes = f"({batch}, 3, {net.in_size}, {net.in_size}) -> ({batch}, 3, {net.out_size}, {net.out_size})"
    kind = f"ONNX opset {plan.opset}" if plan.format == "onnx" else "program of torch.export"
    megabytes = exported.path.stat().st_size / 1e6
    print(f"{exported.path}: {spec}")
    print(f"  {kind}, {plan.precision}, {sizes}, {megabytes:.1f} MB")
    print(f"  differs from PyTorch by {exported.difference} on {exported.pictures} pictures")


if __name__ == "__main__":
    sys.exit(main())
