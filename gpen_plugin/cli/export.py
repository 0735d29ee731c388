"""``gpen-export net_g_latest.pth -o model.onnx``: write a GPEN for other runtimes and compare it with PyTorch."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gpen_plugin.errors import OptionError, handle_errors
from gpen_plugin.export.applications import APPLICATIONS, Application
from gpen_plugin.export.framing import Frame
from gpen_plugin.export.options import OPSETS, SUFFIXES, ExportOptions
from gpen_plugin.restore.alignment import TEMPLATES, parse_template
from gpen_plugin.restore.tasks import TASKS

if TYPE_CHECKING:
    from gpen_plugin.archs.gpen_arch import GPEN
    from gpen_plugin.restore.network import TorchNetwork


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="gpen-export",
        description="Write a GPEN as an ONNX file or as a program of torch.export, and compare it with PyTorch.",
    )
    parser.add_argument("model", metavar="MODEL", help="a weight file, or a released name such as GPEN-BFR-512")
    output_help = "file to write: .onnx, or .pt2 for a program; with --for also the application's folder of models"
    parser.add_argument("-o", "--output", type=Path, required=True, help=output_help)
    for_help = "write the file that this application takes, with its name, size, alignment and one image at a time"
    parser.add_argument("--for", dest="application", choices=APPLICATIONS, help=for_help)
    size_help = "with --for: side of its faces (default: the smallest that keeps the resolution of the result)"
    parser.add_argument("--size", type=int, metavar="PIXELS", help=size_help)
    weight_help = "add an input `weight`, (1,) double, of the restored face: 0 gives the input, 1 the result"
    parser.add_argument("--weight", action="store_true", help=weight_help)
    parser.add_argument("--format", choices=SUFFIXES, help="default: by the output's suffix")
    parser.add_argument(
        "--batch", type=_batch, metavar="N", help="images that the file takes at once, or dynamic: any number (default)"
    )
    parser.add_argument(
        "--precision", choices=["fp32", "fp16"], default="fp32", help="of the convolutions (default fp32)"
    )
    opset_help = f"version of ONNX's operators, {OPSETS[0]} to {OPSETS[-1]} (default {ExportOptions.opset})"
    parser.add_argument("--opset", type=int, default=ExportOptions.opset, metavar="N", help=opset_help)
    parser.add_argument("--template", choices=TEMPLATES, help="alignment of its faces; default: the model's own")
    parser.add_argument("--task", choices=TASKS, help="what it does; default: the released model's task, or restore")
    parser.add_argument("--key", help="entry of the weight file, e.g. params; default: the averaged weights")
    tolerance_help = "largest difference, as a fraction of the value range (default 1e-4, in fp16 1e-2)"
    parser.add_argument("--tolerance", type=float, metavar="FRACTION", help=tolerance_help)
    parser.add_argument("--device", default="cpu", help="device of the comparison and of a program (default cpu)")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Export one network. Returns 0 if the file was written and agrees with PyTorch, 1 otherwise."""
    options = parser().parse_args(argv)
    how = ExportOptions(
        _format(options), options.batch, options.precision, options.opset, options.tolerance, options.weight
    )
    how.check_packages()
    application = None if options.application is None else APPLICATIONS[options.application]
    _check_application(options, application)
    _export(options, how, application)
    return 0


def _check_application(options: argparse.Namespace, application: Application | None) -> None:
    if application is None:
        if options.size is not None:
            raise OptionError("--size", "got it without --for", "an application", "Leave it out.")
        return
    if options.batch not in (None, 1):
        raise OptionError("--batch", f"got {options.batch}", f"1, as {application.name} has it", "Leave it out.")
    if options.weight and not application.takes_weight:
        raise OptionError("--weight", f"got it, but {application.name} has no such input", hint="Leave it out.")


def _export(options: argparse.Namespace, how: ExportOptions, application: Application | None) -> None:
    from gpen_plugin.export.exporter import export
    from gpen_plugin.restore.network import (
        TorchNetwork,
        open_network,
        prepare_for_inference,
        read_gpen,
        warn_of_conflicts,
    )

    if str(options.model).lower().endswith(".onnx"):
        raise OptionError("MODEL", f"{options.model} is an ONNX file already", "weights", "Name their file.")
    network = cast(TorchNetwork, open_network(options.model, key=options.key, device=options.device, runtime="torch"))
    warn_of_conflicts(network, task=options.task, template=options.template)
    path = network.file
    net, spec = read_gpen(path, options.key)  # `network` holds the fused form
    net = prepare_for_inference(net, network.device, fused=False)
    metadata = _metadata(options, path, network, net)
    output, in_size, out_size = options.output, net.in_size, net.out_size
    if application is not None:
        if metadata["gpen.task"] != "restore":
            raise OptionError("--for", f"got a network of the task {metadata['gpen.task']}", "restore")
        own = parse_template(metadata["gpen.template"])
        in_size, frame = application.fit(own, net.in_size, net.out_size, options.size)
        how, out_size = replace(how, batch=1, frame=frame), in_size
        metadata["gpen.template"] = application.templates[in_size]
        metadata["modelspec.resolution"] = f"{in_size}x{in_size}"
        output = application.path_in(output, in_size)
    exported = export(net, output, how, metadata)

    batch = "N" if how.batch is None else how.batch
    sizes = f"({batch}, 3, {in_size}, {in_size}) -> ({batch}, 3, {out_size}, {out_size})"
    kind = f"ONNX opset {how.opset}" if how.format == "onnx" else "program of torch.export"
    print(f"{exported.path}: {spec}")
    print(f"  {kind}, {how.precision}, {sizes}, {exported.path.stat().st_size / 1e6:.1f} MB")
    print(f"  differs from PyTorch by {exported.difference} on {exported.images} images")
    if application is not None:
        application.finish(exported.path)
        print(f"  for {application.name}, folder {application.folder}{_describe(how.frame, net.in_size)}")


def _describe(frame: Frame | None, in_size: int) -> str:
    if frame is None:
        return ""
    return f"; the network sees {in_size / frame.scale:.0f} of its {frame.size} px, in its own alignment"


def _metadata(options: argparse.Namespace, path: Path, network: "TorchNetwork", net: "GPEN") -> dict[str, str]:
    """Stored in the file. Tools that crop faces read their alignment and value range here."""
    from gpen_plugin.checkpoints import checkpoint, metadata

    source = metadata.read(path)
    conventions = metadata.Conventions(
        tuple(network.value_range),
        options.task or network.task,
        options.template or network.template,
        network.alpha,
    )
    return checkpoint.describe(
        net,
        conventions=metadata.stated(conventions),
        title=source.title or path.stem,
        license=checkpoint.license_of(path),
        data=source.data,
        precision=options.precision,
    ).texts()


def _format(options: argparse.Namespace) -> str:
    suffix = options.output.suffix.lower()
    if options.application is not None:
        if suffix == SUFFIXES["program"] or options.format == "program":
            raise OptionError("--for", "got it with a program of torch.export", "an ONNX file or a folder as --output")
        return "onnx"
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
