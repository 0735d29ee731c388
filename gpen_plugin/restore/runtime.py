"""The fastest runtime and precision of a network on this machine: measured, and remembered in the cache folder."""

import contextlib
import json
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import NamedTuple

import cv2
import numpy as np
import torch

from gpen_plugin.checkpoints.download import cache_folder, folder_lock
from gpen_plugin.errors import DataError
from gpen_plugin.images.files import write_whole

MAX_RMS = 0.01  # of bfloat16 that is chosen by itself, as a fraction of the output's standard deviation
MIN_GAIN = 1.1  # of a convolution in bfloat16 over float32; below it, bfloat16 is not worth its error
ROUNDS = 3
_DRAWN_FACE = Path(__file__).with_name("drawn_face.png")  # render_face(0, 64) of datasets_prep/synthetic_faces.py
_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
_PACKAGES += ("onnx", "onnxslim")  # without them the file for onnxruntime cannot be written

Restore = Callable[[Sequence[np.ndarray]], list[np.ndarray]]  # a `FaceNetwork`


class Choice(NamedTuple):
    """How a network runs."""

    runtime: str  # ``torch``, ``onnxruntime`` or ``openvino``
    precision: str  # ``fp32`` or ``bf16``


PLAIN = Choice("torch", "fp32")  # where nothing was measured


@dataclass(frozen=True)
class Speed:
    """What was measured of one choice."""

    runtime: str
    precision: str
    seconds: float  # for one face
    batch_seconds: float  # per face, of several faces at once
    rms: float  # difference from `PLAIN`, as a fraction of its output's standard deviation

    @property
    def choice(self) -> Choice:
        return Choice(self.runtime, self.precision)


def fastest(
    wanted: Choice,  # either field may be ``auto``
    network: str,  # its name
    device: torch.device,
    open_in: Callable[[str], Restore],  # the network in PyTorch, in a precision
) -> Choice:
    """The choice that is fastest among those remembered for this network, device and machine.

    The times for one face, and for each of several at once, count alike.
    A precision of ``auto`` is bf16 only if this processor gains from it and the network's error is at most `MAX_RMS`,
    which is measured where it is not remembered. Where nothing is remembered, ``auto`` stands for `PLAIN`.
    """
    if "auto" not in wanted:
        return wanted
    known = recall(network, device)
    asks_for_both = wanted.precision == "auto" and wanted.runtime in ("auto", "torch")
    if asks_for_both and not _compared(known) and gain_of_bf16(device) >= MIN_GAIN:
        both = {Choice("torch", precision): open_in(precision) for precision in ("fp32", "bf16")}
        known = remember(measure(both, batch=1, rounds=1), network, device)
    fitting = [
        speed
        for speed in known
        if all(one in ("auto", other) for one, other in zip(wanted, speed.choice, strict=True))
        and (speed.precision == wanted.precision or speed.rms <= MAX_RMS)
    ]
    if fitting:
        return min(fitting, key=lambda speed: speed.seconds + speed.batch_seconds).choice
    return Choice(*(plain if one == "auto" else one for one, plain in zip(wanted, PLAIN, strict=True)))


def _compared(speeds: Sequence[Speed]) -> bool:
    return {PLAIN, Choice("torch", "bf16")} <= {speed.choice for speed in speeds}


def measure(
    networks: Mapping[Choice, Restore],  # one of them `PLAIN`
    batch: int,  # faces at once
    rounds: int = ROUNDS,
) -> list[Speed]:
    """Time the networks in turns on a drawn face, after one call of each; the medians over the rounds."""
    face = drawn_face().astype(np.float32) / 255
    outputs = {choice: network([face])[0] for choice, network in networks.items()}
    counts = sorted({1, batch})
    taken: dict[tuple[Choice, int], list[float]] = {}
    for _ in range(rounds):
        for choice, network in networks.items():
            for count in counts:
                begun = time.perf_counter()
                network([face] * count)
                taken.setdefault((choice, count), []).append((time.perf_counter() - begun) / count)
    exact = outputs[PLAIN]
    return [
        Speed(
            *choice,
            median(taken[choice, 1]),
            median(taken[choice, batch]),
            float(np.sqrt(np.mean((output - exact) ** 2)) / max(exact.std(), 1e-6)),
        )
        for choice, output in outputs.items()
    ]


def drawn_face() -> np.ndarray:
    """An aligned face, (64, 64, 3) BGR uint8."""
    return cv2.imdecode(np.fromfile(_DRAWN_FACE, np.uint8), cv2.IMREAD_COLOR)  # imread cannot open every path


def gain_of_bf16(device: torch.device) -> float:
    """How many times as fast a convolution runs in bfloat16 as in float32: measured in some tens of milliseconds."""
    if not torch.amp.is_autocast_available(device.type):
        return 0.0
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, weight = torch.ones(1, 128, 32, 32), torch.ones(128, 128, 3, 3)  # 0.3 GFLOP
        x, weight = (each.to(device, dtype, memory_format=torch.channels_last) for each in (x, weight))
        try:
            seconds[dtype] = min(_seconds_of(torch.nn.functional.conv2d, x, weight) for _ in range(3))
        except RuntimeError:  # a device without this precision
            return 0.0
    return seconds[torch.float32] / seconds[torch.bfloat16]


@torch.inference_mode()
def _seconds_of(call: Callable, x: torch.Tensor, weight: torch.Tensor) -> float:
    begun = time.perf_counter()
    call(x, weight)[0, 0, 0, 0].item()  # waits for a GPU
    return time.perf_counter() - begun


def recall(network: str, device: torch.device) -> list[Speed]:
    """What is remembered of a network on this machine; nothing if the file is missing or damaged."""
    try:
        return [Speed(**each) for each in _read()[machine(device)][network]]
    except (KeyError, TypeError):
        return []


def remember(speeds: Sequence[Speed], network: str, device: torch.device) -> list[Speed]:
    """Store measurements for the next runs, in place of earlier ones of the same choices. Returns all that are known.

    A cache folder that cannot be written is no error: nothing is remembered then.
    """
    path = memory_file()
    with contextlib.suppress(OSError, DataError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with folder_lock(path.parent):
            new = {speed.choice for speed in speeds}
            kept = [speed for speed in recall(network, device) if speed.choice not in new]
            content = _read()
            content.setdefault(machine(device), {})[network] = [asdict(speed) for speed in (*kept, *speeds)]
            write_whole(path, json.dumps(content, indent=1).encode())
        return [*kept, *speeds]
    return list(speeds)


def memory_file() -> Path:
    """The file in which measurements are remembered."""
    return cache_folder().parent / "speed.json"


def _read() -> dict[str, dict]:
    try:
        content = json.loads(memory_file().read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def machine(device: torch.device) -> str:
    """Everything that decides which choice is fastest: processor, threads, GPU and versions."""
    threads = torch.get_num_threads()
    parts = [f"{_processor()}, {threads} thread{'s' * (threads != 1)}"]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    elif device.type != "cpu":
        parts.append(str(device))
    return ", ".join(parts + [f"{name} {version}" for name in _PACKAGES if (version := _version(name))])


def _processor() -> str:
    with contextlib.suppress(OSError):
        name = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        if name:
            return f"{name[1]} ({torch.backends.cpu.get_cpu_capability()})"
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
