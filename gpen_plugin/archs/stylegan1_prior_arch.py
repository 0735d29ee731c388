"""StyleGAN v1's generator as a GAN prior (Karras et al., CVPR 2019; section 3.2 of GPEN's paper names it)."""

import torch
from torch import nn

from gpen_plugin.archs.gan_prior_arch import GANPrior, MappingNetwork
from gpen_plugin.archs.key_maps import accept_authors_layout
from gpen_plugin.archs.layers import (
    EqualLinear,
    LinearToRGB,
    NoiseMode,
    NormalizedConv,
    channels_of,
    check_positive,
    resolutions,
)
from gpen_plugin.host import register
from gpen_plugin.ops import fir_kernel, upfirdn2d

BLUR_TAPS = (1, 2, 1)
EPSILON = 1e-8  # of the instance norm


class AdaINConv(NormalizedConv):
    """Convolution, noise, bias, leaky ReLU, instance norm, and the style's scale and shift (AdaIN)."""

    def __init__(
        self,
        in_channels: int | None,  # I; None for no convolution, after the constant
        out_channels: int,  # O, before the map is concatenated
        num_style_feat: int,  # F
        noise_mode: NoiseMode,
        up: bool = False,  # double height and width, and blur after the convolution
        bias_before_blur: bool = False,
    ):
        super().__init__(in_channels, out_channels, noise_mode, up, bias=not (up and bias_before_blur))
        self.blurred_bias = nn.Parameter(torch.zeros(out_channels)) if self.bias is None else None
        self.style = EqualLinear(num_style_feat, 2 * out_channels)
        self.register_buffer("kernel", fir_kernel(BLUR_TAPS) if up else None, persistent=False)

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        x = super().convolve(x)
        if self.blurred_bias is not None:
            x = x + self.blurred_bias.to(x.dtype)[:, None, None]
        return upfirdn2d(x, self.kernel, pad=(1, 1)) if self.up else x

    def normalize(self, x: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """(N, O, H, W) and w (N, F) -> (N, O, H, W). The statistics are computed in float32 at least."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        centered = wide - wide.mean(dim=(2, 3), keepdim=True)
        wide = centered * torch.rsqrt(centered.square().mean(dim=(2, 3), keepdim=True) + EPSILON)
        scale, shift = self.style(latent)[:, :, None, None].chunk(2, dim=1)  # (N, O, 1, 1) each
        return (wide * (scale + 1) + shift).to(x.dtype)


class StyleGAN1Block(nn.Module):
    """The two layers of one resolution; the last block makes the image."""

    num_latent = 2

    def __init__(
        self,
        in_channels: int | None,  # of the block before; None for the first, which starts from the constant
        out_channels: int,  # C, before maps are concatenated
        num_style_feat: int,  # F
        noise_mode: NoiseMode,
        bias_before_blur: bool,
        last: bool,
    ):
        super().__init__()
        up = in_channels is not None
        self.conv0 = AdaINConv(in_channels, out_channels, num_style_feat, noise_mode, up, bias_before_blur)
        self.conv1 = AdaINConv(self.conv0.out_channels, out_channels, num_style_feat, noise_mode)
        self.to_rgb = LinearToRGB(self.conv1.out_channels) if last else None
        self.noise_channels, self.out_channels = out_channels, self.conv1.out_channels
        self.sampled_channels = (
            1 if noise_mode == "add" else out_channels
        )  # StyleGAN's noise is the same in all channels

    def forward(
        self,
        x: torch.Tensor,  # features of the block before, (N, C', H / 2, W / 2), or the constant, (N, C, 4, 4)
        latents: torch.Tensor,  # (N, at least 2, F)
        noise: torch.Tensor | None,  # (N or 1, C, H, W), for both layers; None is zeros
        earlier: torch.Tensor | None,  # not used: an image is no sum
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the features (N, out_channels, H, W) and, in the last block, the image (N, 3, H, W)."""
        x = self.conv1(self.conv0(x, latents[:, 0], noise), latents[:, 1], noise)
        return x, None if self.to_rgb is None else self.to_rgb(x)


@register("arch")
class StyleGAN1Prior(GANPrior):
    """StyleGAN v1: mapping network, constant, AdaIN; two latent codes per resolution. Raises OptionError.

    `load_state_dict` also takes the generators of genforce, PULSE and rosinality where `noise_mode` is `add`. Noise is
    then sampled as StyleGAN's, one channel for all; an encoder's features have all. ``gpen-grow --noise-mode concat``
    adds the inputs for an encoder's features. Only the image of `out_size` exists: other RGB layers are for growing.
    """

    def __init__(
        self,
        out_size: int,  # height and width of the image, a power of two from 16 to 2048
        num_style_feat: int = 512,  # F, length of z and w
        num_mlp: int = 8,  # layers of the mapping network
        channel_multiplier: float = 1,  # factor of the channels above 32 px; 1 in published networks
        narrow: float = 1,  # factor of all channels
        lr_mlp: float = 0.01,  # factor of the mapping network's learning rate
        # how maps enter: `concat`, after AdaIN; `add`, before the bias, as StyleGAN's noise; or `none`
        noise_mode: NoiseMode = "concat",
        # add the biases of upsampling layers before the blur, which changes the outermost pixels: rosinality's networks
        bias_before_blur: bool = False,
    ):
        super().__init__(out_size, num_style_feat, noise_mode)
        check_positive("num_mlp", num_mlp)
        self.mapping = MappingNetwork(num_style_feat, num_mlp, lr_mlp)
        # not ones, as in the official code: the instance norm would divide nothing but rounding errors by their size
        self.constant = nn.Parameter(torch.randn(1, channels_of(4, channel_multiplier, narrow), 4, 4))
        self.blocks = nn.ModuleDict()
        width = None
        for resolution in resolutions(out_size):
            channels, last = channels_of(resolution, channel_multiplier, narrow), resolution == out_size
            block = StyleGAN1Block(width, channels, num_style_feat, noise_mode, bias_before_blur, last)
            self.blocks[str(resolution)], width = block, block.out_channels
        self.register_load_state_dict_pre_hook(accept_authors_layout)

    @property
    def num_latent(self) -> int:
        """Two per resolution; the RGB layer takes none."""
        return 2 * len(self.blocks)

    def first_features(self, latents: torch.Tensor) -> torch.Tensor:
        """The learned constant, (N, C, 4, 4)."""
        return self.constant.expand(latents.shape[0], -1, -1, -1)
