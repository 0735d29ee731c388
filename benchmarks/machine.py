"""What a benchmark ran on: processor, GPU and versions. Nothing that names the machine or its owner."""

import functools
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import cv2
import torch

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "neon", "sve")


def processor() -> str:
    """The processor's name, its number of cores, its largest cache and those of its `FLAGS` that decide speed."""
    text = _text("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.M)
    flags = re.findall(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
    has = [flag for flag in FLAGS if flags and flag in flags[0].split()]
    parts = [names[0] if names else platform.machine(), f"{len(names) or '?'} cores seen"]
    caches = [_text(path).strip() for path in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))]
    return ", ".join(parts + [f"caches {' / '.join(caches)}"] * bool(caches) + has)


def gpu() -> str:
    """The first GPU's name, memory and driver, or an empty string."""
    if not torch.cuda.is_available():
        return ""
    found = torch.cuda.get_device_properties(0)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, driver {_driver()}, CUDA {torch.version.cuda}"


@functools.cache
def facts() -> dict[str, str]:
    """Each fact by its name, in the order in which a person wants to read them; the GPU only where there is one."""
    dnn = re.search(r"(?:oneDNN|MKL-DNN) (v[\w.]+)", torch.__config__.show())
    values = {
        "processor": processor(),
        "memory": _memory(),
        "GPU": gpu(),
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}".strip(", "),
        "Python": platform.python_version(),
        "torch": f"{torch.__version__}, oneDNN {dnn[1] if dnn else 'not built in'}",
        "OpenCV": cv2.__version__,
        "onnxruntime": _version("onnxruntime"),
        "basicsr": _version("basicsr"),
    }
    return {name: fact for name, fact in values.items() if fact}


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _memory() -> str:
    kilobytes = re.search(r"MemTotal:\s*(\d+) kB", _text("/proc/meminfo"))
    return f"{int(kilobytes[1]) / 2**20:.0f} GiB" if kilobytes else ""


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _driver() -> str:
    command = shutil.which("nvidia-smi")
    if command is None:
        return "unknown"
    asked = [command, "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process in memory: ``VmRSS`` now, ``VmHWM`` at most so far.

    Raises:
        OSError: the system has no /proc; only Linux has one.
    """
    match = re.search(rf"^{field}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    if match is None:
        sys.exit(f"/proc/self/status has no {field}: peak memory is measured on Linux only.")
    return int(match[1]) * 1024
