"""HiFaceGAN as its paper describes it (Yang et al., ACM MM 2020): collaborative suppression and replenishment.

BasicSR's class of the name HiFaceGAN is another network, which the authors call lipspade: an ablation whose blocks are
conditioned on the image in place of the features. The published weights are of lipspade.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm

from gpen_plugin.archs import layers
from gpen_plugin.baselines.pix2pixhd_arch import check_counts
from gpen_plugin.errors import ShapeError
from gpen_plugin.host import register
from gpen_plugin.ops.dispatch import check_shape

LEVELS = (1, 2, 4, 8, 16, 16)  # factors of the channels, from the full size down, each at half the size
MULTIPLE = 32  # sides of the images are multiples of it
GATE = 12.0  # largest logit of the pooling weights
MAX_HIDDEN = 128  # channels between the condition and its scales and shifts
SLOPE = 0.2


class LocalImportancePool(nn.Module):
    """Halve by a mean of 3x3 pixels, weighted by what the features say (Gao et al. 2019): (N, C, H, W) -> half."""

    def __init__(self, channels: int):
        super().__init__()
        convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.logit = nn.Sequential(convolution, nn.InstanceNorm2d(channels, affine=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = (GATE * self.logit(x).sigmoid()).exp()
        return F.avg_pool2d(x * weight, 3, 2, 1) / F.avg_pool2d(weight, 3, 2, 1)


class Suppressor(nn.Module):
    """Image, (N, 3, H, W) -> features of six sizes, from (N, C, H, W) down to (N, 16 C, H / 32, W / 32)."""

    def __init__(self, num_feat: int):
        super().__init__()
        head = nn.Conv2d(3, num_feat, 3, padding=1, bias=False)
        self.head = nn.Sequential(head, nn.InstanceNorm2d(num_feat), nn.ReLU())
        for i, (wide, wider) in enumerate(pairwise(LEVELS)):
            convolution = nn.Conv2d(wide * num_feat, wider * num_feat, 3, padding=1)
            parts = [LocalImportancePool(wide * num_feat), convolution, nn.InstanceNorm2d(wider * num_feat)]
            last = i == len(LEVELS) - 2
            self.add_module(f"encoder_{i}", nn.Sequential(*parts, *([] if last else [nn.ReLU()])))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = [self.head(x)]
        for i in range(len(LEVELS) - 1):
            features.append(getattr(self, f"encoder_{i}")(features[-1]))
        return features


class SPADE(nn.Module):
    """Normalized features times a scale plus a shift, both computed from a condition of the same size."""

    def __init__(self, channels: int, condition: int):
        super().__init__()
        hidden = min(channels, MAX_HIDDEN)
        # with the statistics of the batch in evaluation, too, as the authors test their networks
        self.param_free_norm = nn.BatchNorm2d(channels, affine=False, track_running_stats=False)
        self.mlp_shared = nn.Sequential(nn.Conv2d(condition, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        hidden = self.mlp_shared(condition)
        return self.param_free_norm(x) * self.mlp_gamma(hidden) + self.mlp_beta(hidden)  # no 1 + gamma


class SPADEBlock(nn.Module):
    """Two spectrally normalized convolutions after SPADE, and a shortcut: (N, I, H, W) -> (N, O, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, condition: int):
        super().__init__()
        middle = min(in_channels, out_channels)
        self.conv_0 = spectral_norm(nn.Conv2d(in_channels, middle, 3, padding=1))
        self.conv_1 = spectral_norm(nn.Conv2d(middle, out_channels, 3, padding=1))
        self.norm_0, self.norm_1 = SPADE(in_channels, condition), SPADE(middle, condition)
        self.learned_shortcut = in_channels != out_channels
        if self.learned_shortcut:
            self.conv_s = spectral_norm(nn.Conv2d(in_channels, out_channels, 1, bias=False))
            self.norm_s = SPADE(in_channels, condition)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        shortcut = self.conv_s(self.norm_s(x, condition)) if self.learned_shortcut else x
        x = self.conv_0(F.leaky_relu(self.norm_0(x, condition), SLOPE))
        return shortcut + self.conv_1(F.leaky_relu(self.norm_1(x, condition), SLOPE))


@register("arch")
class HiFaceGANPaper(nn.Module):
    """HiFaceGAN's generator: a suppressor's features of six sizes guide SPADE blocks. Raises OptionError.

    Its authors published no weights of it. The network computes in [0, 1], and its image is the tanh of its last
    convolution, unshifted, as the authors write it. Its batch norm has no running statistics, so training and
    evaluation compute the same, and the images of a batch depend on each other.
    """

    def __init__(
        self,
        num_feat: int = 64,  # channels at the full size; 16 times as many at 1/16 and 1/32
        value_range: tuple[float, float] = (-1, 1),  # lowest and highest value of input and output images
    ):
        super().__init__()
        check_counts(num_feat=num_feat)
        self.value_range = layers.check_range(value_range)
        self.encoder = Suppressor(num_feat)
        top = LEVELS[-1] * num_feat
        self.fc = nn.Conv2d(3, top, 3, padding=1)
        self.head_0 = SPADEBlock(top, top, top)
        self.g_middle_0, self.g_middle_1 = SPADEBlock(top, top, top), SPADEBlock(top, top, top)
        widths = [level * num_feat for level in LEVELS[-2::-1]]  # from 1/16 up
        self.ups = nn.ModuleList(SPADEBlock(wider, wide, wide) for wider, wide in pairwise(widths))
        self.to_rgb = nn.Conv2d(num_feat, 3, 3, padding=1)
        self.apply(_initialize)

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        """Restore images (N, 3, H, W) in `value_range`: the same shape and range. H and W: 64, 96, 128, ...

        Raises ShapeError.
        """
        check_shape("lq", lq, {"N": None, "C": 3, "H": None, "W": None})
        if any(side % MULTIPLE or side == MULTIPLE for side in lq.shape[2:]):
            expected = f"sides that are multiples of {MULTIPLE}, from {2 * MULTIPLE}"  # the last norm needs 2 pixels
            raise ShapeError("lq", f"{tuple(lq.shape[2:])} px", expected, "Resize the images.")
        image = (layers.to_signed_range(lq, self.value_range) + 1) / 2
        *finer, middle, deepest = self.encoder(image)
        x = self.fc(F.interpolate(image, deepest.shape[2:], mode="nearest"))
        x = _double(self.head_0(x, deepest))
        x = self.g_middle_1(self.g_middle_0(x, middle), middle)
        for block, features in zip(self.ups, finer[::-1], strict=True):
            x = block(_double(x), features)
        image = self.to_rgb(F.leaky_relu(x, SLOPE)).tanh()
        return layers.from_signed_range(image * 2 - 1, self.value_range)


def _double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _initialize(module: nn.Module) -> None:
    """The authors' initial weights: Xavier's with a gain of 0.02; biases 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(getattr(module, "weight_orig", module.weight), gain=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
