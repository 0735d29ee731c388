"""``gpen-export net_g_latest.pth -o model.onnx``: a network for other runtimes, checked before it is kept."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpen_plugin.errors import OptionError, handle_errors
from gpen_plugin.export.plan import OPSETS, SUFFIXES, Plan
from gpen_plugin.restore.alignment import TEMPLATES
from gpen_plugin.restore.tasks import TASKS


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
        "--batch", type=_batch, metavar="N", help="how many images it takes at once, or dynamic: any number (default)"
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


@handle_errors
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

    from gpen_plugin.export.command import run  # brings PyTorch

    run(options, plan)
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
