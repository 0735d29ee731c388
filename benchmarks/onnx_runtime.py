"""The exported ONNX file in onnxruntime, our fast path, the reference, and an ONNX file as the field has it.

    python benchmarks/onnx_runtime.py --threads 2
    python benchmarks/onnx_runtime.py --provider openvino --model GPEN-Faces-256

The field's file, which face applications run, comes straight from PyTorch code such as the authors': upsampling that
stuffs zeros, a FIR that pads and convolves, and a grouped convolution with kernels made for each face. Here it is
written from the reference ops, for one face.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from inference import FUSED, REFERENCE, RELEASED, arms, network
from measure import Comparison, check_close, compare, flop_of, not_measured, parser, report

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.errors import MissingFileError
from gpen_plugin.export.exporter import FileNetwork, export, suppress_warnings
from gpen_plugin.export.options import ExportOptions
from gpen_plugin.nets.loading import OnnxNetwork
from gpen_plugin.ops import force_implementation
from gpen_plugin.ops.memory import keep_freed_memory
from gpen_plugin.restore.network import load

FIELD = "the field's file"
TOLERANCES = {"cpu": 1e-4, "cuda": 1e-2}  # of the range: on a GPU, onnxruntime convolves in TF32
EXPORTED = "onnxruntime"  # with the file that gpen-export writes
PAIRS = ((FIELD, EXPORTED, None), (EXPORTED, FUSED, 1), (REFERENCE, EXPORTED, None))  # baseline, ours, wanted ratio
LEFT_OUT = (
    "ONNX: the convolutions' kernels scaled by the styles, in place of the features. It ran slower at 256 px: "
    "onnxruntime arranges constant kernels for the processor when it opens a file, and cannot with others.",
    "ONNX: the noise's weight, bias and leaky ReLU as a convolution of one pixel per channel, which onnxruntime runs "
    "in one pass. It made no clear difference at 256 px.",
)


def export_as_the_field(net: GPEN, path: Path) -> Path:
    """Write the network as it is, on the reference ops, for one face."""
    face = torch.zeros(1, 3, net.in_size, net.in_size)
    with suppress_warnings(), force_implementation("reference"), torch.no_grad():
        torch.onnx.export(FileNetwork(net, None), (face,), path, opset_version=ExportOptions().opset, dynamo=False)
    return path


def face(what: str, net: GPEN, options: argparse.Namespace, folder: Path) -> list[Comparison]:
    """One face, with as many threads in onnxruntime as in PyTorch: each of `PAIRS`."""
    device = torch.device(options.device)
    files = {EXPORTED: export(net, folder / "model.onnx", ExportOptions(), {}).path}
    files[FIELD] = export_as_the_field(net, folder / "field.onnx")
    lq = torch.rand(1, 3, net.in_size, net.in_size) * 2 - 1
    given = lq.numpy()

    def runner(name: str) -> tuple[str, Callable[[], torch.Tensor]]:
        file = OnnxNetwork(files[name], device, options.provider)
        return f"{name}, on its provider {file.provider}", lambda: torch.from_numpy(*file(given).values())

    in_torch = arms(net.to(device), lq.to(device))
    arm = {name: runner(name) for name in files} | {name: (name, call) for name, call in in_torch.items()}
    results = {name: call().cpu() for name, (_, call) in arm.items()}
    return [
        compare(
            f"{what}, fp32: {ours} against {base}",
            arm[base],
            arm[ours],
            rounds=options.rounds,
            device=options.device,
            target=target,
            flop=flop_of(in_torch[FUSED]),
            error=check_close(results[base], results[ours], TOLERANCES[options.device]),
        )
        for base, ours, target in PAIRS
    ]


def rows(options: argparse.Namespace) -> list[Comparison]:
    """All sizes, or the model of `--model`; or why there are none."""
    try:
        ExportOptions().check_packages()
    except MissingFileError as error:
        return [not_measured("GPEN in onnxruntime", str(error))]
    if options.model is None:
        sizes = [options.size] if options.size else RELEASED
        networks = ((f"GPEN {size} px", lambda size=size: network(size, options.narrow)) for size in sizes)
    else:
        networks = [(options.model, lambda: load(options.model).requires_grad_(False))]
    with tempfile.TemporaryDirectory() as folder:
        return [row for what, build in networks for row in face(what, build(), options, Path(folder))]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each size and tell."""
    made = parser(__doc__, rounds=5)
    made.add_argument("--provider", help="of onnxruntime, as in gpen-restore; default: that of --device")
    made.add_argument("--model", help="a name or weight file, instead of networks of the released widths")
    made.add_argument("--size", type=int, help="pixels of one network, instead of all released sizes")
    made.add_argument("--narrow", type=float, help="factor of its channels; default: that of a released width")
    options = made.parse_args(argv)
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as gpen-restore does
    report("ONNX Runtime", rows(options), options, left_out=LEFT_OUT)


if __name__ == "__main__":
    main()
