"""pSp (Richardson et al., CVPR 2021): an encoder into the extended latent space of a frozen prior."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from gpen_plugin.archs import layers
from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.layers import DownConv2d, EqualConv2d, EqualLinear, NoiseMode, channels_of
from gpen_plugin.host import register
from gpen_plugin.ops.dispatch import check_shape

COARSE, MEDIUM = 3, 4  # codes of these groups: StyleGAN's layers up to 8 and up to 32 px; all others are fine
LARGEST_INPUT = 256
PYRAMID = 4  # halvings from the image to the coarsest level
CENTER_OF = 4096  # latents whose mean the encoder starts from


class CodeHead(nn.Module):
    """A level of the pyramid -> the latent codes of a group: halving convolutions, then one linear map."""

    def __init__(
        self,
        width: int,  # channels of the level
        size: int,  # its height and width, a power of two
        codes: int,  # number of codes
        num_style_feat: int,  # F, length of each
        resample_kernel: Sequence[float],  # taps of the blur before each halving
    ):
        super().__init__()
        halvings = size.bit_length() - 1
        self.down = nn.Sequential(*[DownConv2d(width, width, 3, resample_kernel) for _ in range(halvings)])
        self.to_codes = EqualLinear(width, codes * num_style_feat)
        self.codes = codes

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        """(N, C, r, r) -> (N, codes, F)."""
        flat = self.to_codes(self.down(level).flatten(1))  # (N, C, 1, 1) -> (N, codes * F)
        return flat.unflatten(1, (self.codes, -1))  # (N, codes, F)


class PyramidEncoder(nn.Module):
    """Image -> one offset of the mean latent code per layer of the prior.

    A feature pyramid: halving convolutions, then each level is the finer features plus the coarser level enlarged.
    Coarse, medium and fine codes are read from levels of a 16th, an 8th and a 4th of the image.
    """

    def __init__(
        self,
        in_size: int,  # height and width of the image, a power of two from 16
        num_latent: int,  # codes in all, 6 or more
        num_style_feat: int,  # F
        channel_multiplier: float,  # as in `channels_of`
        narrow: float,  # as in `channels_of`
        resample_kernel: Sequence[float],  # taps of the blur before each halving
    ):
        super().__init__()
        sizes = [in_size // 2**halvings for halvings in range(1, PYRAMID + 1)]
        widths = [channels_of(size, channel_multiplier, narrow) for size in (in_size, *sizes)]
        top = widths[-1]
        self.stem = EqualConv2d(3, widths[0], 3)
        self.down = nn.ModuleList(DownConv2d(wide, narrower, 3, resample_kernel) for wide, narrower in pairwise(widths))
        groups = [COARSE, min(MEDIUM, num_latent - COARSE), max(0, num_latent - COARSE - MEDIUM)]
        self.heads = nn.ModuleList(
            CodeHead(top, size, codes, num_style_feat, resample_kernel)
            for size, codes in zip(sizes[::-1], groups, strict=False)
            if codes  # a prior of 16 px has no fine ones
        )
        finer = widths[-2::-1][: len(self.heads) - 1]
        self.lateral = nn.ModuleList(EqualConv2d(width, top, 1, activate=False) for width in finer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, in_size, in_size), in [-1, 1] -> (N, num_latent, F)."""
        features = [self.stem(x)]
        for layer in self.down:
            features.append(layer(features[-1]))
        levels = [features[-1]]
        for lateral, finer in zip(self.lateral, features[-2::-1], strict=False):
            enlarged = F.interpolate(levels[-1], scale_factor=2, mode="bilinear", align_corners=False)
            levels.append(enlarged + lateral(finer))
        codes = [head(level) for head, level in zip(self.heads, levels, strict=True)]
        return torch.cat(codes, dim=1)  # (N, num_latent, F)


@register("arch")
class PSP(nn.Module):
    """pixel2style2pixel: restores a face by finding its latent codes in a frozen prior. Raises OptionError.

    The encoder's codes are added to the prior's mean latent, which is computed again whenever `decoder` is given
    weights. An evaluation trains the encoder by itself (``type: psp``). BasicSR's SRModel can train it, too, with
    ``value_range: [0, 1]``, ``strict_load_g: false`` and a ``pretrain_network_g`` that holds the prior's tensors as
    ``decoder.*``.

    Differences from the paper: the encoder has the convolutions of GPEN's networks, as wide as the prior, instead of a
    ResNet pretrained for face recognition; the codes of a group share the convolutions of their head, where the paper
    has a network per code; and noise is zero, because no code can remove random grain.
    """

    def __init__(
        self,
        out_size: int,  # height and width of the result, a power of two from 16 to 2048
        # height and width that the input is resized to, a power of two up to `out_size`; `~` means the paper's 256, or
        # `out_size` where that is smaller
        in_size: int | None = None,
        num_style_feat: int = 512,  # F, length of a latent code
        num_mlp: int = 8,  # layers of the prior's mapping network
        channel_multiplier: float = 2,  # factor of the channels above 32 px
        narrow: float = 1,  # factor of all channels
        lr_mlp: float = 0.01,  # factor of the mapping network's learning rate
        resample_kernel: Sequence[float] = (1, 3, 3, 1),  # taps of the FIR filter of all resampling inside
        noise_mode: NoiseMode = "concat",  # the prior's
        # lowest and highest value of input and output images; (0, 1) in BasicSR's SRModel
        value_range: tuple[float, float] = (-1, 1),
    ):
        super().__init__()
        self.decoder = GPENPrior(
            out_size, num_style_feat, num_mlp, channel_multiplier, narrow, lr_mlp, resample_kernel, noise_mode
        ).requires_grad_(False)
        self.out_size, self.in_size = out_size, min(LARGEST_INPUT, out_size) if in_size is None else in_size
        layers.check_in_size(self.in_size, out_size)
        self.value_range = layers.check_range(value_range)
        self.encoder = PyramidEncoder(
            self.in_size, self.decoder.num_latent, num_style_feat, channel_multiplier, narrow, resample_kernel
        )
        # follows from the decoder, so that no file has to hold it
        self.register_buffer("center", torch.zeros(1, num_style_feat), persistent=False)
        self._find_center()
        self.decoder.register_load_state_dict_post_hook(self._after_loading)  # a bound method survives a deep copy

    def forward(
        self,
        # RGB images of any height and width, (N, 3, H, W), float, in `value_range`. They are resized bilinearly to
        # `in_size`
        lq: torch.Tensor,
        *,
        # return a pair of the image and the encoder's offsets of the mean latent, (N, num_latent, F)
        return_latents: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Restore faces: (N, 3, out_size, out_size), about `value_range` (not clipped). Raises ShapeError."""
        check_shape("lq", lq, {"N": None, "C": 3, "H": None, "W": None})
        entered = layers.resize(layers.to_signed_range(lq, self.value_range), self.in_size)
        offsets = self.encoder(entered)  # (N, num_latent, F)
        image = self.decoder.synthesize(self.center[:, None] + offsets, [None] * len(self.decoder.blocks))[-1]
        image = layers.from_signed_range(image, self.value_range)
        return (image, offsets) if return_latents else image

    def _after_loading(self, decoder: nn.Module, incompatible: object) -> None:
        self._find_center()

    def _find_center(self) -> None:
        self.center = self.decoder.mean_latent(CENTER_OF, _stream()).detach()


def _stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)  # on the CPU, where a seed means the same on every machine
