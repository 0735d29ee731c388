"""The exported ONNX file in onnxruntime, against our own fast path and against the plain reference.

python benchmarks/onnx_runtime.py --threads 2
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from inference import FOLDED, REFERENCE, RELEASED, arms, network
from measure import Comparison, compare, flop_of, held_together, not_measured, parser, report

from gpen_plugin.errors import MissingFileError
from gpen_plugin.export import Plan, export
from gpen_plugin.metrics.onnx_file import OnnxNetwork

RUNTIME = "ONNX Runtime"
LEFT_OUT = (
    "ONNX: the convolutions' kernels scaled by the styles, in place of the features. It ran slower at 256 px: "
    "onnxruntime arranges constant kernels for the processor when it opens a file, and cannot with others.",
    "ONNX: the noise's weight, bias and leaky ReLU as a convolution of one pixel per channel, which onnxruntime runs "
    "in one pass. It made no clear difference at 256 px.",
)


def runtime(size: int, options: argparse.Namespace, folder: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network of `size` as gpen-export writes it, opened by onnxruntime with as many threads as PyTorch has."""
    exported = export(network(size), folder / f"{size}.onnx", Plan(), {})
    file = OnnxNetwork(exported.path, torch.device(options.device))
    return lambda lq: torch.from_numpy(file(lq.numpy())["output"])


def face(size: int, options: argparse.Namespace, folder: Path) -> list[Comparison]:
    """One face, against our fast path and against the reference."""
    run = runtime(size, options, folder)
    lq = torch.rand(1, 3, size, size) * 2 - 1
    both = arms(network(size).to(options.device), lq.to(options.device), torch.float32)
    result = run(lq)
    return [
        compare(
            f"GPEN {size} px in onnxruntime, fp32, against {against}",
            (against, both[against]),
            (RUNTIME, lambda: run(lq)),
            rounds=options.rounds,
            device=options.device,
            target=target,
            flop=flop_of(both[FOLDED]),
            error=held_together(both[against]().cpu(), result),
        )
        for against, target in ((FOLDED, 1), (REFERENCE, None))
    ]


def rows(options: argparse.Namespace) -> list[Comparison]:
    """All sizes, or why there are none."""
    try:
        Plan().check_packages()
    except MissingFileError as error:
        return [not_measured("GPEN in onnxruntime", str(error))]
    with tempfile.TemporaryDirectory() as folder:
        return [row for size in RELEASED for row in face(size, options, Path(folder))]


def main() -> None:
    """Measure each size and tell."""
    options = parser(__doc__, rounds=5).parse_args()
    torch.set_num_threads(options.threads)
    report("ONNX Runtime", rows(options), options, left_out=LEFT_OUT)


if __name__ == "__main__":
    main()
