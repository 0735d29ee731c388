"""Execution providers of ONNX Runtime by name: CUDA, TensorRT, CoreML, OpenVINO, DirectML and the CPU.

Nothing heavy is imported here, so that ``--help`` needs no onnxruntime.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError

if TYPE_CHECKING:
    import torch
    from onnxruntime import InferenceSession

Options = Mapping[str, str]


@dataclass(frozen=True)
class Provider:
    """An execution provider and the options that it gets, all of them documented on onnxruntime.ai."""

    name: str  # of onnxruntime, without ExecutionProvider
    package: str  # of pip
    default_device: str
    options: Callable[[str, str | os.PathLike, int], Options]  # of (device, file, number of threads)
    then: tuple[str, ...] = ("cpu",)  # for operators that it does not have


def _cuda(device: str, path: str | os.PathLike, threads: int) -> Options:
    # the default tries all algorithms for each new number of faces
    return {"device_id": device, "cudnn_conv_algo_search": "HEURISTIC"}


def _tensorrt(device: str, path: str | os.PathLike, threads: int) -> Options:
    from gpen_plugin.checkpoints import sha256_of
    from gpen_plugin.checkpoints.download import cache_folder

    # building takes minutes. Engines are stored by a hash of the graph without its weights, hence a folder per file
    folder = cache_folder().parent / "tensorrt" / sha256_of(path)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "device_id": device,
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
    }


def _openvino(device: str, path: str | os.PathLike, threads: int) -> Options:
    options = {"device_type": device}
    if device != "NPU":
        options["precision"] = "FP32"  # its GPUs, and CPUs with bfloat16, compute in less by default
    return options | ({"num_of_threads": str(threads)} if device == "CPU" else {})


PROVIDERS = {
    "cpu": Provider("CPU", "onnxruntime", "", lambda device, path, threads: {}, ()),
    "cuda": Provider("CUDA", "onnxruntime-gpu", "0", _cuda),
    "tensorrt": Provider("Tensorrt", "onnxruntime-gpu", "0", _tensorrt, ("cuda", "cpu")),
    "coreml": Provider(
        "CoreML",
        "onnxruntime on macOS",
        "ALL",
        lambda device, path, threads: {"ModelFormat": "MLProgram", "MLComputeUnits": device},
    ),
    "openvino": Provider("OpenVINO", "onnxruntime-openvino", "CPU", _openvino),
    "directml": Provider(
        "Dml", "onnxruntime-directml on Windows", "0", lambda device, path, threads: {"device_id": device}
    ),
}
_OF_DEVICES = {"cuda": "cuda", "mps": "coreml", "cpu": "cpu"}  # providers by the type of a device of PyTorch


def provider_of(device: "torch.device") -> str:
    """The usual provider for a device, such as ``cuda:1``."""
    numbered = device.type == "cuda" and device.index
    return _OF_DEVICES.get(device.type, "cpu") + (f":{device.index}" if numbered else "")


def open_session(
    path: str | os.PathLike,
    provider: str,  # a name of `PROVIDERS`, or name:device: ``cuda:1``, ``openvino:GPU``, ``coreml:CPUAndGPU``
    threads: int,  # on the CPU
    *,
    required: bool,  # whether another provider than this is an error
) -> "InferenceSession":
    """Open an ONNX file.

    Raises:
        MissingFileError: onnxruntime is not installed.
        OptionError: there is no such provider, it is not installed, or it does not start.
        CheckpointError: the file is damaged.
    """
    name, _, device = provider.partition(":")
    if name not in PROVIDERS:
        hint = "A device may follow: cuda:1, openvino:GPU."
        raise OptionError("provider", f"got {provider!r}", f"one of {', '.join(PROVIDERS)}", hint)
    chosen = PROVIDERS[name]
    if device and not chosen.default_device:
        raise OptionError("provider", f"got {provider}", name, "It has no devices.")
    try:
        import onnxruntime
    except ImportError as error:
        got, hint = "the package onnxruntime is not installed", 'Run: pip install "gpen_plugin[evaluate]"'
        raise MissingFileError(str(path), got, hint=hint) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised as exceptions
    options.intra_op_num_threads = threads
    # its threads would wait busily after each run and halve the speed of PyTorch and OpenCV meanwhile
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = name != "directml"  # which does not support it
    available = onnxruntime.get_available_providers()
    if required and f"{chosen.name}ExecutionProvider" not in available:
        has = [each for each, its in PROVIDERS.items() if f"{its.name}ExecutionProvider" in available]
        got = f"got {provider}, but the installed onnxruntime {onnxruntime.__version__} has {', '.join(has)}"
        hint = f"It comes with the pip package {chosen.package}; uninstall other packages of onnxruntime before."
        raise OptionError("provider", got, "a provider that is installed", hint)
    device = device or chosen.default_device
    wanted = [
        (f"{PROVIDERS[each].name}ExecutionProvider", dict(PROVIDERS[each].options(device, path, threads)))
        for each in (name, *chosen.then)
        if f"{PROVIDERS[each].name}ExecutionProvider" in available
    ]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # onnxruntime's classes have no base of their own
        got = f"cannot be opened ({str(error).strip().splitlines()[0][:200]})"
        raise CheckpointError(str(path), got, "an ONNX file", "Download or export it again.") from error
    if required and session.get_providers()[0] != f"{chosen.name}ExecutionProvider":
        hint = "Check the name of the device, its driver, and the libraries that the provider needs."
        raise OptionError("provider", f"got {provider}, which onnxruntime could not start", "a working one", hint)
    return session
