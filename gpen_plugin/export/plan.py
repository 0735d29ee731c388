"""How a network is to be exported. Nothing heavy is imported here."""

import importlib.util
from dataclasses import dataclass
from typing import Literal

from gpen_plugin.errors import MissingFileError, OptionError

Format = Literal["onnx", "program"]
Precision = Literal["fp32", "fp16"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "program": ".pt2"}
OPSETS = range(13, 21)
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2}
"""The largest difference that a kept file may show, as a fraction of the value range. What exact arithmetic would give
differs from PyTorch by 1e-5 or less in fp32, and by 5e-4 to 4e-3 in fp16; one step of 8 bits is 4e-3."""
_PACKAGES: dict[Format, tuple[str, ...]] = {"onnx": ("onnx", "onnxruntime"), "program": ()}


@dataclass(frozen=True)
class Plan:
    """How a network is to be exported.

    Attributes:
        format: ``onnx`` or ``program`` (of torch.export).
        batch: how many images it takes at once; None if any number.
        precision: of the convolutions; input and output are float32 in any case. See `half_precision`.
        opset: version of ONNX's operators; other formats have none.
        tolerance: the largest difference from PyTorch, as a fraction of the value range; None for `TOLERANCES`.
    Raises:
        OptionError: a value that is none of these.
    """

    format: Format = "onnx"
    batch: int | None = None
    precision: Precision = "fp32"
    opset: int = 17
    tolerance: float | None = None

    def __post_init__(self):
        if self.format not in SUFFIXES:
            raise OptionError("format", f"got {self.format!r}", f"one of {', '.join(SUFFIXES)}")
        if self.batch is not None and self.batch < 1:
            raise OptionError("batch", f"got {self.batch}", "a number from 1, or dynamic")
        if self.precision not in TOLERANCES:
            raise OptionError("precision", f"got {self.precision!r}", f"one of {', '.join(TOLERANCES)}")
        if self.opset not in OPSETS:
            expected = f"a number from {OPSETS[0]} to {OPSETS[-1]}"
            raise OptionError("opset", f"got {self.opset}", expected, "The default, 17, is read by most runtimes.")
        if self.tolerance is not None and not self.tolerance > 0:
            raise OptionError("tolerance", f"got {self.tolerance}", "a number above 0", "Leave it out.")

    def check_packages(self) -> None:
        """Raise a `MissingFileError` if a package that the format needs is not installed."""
        for package in _PACKAGES[self.format]:
            if importlib.util.find_spec(package) is None:
                got, hint = f"the package {package} is not installed", 'Run: pip install "gpen_plugin[export]"'
                raise MissingFileError(f"format {self.format}", got, hint=hint)
