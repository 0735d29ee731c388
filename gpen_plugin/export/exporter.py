"""Export a GPEN to ONNX or torch.export, and keep the file only if it agrees with PyTorch."""

import contextlib
import copy
import itertools
import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.inference import fuse
from gpen_plugin.errors import CheckpointError
from gpen_plugin.export.half_precision import scale_for_half
from gpen_plugin.export.options import TOLERANCES, ExportOptions
from gpen_plugin.restore.network import to_network

LOWEST, HIGHEST = -1.0, 1.0  # of the images that an exported network takes and gives
METADATA_FILE = "gpen.json"  # in the archive of a program
_CALIBRATION_SEED = 100  # its images measure the features; the comparison uses others
_SMOOTH_IMAGES = 3
_EXAMPLE_BATCH = 2  # torch.export takes a batch of 1 for a constant

Network = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Difference:
    """Difference between two networks' images, as fractions of the value range."""

    largest: float  # of one value
    rms: float  # root mean square over all values

    def check(self, tolerance: float, where: str, hint: str) -> None:
        """Raise a `CheckpointError` about the file `where` if `largest` is above `tolerance` or NaN."""
        if not self.largest <= tolerance:
            expected = f"{tolerance:g} or less, so the file is not kept"
            raise CheckpointError(where, f"differs from PyTorch by {self}", expected, hint)

    def __str__(self) -> str:
        return f"{self.largest:.1e} of the value range (rms {self.rms:.1e})"


@dataclass(frozen=True)
class Exported:
    """A file that was written."""

    path: Path
    difference: Difference  # from PyTorch in float32
    images: int  # number of images compared


def export(
    net: GPEN,  # in float32, on the device of the comparison and of a program; it stays as it is
    path: str | os.PathLike,
    options: ExportOptions,
    metadata: Mapping[str, str],  # stored in the file
) -> Exported:
    """Export a network; replace an earlier file only after the new one agrees with `net` on some images.

    The file takes images (N, 3, in_size, in_size), RGB float32, and gives (N, 3, out_size, out_size), not clipped. Both
    are in [-1, 1], whatever the value range of `net` is. Raises CheckpointError: the file differs from `net` by more
    than the tolerance, or cannot be written. Raises MissingFileError: a package is not installed.
    """
    options.check_packages()
    path, device = Path(path), net.decoder.constant.device
    tolerance = TOLERANCES[options.precision] if options.tolerance is None else options.tolerance
    exact = _prepare(net)
    batches = make_test_inputs(net.in_size, options.batch)
    expected = _runner(exact, device)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if options.precision == "fp32":
            fused = fuse(exact, traceable=True)
        else:
            fused = _fuse_in_half(exact, expected, batches, tolerance, path)
        write = _write_onnx if options.format == "onnx" else _write_program
        with suppress_warnings():
            exported = write(unfinished, fused, net.in_size, device, options, metadata)
        difference = measure_difference(expected, exported, batches)
        difference.check(tolerance, str(path), "Try another opset, or a larger tolerance.")
        os.replace(unfinished, path)
    except OSError as error:
        got = f"cannot be written ({error.strerror or error})"
        raise CheckpointError(str(path), got, "a writable folder with room on its disk") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return Exported(path, difference, sum(len(batch) for batch in batches))


def make_test_inputs(
    in_size: int,  # S
    # images per batch, repeated above four; None, for a file that takes any number, gives one and then three
    batch: int | None,
    seed: int = 0,  # of the first smooth image and of the noise
) -> list[torch.Tensor]:
    """Batches (N, 3, S, S), RGB in [-1, 1], to compare with: three images of smooth random colors and one of noise."""
    noise = torch.rand(3, in_size, in_size, generator=torch.Generator().manual_seed(seed)) * (HIGHEST - LOWEST) + LOWEST
    images = [noise, *(_smooth_image(seed + index, in_size) for index in range(_SMOOTH_IMAGES))]
    if batch is None:
        return [noise[None], torch.stack(images[1:])]
    endless = itertools.cycle(images)
    return [torch.stack(list(itertools.islice(endless, batch))) for _ in range(math.ceil(len(images) / batch))]


def _smooth_image(seed: int, size: int) -> torch.Tensor:
    grid = np.random.default_rng(seed).random((8, 8, 3), np.float32)
    image = np.clip(cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)
    return to_network(image, (LOWEST, HIGHEST))


def measure_difference(expected: Network, exported: Network, batches: Iterable[torch.Tensor]) -> Difference:
    """Compare the images that two networks give for the same batches, both (N, 3, S, S) -> (N, 3, T, T) on the CPU."""
    peaks, squares, count = [], 0.0, 0
    for batch in batches:
        error = (exported(batch) - expected(batch)).double() / (HIGHEST - LOWEST)  # (N, 3, T, T)
        peaks.append(error.abs().max())
        squares, count = squares + error.square().sum().item(), count + error.numel()
    return Difference(torch.stack(peaks).max().item(), math.sqrt(squares / count))  # NaN, if there is one


@contextlib.contextmanager
def suppress_warnings() -> Iterator[None]:
    """Hide warnings and PyTorch's log below errors: the exporters report their own progress and deprecations."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _prepare(net: GPEN) -> GPEN:
    """A copy for inference in the layers' value range and the usual memory layout."""
    copied = copy.deepcopy(net).eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    copied.value_range = (LOWEST, HIGHEST)
    return copied


def _fuse_in_half(
    exact: GPEN, expected: Network, batches: list[torch.Tensor], tolerance: float, path: Path
) -> nn.Module:
    """The fused network in half precision, checked here too: on a CPU, onnxruntime may compute it in float32."""
    device = exact.decoder.constant.device
    calibration = [batch.to(device) for batch in make_test_inputs(exact.in_size, None, _CALIBRATION_SEED)]
    half = fuse(scale_for_half(exact, calibration), torch.float16, traceable=True)
    difference = measure_difference(expected, _runner(half, device), batches)
    difference.check(tolerance, str(path), "Export it in fp32.")
    return half


def _runner(net: nn.Module, device: torch.device) -> Network:
    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return net(images.to(device)).cpu()

    return run


def _write_onnx(
    path: Path, net: nn.Module, size: int, device: torch.device, options: ExportOptions, metadata: Mapping[str, str]
) -> Network:
    """Write an ONNX file and open it with onnxruntime."""
    from gpen_plugin.export import onnx  # needs the extra `export`

    onnx.write(path, net, torch.zeros(1, 3, size, size, device=device), options.batch, options.opset, metadata)
    return onnx.open_for_check(path, device)


def _write_program(
    path: Path, net: nn.Module, size: int, device: torch.device, options: ExportOptions, metadata: Mapping[str, str]
) -> Network:
    """Write a program of torch.export, graph and weights for one device, and open it.

    Opening runs code that the file holds: never open such a file from a source that you do not trust.
    """
    example = torch.zeros(options.batch or _EXAMPLE_BATCH, 3, size, size, device=device)
    shapes = ({0: torch.export.Dim("batch")},) if options.batch is None else None
    with torch.no_grad(), open(path, "wb") as stream:
        program = torch.export.export(net, (example,), dynamic_shapes=shapes, strict=False)
        torch.export.save(program, stream, extra_files={METADATA_FILE: json.dumps(dict(metadata), indent=1)})
    with open(path, "rb") as stream:
        return _runner(torch.export.load(stream).module(), device)
