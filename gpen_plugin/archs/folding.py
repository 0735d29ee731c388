"""A finished network made fast: `fold` swaps its layers for their evaluation forms and leaves all else as it is."""

import copy

import torch
from torch import nn

from gpen_plugin.archs.folded_layers import FoldedConv2d, FoldedLinear, FoldedStyledConv, FoldedToRGB
from gpen_plugin.archs.gan_prior_arch import GANBlock
from gpen_plugin.archs.layers import DownConv2d, EqualConv2d, EqualLinear, StyledConv, ToRGB


def fold(network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy of a finished network for evaluation: the same calls and numbers, in fewer passes over memory.

    It has no parameters that could learn, and no weights to save: keep the network itself for that. On a CPU, bring the
    network to ``torch.channels_last`` before. Hooks of the layers that are folded stay behind, and a hook that is given
    to the copy may look at features, but has to copy those that it keeps: the next layer may write over them.

    Args:
        network: a `GPEN`, `GPENPrior`, `GPENDiscriminator` or `PSP`, or any module made of this package's layers; it is
            left as it is.
        dtype: in which features are computed; latent codes, styles and pictures stay in float32.
    Returns:
        The copy, in evaluation mode, on the same device. It has weights of its own: `network` may learn on.
    """
    return _folded(network, dtype, overwrites=False).eval()


def _folded(module: nn.Module, dtype: torch.dtype, overwrites: bool) -> nn.Module:
    if type(module) is EqualLinear:
        return FoldedLinear(module)
    if type(module) in (EqualConv2d, DownConv2d):
        return FoldedConv2d(module, dtype)
    if type(module) is StyledConv:
        return FoldedStyledConv(module, dtype, overwrites)
    if type(module) is ToRGB:
        return FoldedToRGB(module, dtype)
    shell = copy.copy(module)
    # whatever is registered with the copy, such as a hook, is none of the network's business
    vars(shell).update({name: held.copy() for name, held in vars(module).items() if isinstance(held, (dict, set))})
    shell._parameters = {name: _finished(parameter) for name, parameter in module._parameters.items()}
    # of what a block's first convolution makes, its second one is the only reader
    second = module.conv1 if type(module) is GANBlock and module.conv0 is not None else None
    shell._modules = {
        name: child if child is None else _folded(child, dtype, overwrites=child is second)
        for name, child in module._modules.items()
    }
    return shell


def _finished(parameter: nn.Parameter | None) -> nn.Parameter | None:
    """Another parameter of the same values, which moves to no device and takes no step together with the network's."""
    return None if parameter is None else nn.Parameter(parameter.detach().clone(), requires_grad=False)
