"""From a network to a file that is right, or to none."""

import contextlib
import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.errors import CheckpointError
from gpen_plugin.export import program
from gpen_plugin.export.checking import HIGHEST, LOWEST, Difference, Images, Network, difference, make_test_inputs
from gpen_plugin.export.half_precision import to_half_precision
from gpen_plugin.export.plan import TOLERANCES, Plan

_CALIBRATION = 100  # seed of the images that features are measured with: others than those of the check


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: of the file.
        difference: from PyTorch, in float32.
        images: how many were compared.
    """

    path: Path
    difference: Difference
    images: int


def export(net: GPEN, path: str | os.PathLike, plan: Plan, facts: Mapping[str, str]) -> Exported:
    """Export a network.

    The file takes images (N, 3, in_size, in_size), RGB float32, and gives (N, 3, out_size, out_size), not clipped, as
    the layers take and give them: in [-1, 1], whatever range `net` has. It is run on some images, and kept if it
    agrees with `net`; until then an earlier file stays.

    Args:
        net: in float32, on the device where the file is to be run for the check, and where a program will work.
        path: of the file.
        plan: how.
        facts: what the file is to say about itself, by name.
    Raises:
        CheckpointError: the file differs from `net` by more than is tolerated, or cannot be written.
        MissingFileError: a package is not installed.
    """
    plan.check_packages()
    path, device = Path(path), net.decoder.constant.device
    tolerance = TOLERANCES[plan.precision] if plan.tolerance is None else plan.tolerance
    exact = _prepared(net)
    batches = make_test_inputs(net.in_size, plan.batch)
    expected = _runner(exact, device)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        net = exact if plan.precision == "fp32" else _rounded(exact, expected, batches, tolerance, path)
        given = _written(unfinished, net, plan, facts, device)
        gap = difference(expected, given, batches)
        gap.check(tolerance, str(path), "Try another opset, or a larger tolerance.")
        os.replace(unfinished, path)
    except OSError as error:
        got = f"cannot be written ({error.strerror or error})"
        raise CheckpointError(str(path), got, "a writable folder with room on its disk") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return Exported(path, gap, sum(len(batch) for batch in batches))


def _prepared(net: GPEN) -> GPEN:
    """A copy for restoring alone, in the value range of its layers and the usual memory layout."""
    copied = copy.deepcopy(net).eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    copied.value_range = (LOWEST, HIGHEST)
    return copied


def _rounded(exact: GPEN, expected: Network, batches: Images, tolerance: float, path: Path) -> GPEN:
    """The network in half precision, checked here too: on a CPU, onnxruntime may compute such files in float32."""
    device = exact.decoder.constant.device
    calibration = [batch.to(device) for batch in make_test_inputs(exact.in_size, None, _CALIBRATION)]
    half = to_half_precision(exact, calibration)
    gap = difference(expected, _runner(half, device), batches)
    gap.check(tolerance, str(path), "Export it in fp32.")
    return half


def _runner(net: GPEN, device: torch.device) -> Network:
    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return net(images.to(device)).cpu()

    return run


def _written(path: Path, net: GPEN, plan: Plan, facts: Mapping[str, str], device: torch.device) -> Network:
    """Write the file, and open it again."""
    if plan.format == "onnx":
        from gpen_plugin.export import onnx_file  # needs a package that not everybody has

        onnx_file.write(path, net, plan.batch, plan.opset, facts)
        return onnx_file.open_for_check(path, device)
    program.write(path, net, plan.batch, facts)
    return program.open_for_check(path, device)
