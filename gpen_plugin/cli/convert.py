"""Convert weight files from one layout into another, or say what they are.

    python -m gpen_plugin.convert INPUT -o OUTPUT --to ours|basicsr|authors|authors-training|modelscope|stylegan2
    python -m gpen_plugin.convert --inspect INPUT...

Which network the input holds, its size and its widths are read from its tensors; only --half and --blend change values.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpen_plugin.checkpoints import TARGETS
from gpen_plugin.errors import OptionError, handle_errors


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m gpen_plugin.convert", description=__doc__.partition("\n")[0])
    parser.add_argument("input", type=Path, nargs="+", help="weight file: .pth, .pt, .safetensors or NVlabs' .pkl")
    parser.add_argument("-o", "--output", type=Path, help="file to write: .pth, .pt, or .safetensors if it is flat")
    parser.add_argument("--to", choices=TARGETS, help="kind of file to write")
    parser.add_argument("--key", help="entry of the input, e.g. params; default: all that the output can hold")
    parser.add_argument("--mapping", type=Path, metavar="FILE", help="mapping.pt beside PULSE's synthesis.pt")
    license_help = "license of the weights; default: the input's, or that of its code base's published weights"
    parser.add_argument("--license", metavar="TEXT", help=license_help)
    parser.add_argument("--data", metavar="TEXT", help="training data of the weights, for the metadata")
    tasks = ("restore", "colorize", "inpaint", "seg2face")
    stated = "written into the metadata, for a file that does not state it"
    parser.add_argument("--task", choices=tasks, help=f"of a GPEN; {stated}")
    parser.add_argument("--template", help=f"its face alignment: ffhq, gpen, arcface, dlib, or ten numbers; {stated}")
    parser.add_argument("--alpha", type=float, help=f"default weight of its result, 0 to 1; {stated}")
    range_help = f"lowest and highest value of its images; {stated}"
    parser.add_argument("--value-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help=range_help)
    parser.add_argument("--discriminator", type=Path, help="file of the d that authors-training needs")
    taps_help = "taps of the FIR filters to write, default: the input's, or 1 3 3 1"
    parser.add_argument("--resample-kernel", type=float, nargs="+", metavar="TAP", help=taps_help)
    blend_help = "file of the same network at another stage of training: interpolate between the two"
    parser.add_argument("--blend", type=Path, metavar="OTHER", help=blend_help)
    parser.add_argument("--weight", type=float, help="of OTHER in the interpolation, from 0 to 1 (default 0.5)")
    parser.add_argument("--half", action="store_true", help="store the numbers in half precision: half the file size")
    parser.add_argument("--force", action="store_true", help="overwrite the output if it exists; never an input")
    parser.add_argument("--inspect", action="store_true", help="write nothing, say what each input is")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Convert one file, or inspect several; an unreadable one is reported, and the others are inspected.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if the file was written, or if every inspected file is sound; 1 otherwise.
    """
    command = parser()
    options = command.parse_args(argv)
    if not options.inspect:
        if len(options.input) != 1 or options.output is None or options.to is None:
            command.error("give one input, --output and --to; or --inspect")
        if options.discriminator is not None and not TARGETS[options.to].discriminator:
            command.error(f"--discriminator: --to {options.to} holds one network; convert the discriminator on its own")
        if options.weight is not None and options.blend is None:
            command.error("--weight needs --blend")
        inputs = [
            path for path in (*options.input, options.discriminator, options.mapping, options.blend) if path is not None
        ]
        check_output(options.output, inputs, options.force)

    from gpen_plugin.checkpoints.convert import convert_file, inspect_file

    if options.inspect:
        sound = [inspect_file(path) for path in options.input]
        return 0 if all(sound) else 1
    _state_conventions(options)
    convert_file(options, TARGETS[options.to])
    return 0


def _state_conventions(options: argparse.Namespace) -> None:
    """Add to the options what is stated: `conventions` given, and `usual` ones of a file with a released name."""
    from gpen_plugin.checkpoints.metadata import stated
    from gpen_plugin.restore import zoo
    from gpen_plugin.restore.alignment import parse_template

    given = {"task": options.task, "template": options.template, "alpha": options.alpha}
    given["value_range"] = None if options.value_range is None else tuple(options.value_range)
    options.conventions = {name: value for name, value in given.items() if value is not None}
    if options.template is not None:
        parse_template(options.template)
    if options.alpha is not None and not 0 <= options.alpha <= 1:
        raise OptionError("--alpha", f"got {options.alpha:g}", "a number from 0 to 1")
    if options.value_range is not None and not options.value_range[0] < options.value_range[1]:
        raise OptionError("--value-range", f"got {options.value_range}", "the lower number first", "Write -1 1 or 0 1.")
    known = zoo.get_released(options.input[0].name)
    options.usual = {} if known is None else stated(known.conventions)
    options.usual_license = None if known is None or known.is_ours else zoo.NO_LICENSE


def check_output(path: Path, inputs: Sequence[Path], force: bool) -> None:
    """Raise an `OptionError` unless a weight file may be written to `path`: over another only by `force`."""
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        raise OptionError("--output", f"got {path.name}", "a name that ends in .pth, .pt or .safetensors")
    for given in inputs:
        if given.exists() and path.exists() and path.samefile(given):
            hint = "Name a new one: what the layout cannot hold would be lost."
            raise OptionError("--output", f"{path} is an input", "another file", hint)
    if path.exists() and not force:
        raise OptionError("--output", f"{path} is there already", "a free name", "Pass --force to overwrite it.")


if __name__ == "__main__":
    sys.exit(main())
