"""pSp (Richardson et al., CVPR 2021): an encoder into the extended latent space of a frozen prior."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from gpen_plugin.archs import layers
from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.layers import DownConv2d, EqualConv2d, EqualLinear, NoiseMode, channels_of
from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.ops.dispatch import check_shape

COARSE, MEDIUM = 3, 4  # codes of these groups: StyleGAN's layers up to 8 and up to 32 px; all others are fine
LARGEST_INPUT = 256
PYRAMID = 4  # halvings from the image to the coarsest level
CENTER_OF = 4096  # latents whose mean the encoder starts from
UNITS = (3, 4, 14, 3)  # of IR-SE-50, by level
TAPS = (6, 20, 23)  # units whose output a level of the pyramid takes, from fine to coarse
REDUCTION = 16  # of the channels in a squeeze-and-excitation


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


class SqueezeExcite(nn.Module):
    """Channels weighted by what their means say: (N, C, H, W) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        inner = max(1, channels // REDUCTION)
        self.fc1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.fc2 = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class IRUnit(nn.Module):
    """A residual unit of face recognition's IR networks: (N, I, H, W) -> (N, O, H / stride, W / stride)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        norm_between: bool = False,  # whether batch normalization follows the first convolution, too, as in AdaFace
        squeeze: bool = True,  # whether squeeze and excitation ends the unit, as in IR-SE-50
    ):
        super().__init__()
        if in_channels == out_channels:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            convolution = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            *([nn.BatchNorm2d(out_channels)] if norm_between else []),
            nn.PReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            *([SqueezeExcite(out_channels)] if squeeze else []),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class StyleHead(nn.Module):
    """A level of the pyramid -> one latent code: halving convolutions to one pixel, then a linear map."""

    def __init__(self, width: int, size: int, num_style_feat: int):
        super().__init__()
        parts = []
        for halving in range(size.bit_length() - 1):
            parts += [nn.Conv2d(num_style_feat if halving else width, num_style_feat, 3, 2, 1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*parts)
        self.linear = EqualLinear(num_style_feat, num_style_feat)

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        """(N, C, r, r) -> (N, F)."""
        return self.linear(self.convs(level).flatten(1))


class IRSEEncoder(nn.Module):
    """pSp's own encoder, in its authors' names: IR-SE-50, a feature pyramid, and a head for each code."""

    def __init__(self, in_size: int, num_latent: int, num_style_feat: int, num_feat: int):
        super().__init__()
        widths = [num_feat, *(num_feat * 2**octave for octave in range(len(UNITS)))]
        stem = nn.Conv2d(3, num_feat, 3, padding=1, bias=False)
        self.input_layer = nn.Sequential(stem, nn.BatchNorm2d(num_feat), nn.PReLU(num_feat))
        units = []
        for (wide, wider), count in zip(pairwise(widths), UNITS, strict=True):
            units += [IRUnit(wide, wider, 2), *(IRUnit(wider, wider, 1) for _ in range(count - 1))]
        self.body = nn.Sequential(*units)
        top = widths[-1]
        self.latlayer1, self.latlayer2 = nn.Conv2d(widths[-2], top, 1), nn.Conv2d(widths[-3], top, 1)
        coarsest = in_size // 2**PYRAMID
        # level of each code, 0 is the coarsest
        self.levels = [0 if k < COARSE else 1 if k < COARSE + MEDIUM else 2 for k in range(num_latent)]
        self.styles = nn.ModuleList(StyleHead(top, coarsest * 2**level, num_style_feat) for level in self.levels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, in_size, in_size), in [-1, 1] -> (N, num_latent, F)."""
        x, taps = self.input_layer(x), []
        for number, unit in enumerate(self.body):
            x = unit(x)
            if number in TAPS:
                taps.append(x)
        fine, medium, coarse = taps
        pyramid = [coarse]
        for lateral, finer in ((self.latlayer1, medium), (self.latlayer2, fine)):
            enlarged = F.interpolate(pyramid[-1], finer.shape[2:], mode="bilinear", align_corners=True)
            pyramid.append(enlarged + lateral(finer))
        codes = [head(pyramid[level]) for head, level in zip(self.styles, self.levels, strict=True)]
        return torch.stack(codes, dim=1)  # (N, num_latent, F)


def sizes_of_published(encoder: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """`in_size` and `encoder_feat` of a published encoder, whose names have no prefix. KeyError: it is none."""
    halvings = sum(key.startswith("styles.0.convs.") and key.endswith(".weight") for key in encoder)
    return {"in_size": 2 ** (halvings + PYRAMID), "encoder_feat": encoder["input_layer.0.weight"].shape[0]}


@register("arch")
class PSP(nn.Module):
    """pixel2style2pixel: restores a face by finding its latent codes in a frozen prior. Raises OptionError.

    The encoder's codes are added to the prior's mean latent, which is computed again whenever `decoder` is given
    weights. An evaluation trains the encoder by itself (``type: psp``). BasicSR's SRModel can train it, too, with
    ``value_range: [0, 1]``, ``strict_load_g: false`` and a ``pretrain_network_g`` that holds the prior's tensors as
    ``decoder.*``.

    `encoder` chooses the paper's encoder or a smaller one. Differences of both from the paper: noise is zero, because
    no code can remove random grain. Of the smaller one: it has the convolutions of GPEN's networks, as wide as the
    prior, instead of a ResNet pretrained for face recognition; and the codes of a group share the convolutions of their
    head, where the paper has a network per code.
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
        encoder: Literal["pyramid", "ir_se50"] = "pyramid",  # `ir_se50` is the paper's, `pyramid` the smaller one
        encoder_feat: int = 64,  # channels of the first layer of `ir_se50`; 64 in the paper
    ):
        super().__init__()
        if encoder not in ("pyramid", "ir_se50"):
            raise OptionError("encoder", f"got {encoder!r}", "pyramid or ir_se50")
        layers.check_positive("encoder_feat", encoder_feat)
        self.decoder = GPENPrior(
            out_size, num_style_feat, num_mlp, channel_multiplier, narrow, lr_mlp, resample_kernel, noise_mode
        ).requires_grad_(False)
        self.out_size, self.in_size = out_size, min(LARGEST_INPUT, out_size) if in_size is None else in_size
        layers.check_in_size(self.in_size, out_size)
        self.value_range = layers.check_range(value_range)
        if encoder == "ir_se50":
            self.encoder = IRSEEncoder(self.in_size, self.decoder.num_latent, num_style_feat, encoder_feat)
        else:
            self.encoder = PyramidEncoder(
                self.in_size, self.decoder.num_latent, num_style_feat, channel_multiplier, narrow, resample_kernel
            )
        # one code, or one per layer. It follows from the decoder, so that no file has to hold it
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
        image = self.decoder.synthesize(self.center[None] + offsets, [None] * len(self.decoder.blocks))[-1]
        image = layers.from_signed_range(image, self.value_range)
        return (image, offsets) if return_latents else image

    def _after_loading(self, decoder: nn.Module, incompatible: object) -> None:
        self._find_center()

    def _find_center(self) -> None:
        self.center = self.decoder.mean_latent(CENTER_OF, _stream()).detach()


def _stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)  # on the CPU, where a seed means the same on every machine
