"""StyleGAN2's residual discriminator, with the features that the feature matching loss reads (Eq. 2)."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from gpen_plugin.archs.key_maps import accept_authors_layout
from gpen_plugin.archs.layers import (
    DownConv2d,
    EqualConv2d,
    EqualLinear,
    channels_of,
    check_size,
    check_taps,
    resolutions,
    run_layer,
)
from gpen_plugin.archs.pretrained import Pretrained
from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.ops.dispatch import check_shape


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip path: (N, I, H, W) -> (N, O, H / 2, W / 2)."""

    def __init__(
        self,
        in_channels: int,  # I
        out_channels: int,  # O
        resample_kernel: Sequence[float],  # taps of the blur before halving
    ):
        super().__init__()
        self.conv1 = EqualConv2d(in_channels, in_channels, 3)
        self.conv2 = DownConv2d(in_channels, out_channels, 3, resample_kernel)
        self.skip = DownConv2d(in_channels, out_channels, 1, resample_kernel, activate=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)


@register("arch")
class GPENDiscriminator(Pretrained, nn.Module):
    """Distinguishes real images from restored ones; also loads the authors' files. Raises OptionError."""

    checkpointing = False  # see `GANPrior`

    def __init__(
        self,
        out_size: int,  # height and width of the images, a power of two from 16 to 2048
        channel_multiplier: float = 2,  # factor of the channels above 32 px
        # factor of all channels; the released 256 discriminator has 1 although its generator has 0.5
        narrow: float = 1,
        resample_kernel: Sequence[float] = (1, 3, 3, 1),  # taps of the blur before each halving
        # the largest number of images over which the minibatch standard deviation is taken; of a batch that it does not
        # divide, the largest divisor below it is taken
        stddev_group: int = 4,
    ):
        super().__init__()
        check_size("out_size", out_size)
        check_taps(resample_kernel)
        if stddev_group < 1:
            raise OptionError("stddev_group", f"got {stddev_group}", "a whole number from 1", "Use 4.")
        self.out_size, self.stddev_group = out_size, stddev_group
        width = channels_of(out_size, channel_multiplier, narrow)
        self.stem = EqualConv2d(3, width, 1)
        self.blocks = nn.ModuleDict()  # by the resolution that a block takes
        for resolution in reversed(resolutions(out_size)[1:]):
            channels = channels_of(resolution // 2, channel_multiplier, narrow)
            self.blocks[str(resolution)], width = ResidualBlock(width, channels, resample_kernel), channels
        self.final_conv = EqualConv2d(width + 1, width, 3)
        self.hidden = EqualLinear(width * 4 * 4, width, activate=True)
        self.logit = EqualLinear(width, 1)
        self.register_load_state_dict_pre_hook(accept_authors_layout)

    def forward(
        self,
        x: torch.Tensor,  # RGB images, (N, 3, out_size, out_size), float, in [-1, 1]
        return_features: bool = False,  # return the intermediate features, too
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits (N, 1), high for real images; with `return_features` a pair of them and a list of features.

        Index 0 is the stem's output, (N, C, out_size, out_size), index i that of the i-th residual block, (N, C, r, r)
        with r = out_size / 2 ** i, down to 4 px: log2(out_size) - 1 entries. Raises ShapeError.
        """
        check_shape("x", x, {"N": None, "C": 3, "H": self.out_size, "W": self.out_size})
        features = [self.stem(x)]
        for block in self.blocks.values():
            features.append(run_layer(block, features[-1], checkpointing=self.checkpointing))
        deepest = self.final_conv(_with_deviation(features[-1], self.stddev_group))
        logits = self.logit(self.hidden(deepest.flatten(1)))  # (N, C * 4 * 4) -> (N, 1)
        return (logits, features) if return_features else logits


def _with_deviation(x, largest_group):
    """Append one channel: the mean deviation of the features within a group of the batch (StyleGAN2)."""
    batch, channels, height, width = x.shape
    group = max(size for size in range(1, min(batch, largest_group) + 1) if batch % size == 0)
    grouped = x.reshape(group, batch // group, channels, height, width)
    grouped = grouped.to(torch.promote_types(x.dtype, torch.float32))
    deviation = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # (N / group,)
    plane = deviation.to(x.dtype).repeat(group)[:, None, None, None].expand(-1, 1, height, width)  # (N, 1, H, W)
    return torch.cat([x, plane], dim=1)  # (N, C + 1, H, W)
