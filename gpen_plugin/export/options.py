"""Options of an export. Nothing heavy is imported here, so that ``--help`` needs no PyTorch."""

import importlib.util
from dataclasses import dataclass
from typing import Literal

from gpen_plugin.errors import MissingFileError, OptionError
from gpen_plugin.export.framing import Frame

Format = Literal["onnx", "program"]
Precision = Literal["fp32", "fp16"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "program": ".pt2"}
OPSETS = range(13, 21)
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2}
"""Largest accepted difference from PyTorch, as a fraction of the value range. Correct files differ by 1e-5 or less in
fp32 and by 5e-4 to 4e-3 in fp16; one step of 8 bits is 4e-3."""
_PACKAGES: dict[Format, tuple[str, ...]] = {"onnx": ("onnx", "onnxruntime", "onnxslim"), "program": ()}


@dataclass(frozen=True)
class ExportOptions:
    """How a network is exported. Raises `OptionError` for a value that is out of range."""

    format: Format = "onnx"  # `program` is that of torch.export
    batch: int | None = None  # number of images the file takes at once; None for any number
    precision: Precision = "fp32"  # of the convolutions; input and output are always float32. See `scale_for_half`
    opset: int = 17  # version of ONNX's operators; other formats ignore it
    # largest difference from PyTorch, as a fraction of the value range; None for `TOLERANCES`
    tolerance: float | None = None
    # whether an ONNX file has a second input, `weight`, (1,) float64: 0 gives the input, 1 the restored face
    weight: bool = False
    frame: Frame | None = None  # of files whose faces are aligned in another way than the network's

    def __post_init__(self):
        if self.format not in SUFFIXES:
            raise OptionError("format", f"got {self.format!r}", f"one of {', '.join(SUFFIXES)}")
        if self.batch is not None and self.batch < 1:
            raise OptionError("batch", f"got {self.batch}", "a number from 1, or dynamic")
        if self.precision not in TOLERANCES:
            raise OptionError("precision", f"got {self.precision!r}", f"one of {', '.join(TOLERANCES)}")
        if self.opset not in OPSETS:
            expected = f"a number from {OPSETS[0]} to {OPSETS[-1]}"
            raise OptionError("opset", f"got {self.opset}", expected, "Most runtimes read the default, 17.")
        if self.weight and self.format != "onnx":
            raise OptionError("weight", f"got it for the format {self.format}", "onnx", "Leave it out.")
        if self.tolerance is not None and not self.tolerance > 0:
            raise OptionError("tolerance", f"got {self.tolerance}", "a number above 0", "Leave it out.")

    def check_packages(self) -> None:
        """Raise a `MissingFileError` if a package that the format needs is not installed."""
        for package in _PACKAGES[self.format]:
            if importlib.util.find_spec(package) is None:
                got, hint = f"the package {package} is not installed", 'Run: pip install "gpen_plugin[export]"'
                raise MissingFileError(f"format {self.format}", got, hint=hint)
