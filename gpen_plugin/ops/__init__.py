"""The three ops of StyleGAN2's networks, each as a plain reference and a fast version. No BasicSR in here."""

from gpen_plugin.ops.bias_act import bias_act
from gpen_plugin.ops.dispatch import HOST_KERNELS, Implementation, force_implementation, use_host_kernels
from gpen_plugin.ops.modulated_conv import modulated_conv
from gpen_plugin.ops.upfirdn import fir_kernel, upfirdn2d

__all__ = [
    "HOST_KERNELS",
    "Implementation",
    "bias_act",
    "fir_kernel",
    "force_implementation",
    "modulated_conv",
    "upfirdn2d",
    "use_host_kernels",
]
