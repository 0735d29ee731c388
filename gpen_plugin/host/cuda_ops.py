"""The host's compiled CUDA ops, lent to ours where they were built."""

import sys

from gpen_plugin.host.registry import host_is_installed


def cuda_ops_built() -> bool:
    """Whether BasicSR was built with its StyleGAN2 extensions (``BASICSR_EXT=True`` or ``BASICSR_JIT=True``)."""
    if not host_is_installed():
        return False
    import basicsr.ops.fused_act
    import basicsr.ops.upfirdn2d  # noqa: F401

    # by sys.modules: in the packages, the functions hide the modules of the same names
    return hasattr(sys.modules["basicsr.ops.fused_act.fused_act"], "fused_act_ext") and hasattr(
        sys.modules["basicsr.ops.upfirdn2d.upfirdn2d"], "upfirdn2d_ext"
    )


def use_host_cuda_ops() -> None:
    """Let the dispatch in `gpen_plugin.ops` use the host's kernels for CUDA tensors, if there are any."""
    if not cuda_ops_built():
        return
    from basicsr.ops.fused_act import fused_leaky_relu
    from basicsr.ops.upfirdn2d import upfirdn2d

    from gpen_plugin.ops import use_host_kernels

    use_host_kernels(upfirdn2d=upfirdn2d, bias_act=fused_leaky_relu)
