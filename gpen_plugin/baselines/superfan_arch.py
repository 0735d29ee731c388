"""Super-FAN (Bulat and Tzimiropoulos, CVPR 2018): its generator and its critic.

The authors published neither code nor weights of them. Layers and names are those of the re-implementation by jzijin,
whose files load with ``blocks: [12, 3, 0]``; the paper has two further blocks at the full size. `HeatmapLoss` is the
loss of the landmarks' heat maps.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from gpen_plugin.archs import layers
from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.ops.dispatch import check_shape

SCALE = 4  # of the network


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the input: (N, C, H, W) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))


@register("arch")
class SuperFAN(nn.Module):
    """Super-FAN's generator, which enlarges four times. Raises OptionError. It computes in [0, 1]."""

    def __init__(
        self,
        # height and width of the result, a multiple of 4; the input is resized to a quarter of it. `~`: the result is
        # four times as large as the input
        out_size: int | None = None,
        num_feat: int = 64,  # channels of all layers
        # residual blocks at the size of the input, at twice and at four times that size; [12, 3, 0] for jzijin's files
        blocks: Sequence[int] = (12, 3, 2),
        value_range: tuple[float, float] = (-1, 1),  # lowest and highest value of input and output images
    ):
        super().__init__()
        if out_size is not None and (out_size < SCALE or out_size % SCALE):
            raise OptionError("out_size", f"got {out_size}", "a multiple of 4, or ~")
        if len(blocks) != 3 or min(blocks) < 0:
            raise OptionError("blocks", f"got {list(blocks)}", "three numbers from 0", "The paper's are [12, 3, 2].")
        if num_feat < 1:
            raise OptionError("num_feat", f"got {num_feat}", "a whole number from 1")
        self.out_size, self.value_range = out_size, layers.check_range(value_range)
        self.block1 = nn.Sequential(nn.Conv2d(3, num_feat, 9, padding=4), nn.PReLU())
        self.res1 = nn.Sequential(*[ResidualBlock(num_feat) for _ in range(blocks[0])])
        self.up1 = _doubling(num_feat)
        self.res2 = nn.Sequential(*[ResidualBlock(num_feat) for _ in range(blocks[1])])
        self.up2 = _doubling(num_feat)
        self.res3 = nn.Sequential(*[ResidualBlock(num_feat) for _ in range(blocks[2])])
        last = nn.Conv2d(num_feat, 3, 3, padding=1)
        self.end = nn.Sequential(nn.Conv2d(num_feat, num_feat, 3, padding=1), nn.ReLU(), last)

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        """Enlarge (N, 3, H, W) in `value_range` to (N, 3, 4 H, 4 W) or `out_size`; not clipped. Raises ShapeError."""
        check_shape("lq", lq, {"N": None, "C": 3, "H": None, "W": None})
        x = (layers.to_signed_range(lq, self.value_range) + 1) / 2
        if self.out_size is not None:
            x = reduce(x, self.out_size // SCALE)
        x = self.up1(self.res1(self.block1(x)))
        image = self.end(self.res3(self.up2(self.res2(x))))
        return layers.from_signed_range(image * 2 - 1, self.value_range)


@register("arch")
class SuperFANDiscriminator(nn.Module):
    """The critic of 64 px, for WGAN-GP: five convolutions without norm. A larger image gives a value per patch."""

    def __init__(
        self,
        num_feat: int = 64,  # channels of the first layer, doubled by each of the next three
    ):
        super().__init__()
        if num_feat < 1:
            raise OptionError("num_feat", f"got {num_feat}", "a whole number from 1")
        widths = [3, *(num_feat * 2**octave for octave in range(4))]
        parts = []
        for wide, wider in pairwise(widths):
            parts += [nn.Conv2d(wide, wider, 4, stride=2, padding=1, bias=False), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*parts, nn.Conv2d(widths[-1], 1, 4, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, 1, H / 16 - 3, W / 16 - 3). Raises ShapeError."""
        check_shape("x", x, {"N": None, "C": 3, "H": None, "W": None})
        return self.body(x)


def reduce(image: torch.Tensor, size: int) -> torch.Tensor:
    """Resize (N, 3, H, W) to (N, 3, size, size): by area where it becomes smaller, else bilinearly."""
    if min(image.shape[2:]) > size:
        return F.adaptive_avg_pool2d(image, size)
    return layers.resize(image, size)


def _doubling(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.ConvTranspose2d(channels, channels, 4, 2, 1))
