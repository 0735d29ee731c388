"""GPEN: an encoder that feeds a GAN prior (section 3.2, Figure 3c)."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from gpen_plugin.archs import layers
from gpen_plugin.archs.gan_prior_arch import build_prior
from gpen_plugin.archs.key_maps import accept_authors_layout
from gpen_plugin.archs.layers import (
    DownConv2d,
    EqualConv2d,
    EqualLinear,
    NoiseMode,
    channels_of,
    check_positive,
    check_size,
    check_taps,
    resolutions,
)
from gpen_plugin.archs.pretrained import Pretrained
from gpen_plugin.host import register
from gpen_plugin.ops.dispatch import check_shape


class Restoration(NamedTuple):
    """What `GPEN` returns when more than the image is requested; images are in the value range of the input."""

    image: torch.Tensor  # (N, 3, out_size, out_size)
    latents: torch.Tensor | None = None  # (N, num_latent, F); None if not requested
    # images (N, 3, r, r) of each resolution, coarse to fine, the last is `image`; None if not requested. Only StyleGAN2
    # has more than the last
    rgbs: list[torch.Tensor] | None = None


class Encoder(nn.Module):
    """Degraded image -> latent code and one feature map per resolution."""

    checkpointing = False  # see `GANPrior`

    def __init__(
        self,
        in_size: int,  # height and width of the image, a power of two
        num_style_feat: int,  # F
        channel_multiplier: float,  # as in `channels_of`
        narrow: float,  # as in `channels_of`
        resample_kernel: Sequence[float],  # taps of the blur before each halving
    ):
        super().__init__()
        width = channels_of(in_size, channel_multiplier, narrow)
        self.stem = EqualConv2d(3, width, 1)
        self.down = nn.ModuleDict()  # by the resolution that a layer leads to
        for resolution in reversed(resolutions(in_size // 2)):
            channels = channels_of(resolution, channel_multiplier, narrow)
            self.down[str(resolution)], width = DownConv2d(width, channels, 3, resample_kernel), channels
        self.to_z = EqualLinear(width * 4 * 4, num_style_feat, activate=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(N, 3, in_size, in_size), in [-1, 1] -> z (N, F), and features (N, C, r, r), coarse (r = 4) to fine."""
        features = [self.stem(x)]
        for layer in self.down.values():
            features.append(layers.run_layer(layer, features[-1], checkpointing=self.checkpointing))
        return self.to_z(features[-1].reshape(-1, self.to_z.weight.shape[1])), features[
            ::-1
        ]  # (N, C * 4 * 4) -> (N, F)


@register("arch")
class GPEN(Pretrained, nn.Module):
    """GAN prior embedded network: restores degraded faces. Raises OptionError for an argument out of range.

    The encoder's deepest features give z; its features of each resolution are the noise input of the GAN blocks there.
    The noise weights start at zero, so that under a fresh encoder the prior generates its own faces.

    `encoder` and `decoder`, a `GANPrior`, hold all parameters. `load_state_dict` also takes the authors' files.
    """

    def __init__(
        self,
        out_size: int,  # height and width of the result, a power of two from 16 to 2048
        # height and width that the input is resized to, a power of two up to `out_size`; `~` means `out_size`. Where it
        # is smaller, the finest GAN blocks have no encoder features, and zeros for noise
        in_size: int | None = None,
        num_style_feat: int = 512,  # F, length of the latent code
        num_mlp: int = 8,  # layers of the mapping network
        channel_multiplier: float = 2,  # factor of the channels above 32 px
        narrow: float = 1,  # factor of all channels
        lr_mlp: float = 0.01,  # factor of the mapping network's learning rate
        resample_kernel: Sequence[float] = (1, 3, 3, 1),  # taps of the FIR filter of all resampling inside
        # `concat` (the paper's), `add` or `none`, with which only z depends on the input
        noise_mode: NoiseMode = "concat",
        # lowest and highest value of input and output images; (0, 1) in BasicSR's SRModel
        value_range: tuple[float, float] = (-1, 1),
        # another GAN prior (section 3.2): `type`, and the keys that only its class has; `~` is StyleGAN2
        prior: Mapping | None = None,
    ):
        super().__init__()
        check_size("out_size", out_size)
        self.out_size, self.in_size = out_size, out_size if in_size is None else in_size
        layers.check_in_size(self.in_size, out_size)
        check_taps(resample_kernel)
        self.value_range = layers.check_range(value_range)
        check_positive("num_style_feat", num_style_feat)
        self.encoder = Encoder(self.in_size, num_style_feat, channel_multiplier, narrow, resample_kernel)
        shared = {
            "out_size": out_size,
            "num_style_feat": num_style_feat,
            "num_mlp": num_mlp,
            "channel_multiplier": channel_multiplier,
            "narrow": narrow,
            "lr_mlp": lr_mlp,
            "resample_kernel": resample_kernel,
            "noise_mode": noise_mode,
        }
        self.decoder = build_prior(prior, shared)
        self.register_load_state_dict_pre_hook(accept_authors_layout)

    def forward(
        self,
        # RGB images of any height and width, (N, 3, H, W), float, in `value_range`. They are resized bilinearly to
        # `in_size`; images of that size stay as they are, bit for bit
        lq: torch.Tensor,
        *,
        # function of the encoder's latent codes that replaces them, both (N, num_latent, F)
        restyle: Callable[[torch.Tensor], torch.Tensor] | None = None,
        return_latents: bool = False,  # return a `Restoration` with the latent codes
        return_rgbs: bool = False,  # return a `Restoration` with the images of all resolutions
    ) -> torch.Tensor | Restoration:
        """Restore faces: (N, 3, out_size, out_size), about `value_range` (not clipped), or a `Restoration`.

        Raises ShapeError, which names the dimension.
        """
        check_shape("lq", lq, {"N": None, "C": 3, "H": None, "W": None})
        z, features = self.encoder(layers.resize(layers.to_signed_range(lq, self.value_range), self.in_size))
        latents = self.decoder.to_latents(z)
        latents = latents if restyle is None else restyle(latents)
        rgbs = [
            layers.from_signed_range(rgb, self.value_range)
            for rgb in self.decoder.synthesize(latents, self._as_noise(features))
        ]
        if not (return_latents or return_rgbs):
            return rgbs[-1]
        return Restoration(rgbs[-1], latents if return_latents else None, rgbs if return_rgbs else None)

    def _as_noise(self, features):
        if self.decoder.noise_mode == "none":
            features = []
        return features + [None] * (len(self.decoder.blocks) - len(features))
