"""GFRNet (Li et al., ECCV 2018): a reference face is warped to the degraded one, and a U-net restores from both.

Its authors published a Torch7 file whose layers cannot be read. The layers here are those of the re-implementation that
is closest to the paper, without its landmarks: the warping is trained on the images alone.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from gpen_plugin.baselines.gwainet_arch import resize_to
from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.ops.dispatch import check_shape

DROPOUT = 0.5  # in the first layers of the U-net's decoder
NUM_DROPOUT = 3


class WarpNet(nn.Module):
    """Degraded face and reference -> the positions in the reference at which each pixel is sampled."""

    def __init__(self, num_feat: int, depth: int):
        super().__init__()
        widths = [num_feat * min(2**level, 16) for level in range(depth)]
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            plain = level in (0, depth - 1)
            self.encoder.append(_down(6 if level == 0 else widths[level - 1], width, first=level == 0, norm=not plain))
        for level in reversed(range(depth)):
            self.decoder.append(_up(widths[level], widths[level - 1] if level else 2, norm=level > 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 6, S, S) -> (N, S, S, 2), x and y; -1 and 1 are the centers of the first and the last pixel."""
        for layer in (*self.encoder, *self.decoder):
            x = layer(x)
        return torch.tanh(x).permute(0, 2, 3, 1)


class RecNet(nn.Module):
    """A U-net: degraded face and warped reference -> the face."""

    def __init__(self, num_feat: int, depth: int):
        super().__init__()
        widths = [num_feat * min(2**level, 8) for level in range(depth)]
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            plain = level in (0, depth - 1)
            self.encoder.append(_down(6 if level == 0 else widths[level - 1], width, first=level == 0, norm=not plain))
        for level in reversed(range(depth)):
            joined = widths[level] * (1 if level == depth - 1 else 2)
            dropout = level > 0 and depth - 1 - level < NUM_DROPOUT
            self.decoder.append(_up(joined, widths[level - 1] if level else 3, norm=level > 0, dropout=dropout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 6, S, S) -> (N, 3, S, S) in [0, 1]."""
        features = []
        for layer in self.encoder:
            x = layer(x)
            features.append(x)
        for layer, skip in zip(self.decoder, [None, *features[-2::-1]], strict=True):
            x = layer(x if skip is None else torch.cat((x, skip), dim=1))
        return torch.sigmoid(x)


@register("arch")
class GFRNet(nn.Module):
    """A degraded face and a reference of the same person -> the face. Other sizes than `out_size` are resized."""

    value_range = (-1.0, 1.0)

    def __init__(
        self,
        out_size: int = 256,  # height and width of all images, a power of two from 8
        num_feat: int = 64,  # channels of the first layers
        warp_weight: float = 1.0,  # of the loss of the warped reference, MSE to the ground truth; for training only
        tv_weight: float = 1.0,  # of the total variation of the flow; for training only
        end_to_end: bool = False,  # whether the losses of the restored face train the warping, too
    ):
        super().__init__()
        if out_size < 8 or out_size & (out_size - 1):
            raise OptionError("out_size", f"got {out_size}", "a power of two from 8")
        self.in_size = self.out_size = out_size
        self.warp_weight, self.tv_weight, self.end_to_end = warp_weight, tv_weight, end_to_end
        depth = int(math.log2(out_size))
        self.warp_net, self.rec_net = WarpNet(num_feat, depth), RecNet(num_feat, depth)

    def forward(
        self, lq: torch.Tensor, ref: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """(N, 3, H, W) and the reference, (N, 3, R, R), RGB in [-1, 1] -> (N, 3, out_size, out_size) in [-1, 1].

        In training also what `auxiliary_losses` takes: the warped reference and the grid, (N, out_size, out_size, 2).
        """
        for name, image in (("lq", lq), ("ref", ref)):
            check_shape(f"GFRNet({name})", image, {"N": len(lq), "C": 3, "H": None, "W": None})
        degraded, guide = (resize_to((image + 1) / 2, self.out_size) for image in (lq, ref))
        grid = self.warp_net(torch.cat((degraded, guide), dim=1)).to(guide.dtype)
        warped = sample(guide, grid)
        image = self.rec_net(torch.cat((degraded, warped if self.end_to_end else warped.detach()), dim=1)) * 2 - 1
        return (image, (warped, grid)) if self.training else image

    def auxiliary_losses(self, outputs: tuple[torch.Tensor, torch.Tensor], gt: torch.Tensor) -> dict[str, torch.Tensor]:
        """The weighted losses of the warping; the ground truth, (N, 3, out_size, out_size), is in [-1, 1]."""
        warped, grid = outputs
        flow = grid - identity_grid(grid)
        variation = flow.diff(dim=1).square().mean() + flow.diff(dim=2).square().mean()
        return {
            "l_g_warp": self.warp_weight * F.mse_loss(warped, (gt + 1) / 2),
            "l_g_tv": self.tv_weight * variation,
        }


def sample(image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample (N, C, H, W) bilinearly at a grid (N, H, W, 2) of x and y in [-1, 1], the centers of the corner pixels."""
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def identity_grid(grid: torch.Tensor) -> torch.Tensor:
    """The grid of the shape of another, (N, H, W, 2), at which sampling returns the image itself: (H, W, 2)."""
    _, height, width, _ = grid.shape
    x, y = (torch.linspace(-1, 1, side, dtype=grid.dtype, device=grid.device) for side in (width, height))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def _down(in_channels: int, out_channels: int, *, first: bool, norm: bool) -> nn.Sequential:
    activation = [] if first else [nn.LeakyReLU(0.2)]
    convolution = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)
    return nn.Sequential(*activation, convolution, *([nn.BatchNorm2d(out_channels)] if norm else []))


def _up(in_channels: int, out_channels: int, *, norm: bool, dropout: bool = False) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1)
    end = [*([nn.BatchNorm2d(out_channels)] if norm else []), *([nn.Dropout(DROPOUT)] if dropout else [])]
    return nn.Sequential(nn.ReLU(), convolution, *end)
