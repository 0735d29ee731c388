"""Time a network in each runtime and precision of this machine, and remember the times: `gpen-restore --benchmark`."""

from collections.abc import Iterator
from os import PathLike
from typing import cast

import torch

from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError, plain_message
from gpen_plugin.nets.loading import select_device
from gpen_plugin.restore.network import FaceNetwork, TorchNetwork, open_network
from gpen_plugin.restore.runtime import (
    MAX_RMS,
    MIN_GAIN,
    PLAIN,
    Choice,
    Speed,
    fastest,
    gain_of_bf16,
    machine,
    measure,
    memory_file,
    remember,
)

CHOICES = (PLAIN, Choice("torch", "bf16"), Choice("onnxruntime", "fp32"), Choice("openvino", "fp32"))
_WIDTHS = (11, 9, 12, 18, 7)


def benchmark(
    model: str | PathLike,  # see `open_network`; weights
    *,
    key: str | None = None,  # entry of the file
    device: str | torch.device = "auto",  # see `select_device`
    batch: int = 8,  # faces at once
) -> Iterator[str]:
    """Measure a network in all of `CHOICES` that this machine has, and remember the times. Yields lines to print.

    Raises: errors of `open_network` for the network in PyTorch.
    """
    if str(model).lower().endswith(".onnx"):
        raise OptionError("model", f"got {model}", "weights", "Name the file that it was made from.")
    device = select_device(device, mps=True)
    plain = cast(TorchNetwork, open_network(model, key=key, device=device, runtime="torch"))
    yield f"{plain.name} on {machine(device)}"
    networks: dict[Choice, FaceNetwork] = {PLAIN: plain}
    missing = {}
    gain = gain_of_bf16(device)
    for choice in CHOICES[1:]:
        if choice.precision == "bf16" and gain < MIN_GAIN:
            missing[choice] = f"a convolution runs {gain:.2f} times as fast in bf16 as in fp32 here"
            continue
        try:
            networks[choice] = open_network(
                model, key=key, device=device, runtime=choice.runtime, precision=choice.precision
            )
        except (CheckpointError, MissingFileError, OptionError) as error:
            missing[choice] = plain_message(error)
    speeds = measure(networks, batch)
    remember(speeds, plain.name, device)
    yield from _table(speeds, batch)
    yield from (f"{' '.join(choice)}: not measured: {why}" for choice, why in missing.items())
    for precision in ("fp32", "auto"):
        choice = fastest(Choice("auto", precision), plain.name, device, lambda precision: plain)
        yield f"fastest with --precision {precision}: {' '.join(choice)}"
    yield f"Remembered in {memory_file()}; --runtime auto, the default, uses it on this machine."


def _table(speeds: list[Speed], batch: int) -> Iterator[str]:
    yield _line("runtime", "precision", "one face", f"of {batch} at once", "speed", "difference")
    plain = next(speed for speed in speeds if speed.choice == PLAIN)
    for speed in speeds:
        times = f"{speed.seconds * 1000:.0f} ms", f"{speed.batch_seconds * 1000:.0f} ms a face"
        note = "" if speed.rms <= MAX_RMS else f", more than {MAX_RMS:.0%}: --precision auto leaves it out"
        difference = "" if speed is plain else f"{speed.rms:.2%} (rms){note}"
        yield _line(*speed.choice, *times, f"{plain.seconds / speed.seconds:.2f}x", difference)


def _line(*cells: str) -> str:
    return "  ".join([cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=False)] + [cells[-1]]).rstrip()
