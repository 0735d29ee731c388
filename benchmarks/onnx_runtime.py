"""The exported ONNX file in onnxruntime, against our own fast path and against the plain reference.

python benchmarks/onnx_runtime.py --threads 2
python benchmarks/onnx_runtime.py --provider openvino
"""

import argparse
import tempfile
from pathlib import Path

import torch
from inference import FUSED, REFERENCE, RELEASED, arms, network
from measure import Comparison, check_close, compare, flop_of, not_measured, parser, report

from gpen_plugin.errors import MissingFileError
from gpen_plugin.export.exporter import export
from gpen_plugin.export.options import ExportOptions
from gpen_plugin.nets.loading import OnnxNetwork

TARGETS = {FUSED: 1, REFERENCE: None}
LEFT_OUT = (
    "ONNX: the convolutions' kernels scaled by the styles, in place of the features. It ran slower at 256 px: "
    "onnxruntime arranges constant kernels for the processor when it opens a file, and cannot with others.",
    "ONNX: the noise's weight, bias and leaky ReLU as a convolution of one pixel per channel, which onnxruntime runs "
    "in one pass. It made no clear difference at 256 px.",
)


def exported(size: int, options: argparse.Namespace, folder: Path) -> OnnxNetwork:
    """The network of `size` as gpen-export writes it, opened by onnxruntime with as many threads as PyTorch has."""
    file = export(network(size), folder / f"{size}.onnx", ExportOptions(), {})
    return OnnxNetwork(file.path, torch.device(options.device), options.provider)


def face(size: int, options: argparse.Namespace, folder: Path) -> list[Comparison]:
    """One face, against our fast path and against the reference."""
    file, lq = exported(size, options, folder), torch.rand(1, 3, size, size) * 2 - 1
    both = arms(network(size).to(options.device), lq.to(options.device), torch.float32)
    given = lq.numpy()
    result = torch.from_numpy(file(given)["output"])
    return [
        compare(
            f"GPEN {size} px in onnxruntime, fp32, against {against}",
            (against, both[against]),
            (f"ONNX Runtime, on its provider {file.provider}", lambda: file(given)),
            rounds=options.rounds,
            device=options.device,
            target=target,
            flop=flop_of(both[FUSED]),
            error=check_close(both[against]().cpu(), result),
        )
        for against, target in TARGETS.items()
    ]


def rows(options: argparse.Namespace) -> list[Comparison]:
    """All sizes, or why there are none."""
    try:
        ExportOptions().check_packages()
    except MissingFileError as error:
        return [not_measured("GPEN in onnxruntime", str(error), target=TARGETS[FUSED])]
    with tempfile.TemporaryDirectory() as folder:
        return [row for size in RELEASED for row in face(size, options, Path(folder))]


def main() -> None:
    """Measure each size and tell."""
    made = parser(__doc__, rounds=5)
    made.add_argument("--provider", help="of onnxruntime, as in gpen-restore; default: that of --device")
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    report("ONNX Runtime", rows(options), options, left_out=LEFT_OUT)


if __name__ == "__main__":
    main()
