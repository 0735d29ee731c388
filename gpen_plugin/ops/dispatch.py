"""Which implementation of an op runs (reference, fast, BasicSR's CUDA kernels), and checks of shapes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch

from gpen_plugin.errors import OptionError, ShapeError


def check_shape(
    name: str,  # of the tensor, for the message, such as `modulated_conv(style)`
    tensor: torch.Tensor,
    dimensions: Mapping[str, int | None],  # size of each dimension by name; None is any size
) -> None:
    """Raise a `ShapeError` that names the first dimension which does not fit."""
    shape = tuple(tensor.shape)
    wanted = "(" + ", ".join(key if size is None else f"{key}={size}" for key, size in dimensions.items()) + ")"
    if len(shape) != len(dimensions):
        raise ShapeError(name, f"got {len(shape)} dimensions, shape {shape}", wanted)
    for (key, size), got in zip(dimensions.items(), shape, strict=True):
        if size is not None and got != size:
            raise ShapeError(name, f"got {key}={got} in shape {shape}", wanted)


Implementation = Literal["auto", "reference", "fast", "host"]

HOST_KERNELS: dict[str, Callable[..., torch.Tensor]] = {}
"""The host's compiled CUDA ops by the name of the op of ours that they can stand for; empty where none are built."""

_HOST_DTYPES = (torch.float16, torch.float32)  # the kernels take float64 too, but compute in float32
_forced: Implementation = "auto"


def use_host_kernels(
    upfirdn2d: Callable[..., torch.Tensor] | None = None,  # called as f(x, kernel, up=, down=, pad=)
    bias_act: Callable[..., torch.Tensor] | None = None,  # called as f(x, bias, negative_slope, scale)
) -> None:
    """Let ``impl="auto"`` use BasicSR's compiled kernels for CUDA tensors; ``None`` removes a kernel."""
    given = {"upfirdn2d": upfirdn2d, "bias_act": bias_act}
    HOST_KERNELS.clear()
    HOST_KERNELS.update({name: kernel for name, kernel in given.items() if kernel is not None})


@contextmanager
def force_implementation(impl: Implementation) -> Iterator[None]:
    """Within the block, run every op with ``impl="auto"`` as `impl`. For tests and benchmarks."""
    global _forced
    before, _forced = _forced, impl
    try:
        yield
    finally:
        _forced = before


def choose(op: str, impl: Implementation, x: torch.Tensor) -> str:
    """The implementation of `op` for `x`: ``reference``, ``fast`` or ``host``. OptionError: unknown or not built."""
    if impl == "auto":
        impl = _forced
    if impl == "auto":
        return "host" if op in HOST_KERNELS and x.is_cuda and x.dtype in _HOST_DTYPES else "fast"
    if impl == "host" and op not in HOST_KERNELS:
        raise OptionError(
            f"{op}(impl)", "got 'host'", "a kernel of the host's", "Build BasicSR with BASICSR_EXT=True, or use 'auto'."
        )
    if impl not in ("reference", "fast", "host"):
        raise OptionError(f"{op}(impl)", f"got {impl!r}", "'auto', 'reference', 'fast' or 'host'")
    return impl


def run(op: str, impl: Implementation, implementations: Mapping[str, Callable[..., torch.Tensor]], x, *rest):
    """Call the chosen implementation of `op` with ``(x, *rest)``, in the precision of `x`."""
    chosen = implementations[choose(op, impl, x)]
    with no_autocast(x):
        return chosen(x, *rest)


def no_autocast(x: torch.Tensor) -> AbstractContextManager:
    """Switch autocasting off: it would round an image in float32, or a small sum, to bfloat16."""
    kind = x.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()
