"""A generator like BigGAN's (Brock et al., ICLR 2019) as a GAN prior; experimental. GPEN's section 3.2 names it."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from gpen_plugin.archs.gan_prior_arch import GANPrior
from gpen_plugin.archs.layers import EqualLinear, FoldedKernel, NoiseMode, channels_of, resolutions
from gpen_plugin.host import register

MAX_GROUPS = 32  # of the group norm
EPSILON = 1e-12
NORM_EPSILON = 1e-5  # PyTorch's


class SpectralConv2d(FoldedKernel):
    """Convolution whose kernel, as a matrix (O, I k k), has a largest singular value of 1.

    Spectral normalization (Miyato et al., ICLR 2018): one step of the power method at each training step.
    """

    weight: nn.Parameter

    def __init__(self, in_channels: int, out_channels: int, size: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(out_channels, in_channels * size**2)))
        self.weight.data = self.weight.data.reshape(out_channels, in_channels, size, size)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("u", F.normalize(torch.randn(out_channels), dim=0, eps=EPSILON))

    def make_kernel(self) -> torch.Tensor:
        """(O, I, k, k)."""
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(matrix.T @ self.u, dim=0, eps=EPSILON)
            u = F.normalize(matrix @ v, dim=0, eps=EPSILON)
            if self.training:
                self.u.copy_(u)
        return self.weight / torch.dot(u, matrix @ v)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel = self.kernel_now
        return F.conv2d(x, kernel, self.bias, padding=kernel.shape[2] // 2)


class ConditionalNorm(nn.Module):
    """Group norm, the code's scale and shift, ReLU: (N, C, H, W) and z (N, F) -> (N, C, H, W)."""

    def __init__(self, channels: int, num_style_feat: int):
        super().__init__()
        self.groups = math.gcd(MAX_GROUPS, channels)
        self.style = EqualLinear(num_style_feat, 2 * channels)

    def forward(self, x: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        scale, shift = self.style(latent)[:, :, None, None].to(x.dtype).chunk(2, dim=1)
        _, channels, height, width = x.shape
        # -1 is the batch: a traced shape may be a constant of the graph, also that in F.group_norm
        grouped = x.reshape(-1, self.groups, channels // self.groups * height * width)
        centered = grouped - grouped.mean(dim=2, keepdim=True)
        grouped = centered * torch.rsqrt(centered.square().mean(dim=2, keepdim=True) + NORM_EPSILON)
        return F.relu(grouped.reshape(-1, channels, height, width) * (1 + scale) + shift)


class MapInput(nn.Module):
    """How a map enters: concatenated with one weight, or added with a weight per channel; the weights start at zero."""

    def __init__(self, channels: int, noise_mode: NoiseMode):
        super().__init__()
        self.noise_mode = noise_mode
        shape = {"concat": 1, "add": channels}.get(noise_mode)
        self.noise_weight = None if shape is None else nn.Parameter(torch.zeros(shape))

    def forward(self, x: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        if self.noise_weight is None:
            return x
        noise = x.new_zeros(1, 1, 1, 1) if noise is None else noise.to(x.dtype)
        noise = self.noise_weight.to(x.dtype)[:, None, None] * noise
        if self.noise_mode == "add":
            return x + noise
        channels = x.shape[1] if noise.shape[1] == 1 else noise.shape[1]
        return torch.cat([x, noise.expand(x.shape[0], channels, *x.shape[2:])], dim=1)


class BigGANBlock(nn.Module):
    """A residual block that doubles the resolution. At 4 px there is none: the map is added to the first features."""

    num_latent = 0  # all blocks read the one code

    def __init__(
        self,
        in_channels: int | None,  # of the block before; None at 4 px
        out_channels: int,  # C
        num_style_feat: int,  # F
        noise_mode: NoiseMode,
        last: bool,
    ):
        super().__init__()
        self.noise_channels = self.sampled_channels = self.out_channels = out_channels
        self.first = in_channels is None
        self.final_norm = ConditionalNorm(out_channels, num_style_feat) if last else None
        self.to_rgb = SpectralConv2d(out_channels, 3, 3) if last else None
        if in_channels is None:
            self.noise2 = MapInput(out_channels, "none" if noise_mode == "none" else "add")
            return
        joined = out_channels if noise_mode == "concat" else 0
        self.concatenates = bool(joined)
        self.norm1, self.norm2 = (ConditionalNorm(width, num_style_feat) for width in (in_channels, out_channels))
        self.noise1, self.noise2 = (MapInput(out_channels, noise_mode) for _ in range(2))
        self.conv1 = SpectralConv2d(in_channels + joined, out_channels, 3)
        self.conv2 = SpectralConv2d(out_channels + joined, out_channels, 3)
        self.conv_sc = SpectralConv2d(in_channels, out_channels, 1)

    def forward(
        self,
        x: torch.Tensor,  # features of the block before, (N, C', H / 2, W / 2), or the first, (N, C, 4, 4)
        latents: torch.Tensor,  # (N, 1, F)
        noise: torch.Tensor | None,  # (N or 1, C, H, W), for both convolutions; None is zeros
        earlier: torch.Tensor | None,  # not used: an image is no sum
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the features (N, C, H, W) and, in the last block, the image (N, 3, H, W)."""
        z = latents[:, 0]
        x = self.noise2(x, noise) if self.first else self._residual(x, z, noise)
        if self.to_rgb is None or self.final_norm is None:
            return x, None
        return x, self.to_rgb(self.final_norm(x, z))

    def _residual(self, x, z, noise):
        y = F.interpolate(self.norm1(x, z), scale_factor=2, mode="nearest")
        if self.concatenates:  # after the norms, before the convolutions
            y = self.norm2(self.conv1(self._join(self.noise1, y, noise)), z)
            y = self.conv2(self._join(self.noise2, y, noise))
        else:
            y = self.norm2(self.noise1(self.conv1(y), noise), z)
            y = self.noise2(self.conv2(y), noise)
        return y + F.interpolate(self.conv_sc(x), scale_factor=2, mode="nearest")

    def _join(self, layer, x, noise):
        if noise is None:
            noise = x.new_zeros(1, self.noise_channels, 1, 1)
        return layer(x, noise)


@register("arch")
class BigGANPrior(GANPrior):
    """Experimental: residual blocks, spectral normalization and one code for all norms, as in BigGAN. OptionError.

    Differences from BigGAN: group norm in place of batch norm, because GPEN trains with batches of one; the widths of
    GPEN; neither classes, nor attention, nor the tanh at the end. No weights for faces were published, so it is trained
    from scratch, with ``mixing_prob: 0`` and ``path_reg_weight: 0``. Truncation scales z.
    """

    def __init__(
        self,
        out_size: int,  # height and width of the image, a power of two from 16 to 2048; BigGAN's were up to 512
        num_style_feat: int = 512,  # F, length of z
        channel_multiplier: float = 1,  # factor of the channels above 32 px
        narrow: float = 1,  # factor of all channels
        # how maps enter: `concat`, before each convolution; `add`, after it; `none`. At 4 px they are added
        noise_mode: NoiseMode = "concat",
    ):
        super().__init__(out_size, num_style_feat, noise_mode)
        self.mapping = nn.Identity()
        self.linear = EqualLinear(num_style_feat, channels_of(4, channel_multiplier, narrow) * 4 * 4)
        self.blocks = nn.ModuleDict()
        width = None
        for resolution in resolutions(out_size):
            channels = channels_of(resolution, channel_multiplier, narrow)
            self.blocks[str(resolution)] = BigGANBlock(
                width, channels, num_style_feat, noise_mode, last=resolution == out_size
            )
            width = channels

    def first_features(self, latents: torch.Tensor) -> torch.Tensor:
        """Codes (N, 1, F) -> features (N, C, 4, 4)."""
        # -1 is the batch: a traced shape may be a constant of the graph
        return self.linear(latents[:, 0]).reshape(-1, self.blocks["4"].noise_channels, 4, 4)

    def mean_latent(self, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """The mean of z, zeros (1, F)."""
        return next(self.parameters()).new_zeros(1, self.num_style_feat)
