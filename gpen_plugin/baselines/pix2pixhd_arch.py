"""Pix2PixHD (Wang et al., CVPR 2018) for photographs: generator and multi-scale discriminator."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm as with_spectral_norm

from gpen_plugin.archs import layers
from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.host import register
from gpen_plugin.ops.dispatch import check_shape

MAX_FEATURES = 512  # channels of the discriminator


def check_counts(**counts: int) -> None:
    """Raise an `OptionError` for a count below 1."""
    for name, count in counts.items():
        if count < 1:
            raise OptionError(name, f"got {count}", "a whole number from 1")


class ResidualBlock(nn.Module):
    """Two reflection-padded 3x3 convolutions with instance norm, added to the input: (N, C, H, W) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_block = nn.Sequential(
            *[nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels), nn.ReLU()],
            *[nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)],
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv_block(x)


@register("arch")
class Pix2PixHD(nn.Module):
    """Pix2PixHD's generator: the global one, or both with the local enhancer. Raises OptionError.

    It takes photographs in place of label maps, and its own checkpoints (``latest_net_G.pth``) as they are.
    """

    def __init__(
        self,
        num_feat: int = 64,  # channels of the global generator at its full size
        num_down: int = 4,  # halvings of the global generator; each doubles the channels
        num_block: int = 9,  # residual blocks at its smallest size
        # add the local enhancer: the global generator works at half size, and its features are enlarged. For 1024 px
        enhancer: bool = False,
        num_enhancer_block: int = 3,  # residual blocks of the enhancer
        value_range: tuple[float, float] = (-1, 1),  # lowest and highest value of input and output images
    ):
        super().__init__()
        check_counts(num_feat=num_feat, num_down=num_down, num_block=num_block, num_enhancer_block=num_enhancer_block)
        if enhancer and num_feat % 2:
            raise OptionError("num_feat", f"got {num_feat}", "an even number, half of which the enhancer has")
        self.value_range = layers.check_range(value_range)
        self.multiple = 2 ** (num_down + enhancer)  # sides of the images are multiples of it
        self.has_enhancer = enhancer
        widths = [num_feat * 2**octave for octave in range(num_down + 1)]
        body = [*_to_features(3, num_feat)]
        for wide, wider in pairwise(widths):
            body += _convolution(nn.Conv2d(wide, wider, 3, stride=2, padding=1))
        body += [ResidualBlock(widths[-1]) for _ in range(num_block)]
        for wider, wide in pairwise(widths[::-1]):
            body += _convolution(_doubling(wider, wide))
        if enhancer:
            half = num_feat // 2
            down = _convolution(nn.Conv2d(half, num_feat, 3, stride=2, padding=1))
            self.model1_1 = nn.Sequential(*_to_features(3, half), *down)
            blocks = [ResidualBlock(num_feat) for _ in range(num_enhancer_block)]
            self.model1_2 = nn.Sequential(*blocks, *_convolution(_doubling(num_feat, half)), *_to_image(half))
        else:
            body += _to_image(num_feat)
        self.model = nn.Sequential(*body)
        self.apply(initialize)

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        """Restore images (N, 3, H, W) in `value_range`: the same shape and range. Raises ShapeError.

        H and W are multiples of 2 ** `num_down`, with the enhancer of twice that.
        """
        check_shape("lq", lq, {"N": None, "C": 3, "H": None, "W": None})
        if any(side % self.multiple for side in lq.shape[2:]):
            got = f"{tuple(lq.shape[2:])} px"
            raise ShapeError("lq", got, f"sides that are multiples of {self.multiple}", "Resize the images.")
        x = layers.to_signed_range(lq, self.value_range)
        image = self.model1_2(self.model1_1(x) + self.model(halve(x))) if self.has_enhancer else self.model(x)
        return layers.from_signed_range(image, self.value_range)


@register("arch")
class Pix2PixHDDiscriminator(nn.Module):
    """Patch discriminators of the image at several scales. HiFaceGAN's is the same with spectral norm."""

    def __init__(
        self,
        num_in_ch: int = 6,  # channels: of the degraded image and the image (6), or of the image alone (3)
        num_d: int = 2,  # scales: the image, and copies of it that are halved again and again; 3 with the enhancer
        num_feat: int = 64,  # channels of the first layer; doubled by each layer up to 512
        num_layer: int = 3,  # layers after the first and before the last; all but one of them halve the image
        spectral_norm: bool = False,  # spectral normalization of all layers but the first and the last
    ):
        super().__init__()
        check_counts(num_in_ch=num_in_ch, num_d=num_d, num_feat=num_feat, num_layer=num_layer)
        self.num_in_ch, self.num_d, self.depth = num_in_ch, num_d, num_layer + 2
        widths = [min(num_feat * 2**octave, MAX_FEATURES) for octave in range(num_layer + 1)]
        for scale in range(num_d):
            parts = [[nn.Conv2d(num_in_ch, num_feat, 4, stride=2, padding=2), nn.LeakyReLU(0.2)]]
            for number, (wide, wider) in enumerate(pairwise(widths), 1):
                # as the authors have it, a bias that the spectral variant leaves out before its instance norm
                stride, bias = 1 if number == num_layer else 2, not spectral_norm
                convolution = nn.Conv2d(wide, wider, 4, stride=stride, padding=2, bias=bias)
                parts.append([convolution, nn.InstanceNorm2d(wider), nn.LeakyReLU(0.2)])
            parts.append([nn.Conv2d(widths[-1], 1, 4, padding=2)])
            for number, part in enumerate(parts):
                part[0].apply(initialize)
                if spectral_norm and 0 < number <= num_layer:
                    part[0] = with_spectral_norm(part[0])
                self.add_module(f"scale{scale}_layer{number}", nn.Sequential(*part))

    def forward(
        self,
        x: torch.Tensor,  # (N, num_in_ch, H, W): the degraded image and the image, or the image
        return_features: bool = False,  # return the features of all scales, too
    ) -> list[torch.Tensor] | tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Logits of each scale, (N, 1, h, w) for h x w patches, from the full size down; with `return_features` a pair.

        The features are those of all layers but the last, scale by scale. Raises ShapeError.
        """
        check_shape("x", x, {"N": None, "C": self.num_in_ch, "H": None, "W": None})
        logits, features = [], []
        for scale in reversed(range(self.num_d)):
            y = x
            for number in range(self.depth):
                y = getattr(self, f"scale{scale}_layer{number}")(y)
                (features if number < self.depth - 1 else logits).append(y)
            x = halve(x)
        return (logits, features) if return_features else logits


def halve(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) to (N, C, H / 2, W / 2), rounded up: means of 3x3 pixels, at the border of those that exist."""
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


def initialize(module: nn.Module) -> None:
    """The authors' initial weights: N(0, 0.02)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0, 0.02)


def _convolution(convolution: nn.Module) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(convolution.out_channels), nn.ReLU()]


def _doubling(in_channels: int, out_channels: int) -> nn.Module:
    return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)


def _to_features(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.ReflectionPad2d(3), *_convolution(nn.Conv2d(in_channels, out_channels, 7))]


def _to_image(channels: int) -> list[nn.Module]:
    return [nn.ReflectionPad2d(3), nn.Conv2d(channels, 3, 7), nn.Tanh()]
