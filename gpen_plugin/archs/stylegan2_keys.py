"""The names of BasicSR's own StyleGAN2, as a respelling of those that GPEN's authors use.

Both descend from one implementation of StyleGAN2, so that the networks are the same and only spellings differ; the
authors' are that implementation's. FIR filters are not stored here, but fixed noise is, one map per convolution.

GFPGAN's ``Bilinear`` variants use these names too, but resample otherwise: no name or shape tells them apart.
"""

import re
from typing import Literal

import torch

# The authors' spelling -> BasicSR's, applied one after the other.
_RESPELLINGS = {
    "GPENPrior": (
        (r"^style\.", "style_mlp."),
        (r"^input\.input$", "constant_input.weight"),
        (r"^conv(1|s\.\d+)\.noise\.weight$", r"style_conv\1.weight"),
        (r"^conv(1|s\.\d+)\.", r"style_conv\1."),
        (r"\.conv\.", ".modulated_conv."),
    ),
    "GPENDiscriminator": ((r"^convs\.", "conv_body."),),
}


def stylegan2_name(kind: Literal["GPENPrior", "GPENDiscriminator"], theirs: str) -> str:
    """BasicSR's key of a tensor.

    Args:
        kind: which network the tensor is of.
        theirs: the authors' key of it.
    """
    for pattern, spelling in _RESPELLINGS[kind]:
        theirs = re.sub(pattern, spelling, theirs)
    return theirs


def is_fixed_noise(key: str) -> bool:
    """Whether this is one of the noise maps that StyleGAN2 files carry; our noise comes from outside."""
    return re.fullmatch(r"(?:generator\.)?noises\.noise_?\d+", key) is not None


def fixed_noise(out_size: int) -> dict[str, torch.Tensor]:
    """The maps without which BasicSR's generator does not load strictly: N(0, 1), the same at each call.

    Args:
        out_size: height and width of the picture.
    Returns:
        One map (1, 1, r, r) for each convolution, coarse to fine: one of 4 px, two of each r from 8 to `out_size`.
    """
    source = torch.Generator().manual_seed(0)
    sizes = [4] + [2**octave for octave in range(3, out_size.bit_length()) for _ in range(2)]
    return {f"noises.noise{index}": torch.randn(1, 1, size, size, generator=source) for index, size in enumerate(sizes)}
