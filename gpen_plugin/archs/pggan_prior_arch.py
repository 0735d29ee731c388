"""PGGAN's generator as a GAN prior (Karras et al., ICLR 2018; section 3.2 of GPEN's paper names it)."""

from collections.abc import Sequence

import torch
from torch import nn

from gpen_plugin.archs.gan_prior_arch import GANPrior
from gpen_plugin.archs.key_maps import accept_authors_layout
from gpen_plugin.archs.layers import (
    EqualLinear,
    LinearToRGB,
    NoiseMode,
    NormalizedConv,
    channels_of,
    normalize_2nd_moment,
    resolutions,
)
from gpen_plugin.errors import OptionError
from gpen_plugin.host import register


class PixelNorm(nn.Module):
    """z (N, F) -> z (N, F) of mean square 1. PGGAN has no mapping network."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return normalize_2nd_moment(z)


class PixelNormConv(NormalizedConv):
    """Convolution, bias, leaky ReLU, pixel norm."""

    def normalize(self, x: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        return normalize_2nd_moment(x)


class PGGANBlock(nn.Module):
    """The layers of one resolution; the last block makes the image."""

    num_latent = 0  # only the first features depend on the code

    def __init__(
        self,
        in_channels: int | None,  # of the block before; None for the first, whose first layer has no convolution
        out_channels: int,  # C, before maps are concatenated
        noise_mode: NoiseMode,
        last: bool,
    ):
        super().__init__()
        first = in_channels is None
        self.conv0 = PixelNormConv(in_channels, out_channels, noise_mode, up=not first, bias=not first)
        self.conv1 = PixelNormConv(self.conv0.out_channels, out_channels, noise_mode)
        self.to_rgb = LinearToRGB(self.conv1.out_channels) if last else None
        self.noise_channels = self.sampled_channels = out_channels
        self.out_channels = self.conv1.out_channels

    def forward(
        self,
        x: torch.Tensor,  # features of the block before, (N, C', H / 2, W / 2), or the first, (N, C, 4, 4)
        latents: torch.Tensor,  # not used
        noise: torch.Tensor | None,  # (N or 1, C, H, W), for both layers; None is zeros
        earlier: torch.Tensor | None,  # not used: an image is no sum
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the features (N, out_channels, H, W) and, in the last block, the image (N, 3, H, W)."""
        x = self.conv1(self.conv0(x, latents, noise), latents, noise)
        return x, None if self.to_rgb is None else self.to_rgb(x)


@register("arch")
class PGGANPrior(GANPrior):
    """PGGAN: one latent code, which only the first layer reads; pixel norm; no noise of its own. Raises OptionError.

    `load_state_dict` also takes the generators of genforce, mGANprior and pytorch_GAN_zoo where `noise_mode` is `none`;
    ``gpen-grow --noise-mode concat`` adds the inputs for an encoder's features. Only the image of `out_size` exists:
    the other RGB layers of PGGAN are for its growing. It trains with ``mixing_prob: 0`` and ``path_reg_weight: 0``.
    """

    has_mean_latent = False

    def __init__(
        self,
        out_size: int,  # height and width of the image, a power of two from 16 to 2048
        num_style_feat: int = 512,  # F, length of z
        channel_multiplier: float = 1,  # factor of the channels above 32 px; 1 in published networks
        narrow: float = 1,  # factor of all channels
        # how an encoder's features enter: `concat`, after the pixel norm; `add`, before the activation; `none`, PGGAN
        noise_mode: NoiseMode = "concat",
    ):
        super().__init__(out_size, num_style_feat, noise_mode)
        self.mapping = PixelNorm()
        self.dense = EqualLinear(num_style_feat, channels_of(4, channel_multiplier, narrow) * 4 * 4)
        self.blocks = nn.ModuleDict()
        width = None
        for resolution in resolutions(out_size):
            channels = channels_of(resolution, channel_multiplier, narrow)
            block = PGGANBlock(width, channels, noise_mode, last=resolution == out_size)
            self.blocks[str(resolution)], width = block, block.out_channels
        self.register_load_state_dict_pre_hook(accept_authors_layout)

    def first_features(self, latents: torch.Tensor) -> torch.Tensor:
        """Codes (N, 1, F) -> features (N, C, 4, 4)."""
        # -1 is the batch: a traced shape may be a constant of the graph
        return self.dense(latents[:, 0]).reshape(-1, self.blocks["4"].noise_channels, 4, 4)  # (N, C, 4, 4)

    def features_to_sum(
        self, end: int, latents: torch.Tensor, noise: Sequence[torch.Tensor | None]
    ) -> tuple[torch.Tensor, None]:
        """As in `GANPrior`; before the last pixel norm, which normalizes the sum."""
        x, _ = self.run_blocks(0, end - 1, self.first_features(latents), None, latents, noise)
        block, own = list(self.blocks.values())[end - 1], noise[end - 1]
        return block.conv1.activate(block.conv0(x, latents, own), own), None

    def finish_sum(self, end: int, x: torch.Tensor, noise: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """The last pixel norm."""
        return list(self.blocks.values())[end - 1].conv1.finish(x, x, noise[end - 1])

    def channels_to_sum(self, resolution: int) -> int:
        """The channels before a map is concatenated."""
        return self.blocks[str(resolution)].noise_channels

    def mean_latent(self, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Raise an OptionError: the mean of normalized z is 0, which is no face."""
        raise OptionError("truncation", "PGGANPrior has no mean latent code", "1", "Set truncation to 1.")
