"""The one place that makes a computation the same at every run on one machine."""

import contextlib
from collections.abc import Iterator

import torch

from gpen_plugin.data.degradation import rng_from_key


@contextlib.contextmanager
def repeatable(device: torch.device, *parts: str | int) -> Iterator[None]:
    """Compute in whole float32, with kernels that do not depend on chance, and draw what `parts` tell.

    On a GPU no kernel is chosen by timing, and TF32 is off. What the caller had set and drawn is as before afterwards.

    Args:
        device: where is computed.
        parts: what torch's random numbers are a function of: a seed, the key of an image, ...
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(rng_from_key(*parts).integers(2**63)))
        try:
            cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, False, False, False
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
