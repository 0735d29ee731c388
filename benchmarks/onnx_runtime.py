"""The exported ONNX file in onnxruntime, against our own fast path and against the plain reference.

python benchmarks/onnx_runtime.py --threads 2
python benchmarks/onnx_runtime.py --provider openvino --model GPEN-Faces-256
"""

import argparse
import tempfile
from pathlib import Path

import torch
from inference import FUSED, REFERENCE, RELEASED, arms, network
from measure import Comparison, check_close, compare, flop_of, not_measured, parser, report

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.errors import MissingFileError
from gpen_plugin.export.exporter import export
from gpen_plugin.export.options import ExportOptions
from gpen_plugin.nets.loading import OnnxNetwork
from gpen_plugin.restore.network import load

TARGETS = {FUSED: 1, REFERENCE: None}
LEFT_OUT = (
    "ONNX: the convolutions' kernels scaled by the styles, in place of the features. It ran slower at 256 px: "
    "onnxruntime arranges constant kernels for the processor when it opens a file, and cannot with others.",
    "ONNX: the noise's weight, bias and leaky ReLU as a convolution of one pixel per channel, which onnxruntime runs "
    "in one pass. It made no clear difference at 256 px.",
)


def face(what: str, net: GPEN, options: argparse.Namespace, folder: Path) -> list[Comparison]:
    """One face in the file that gpen-export writes, with as many threads as PyTorch has, against both of our paths."""
    path = export(net, folder / "model.onnx", ExportOptions(), {}).path
    file = OnnxNetwork(path, torch.device(options.device), options.provider)
    lq = torch.rand(1, 3, net.in_size, net.in_size) * 2 - 1
    both = arms(net.to(options.device), lq.to(options.device), torch.float32)
    given = lq.numpy()
    result = torch.from_numpy(file(given)["output"])
    return [
        compare(
            f"{what} in onnxruntime, fp32, against {against}",
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
    """All sizes, or the model of `--model`; or why there are none."""
    try:
        ExportOptions().check_packages()
    except MissingFileError as error:
        return [not_measured("GPEN in onnxruntime", str(error), target=TARGETS[FUSED])]
    if options.model is None:
        networks = ((f"GPEN {size} px", lambda size=size: network(size)) for size in RELEASED)
    else:
        networks = [(options.model, lambda: load(options.model).requires_grad_(False))]
    with tempfile.TemporaryDirectory() as folder:
        return [row for what, build in networks for row in face(what, build(), options, Path(folder))]


def main() -> None:
    """Measure each size and tell."""
    made = parser(__doc__, rounds=5)
    made.add_argument("--provider", help="of onnxruntime, as in gpen-restore; default: that of --device")
    made.add_argument("--model", help="a name or weight file, instead of networks of the released widths")
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    report("ONNX Runtime", rows(options), options, left_out=LEFT_OUT)


if __name__ == "__main__":
    main()
