"""GWAInet (Dogan et al., CVPR Workshops 2019): 8 x super-resolution with a reference face, which the network warps."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.ops.dispatch import check_shape

SCALE = 8
# Channel means, RGB of 255, of the authors' small images and references; the output has none.
LQ_MEAN = (130.98089974, 106.99848177, 94.87540804)
REFERENCE_MEAN = (130.99337721, 107.01429743, 94.89514401)
STRIDES = (1, 2, 1, 2, 1, 2)  # of both encoders
FUSIONS = 3  # stages in which the features of the reference are added


class SameConv2d(nn.Conv2d):
    """A 3 x 3 convolution with TensorFlow's padding SAME: at stride 2, even sides are padded right and bottom only."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__(in_channels, out_channels, 3, stride, padding=1 if stride == 1 else 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, O, ceil(H / stride), ceil(W / stride))."""
        if self.stride == (1, 1):
            return super().forward(x)
        height, width = (max(0, (-(-side // 2) - 1) * 2 + 3 - side) for side in x.shape[2:])
        return super().forward(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


class ResBlock(nn.Module):
    """x + conv(ReLU(conv(x)))."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = SameConv2d(channels, channels)
        self.conv2 = SameConv2d(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class Encoder(nn.Module):
    """Six convolutions with ReLU that halve the image three times."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        for index, stride in enumerate(STRIDES):
            self.add_module(f"conv{index + 1}", SameConv2d(channels if index else in_channels, channels, stride))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, 8 S, 8 S) -> (N, channels, S, S)."""
        for index in range(len(STRIDES)):
            x = F.relu(self.get_submodule(f"conv{index + 1}")(x))
        return x

    forward = encode


class WarperEncoder(Encoder):
    """The encoder and eight residual blocks with a long skip."""

    def __init__(self, channels: int, blocks: int):
        super().__init__(6, channels)
        self.conv_input_res = SameConv2d(channels, channels)
        self.resblocks = _named("resblock", blocks, lambda: ResBlock(channels))
        self.conv_before_skip = SameConv2d(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = x = self.conv_input_res(self.encode(x))
        for block in self.resblocks.values():
            x = block(x)
        return self.conv_before_skip(x) + skip


class Upsampler(SameConv2d):
    """Convolution to four times the channels, then a pixel shuffle."""

    def __init__(self, channels: int):
        super().__init__(channels, 4 * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, S, S) -> (N, C, 2 S, 2 S)."""
        return F.pixel_shuffle(super().forward(x), 2)


class FlowDecoder(nn.Module):
    """Features of the warper -> offsets of the sampling grid, which has the image's corners at -1 and 1."""

    def __init__(self, channels: int):
        super().__init__()
        self.upsampler1, self.upsampler2, self.upsampler3 = (Upsampler(channels) for _ in range(3))
        self.conv1 = SameConv2d(channels, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, S, S) -> (N, 2, 8 S, 8 S): x and y."""
        return self.conv1(self.upsampler3(self.upsampler2(self.upsampler1(x))))


class Warper(nn.Module):
    """Enlarged input and reference -> the flow that aligns the reference."""

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        self.input_encoder = WarperEncoder(channels, blocks)
        self.flow_decoder = FlowDecoder(channels)

    def forward(self, enlarged: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
        """Twice (N, 3, S, S) -> (N, 2, S, S)."""
        return self.flow_decoder(self.input_encoder(torch.cat((enlarged, ref), dim=1)))


class Fusion(SameConv2d):
    """Residual blocks on the input's and on the reference's features, then a convolution of both."""

    def __init__(self, channels: int, blocks: int):
        super().__init__(2 * channels, channels)
        self.blocks = blocks
        for name in ("resblock", "resblock_g"):
            for index in range(blocks):
                self.add_module(f"{name}{index + 1}", ResBlock(channels))

    def forward(self, x: torch.Tensor, ref: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Twice (N, C, S, S) -> the fused features, and those of the reference, of the same shape."""
        for index in range(self.blocks):
            x = self.get_submodule(f"resblock{index + 1}")(x)
            ref = self.get_submodule(f"resblock_g{index + 1}")(ref)
        return super().forward(torch.cat((x, ref), dim=1)), ref


class Generator(nn.Module):
    """The small image and the warped reference -> the image, eight times as large."""

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        self.input_g_preprocessing = Encoder(3, channels)
        self.conv1, self.conv1_g = SameConv2d(3, channels), SameConv2d(channels, channels)
        stages = {f"resblocks_{stage + 1}": Fusion(channels, blocks) for stage in range(FUSIONS)}
        last = _named("resblock", blocks, lambda: ResBlock(channels))
        self.resblocks = nn.ModuleDict({**stages, f"resblocks_{FUSIONS + 1}": last})
        self.conv_before_skip = SameConv2d(channels, channels)
        self.upsamplers = _named("upsampler", 3, lambda: Upsampler(channels))
        self.conv_final = SameConv2d(channels, 3)

    def forward(self, lq: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) and (N, 3, 8 S, 8 S) -> (N, 3, 8 S, 8 S)."""
        skip = x = self.conv1(lq)
        ref = self.conv1_g(self.input_g_preprocessing(warped))
        *fusions, last = self.resblocks.values()
        for fusion in fusions:
            x, ref = fusion(x, ref)
        for block in last.values():
            x = block(x)
        x = self.conv_before_skip(x) + skip
        for upsampler in self.upsamplers.values():
            x = upsampler(x)
        return self.conv_final(x)


@register("arch")
class GWAInet(nn.Module):
    """A face of `out_size` / 8 pixels and a reference of the same person -> the face at `out_size`.

    Its modules are named as the scopes of the authors' TensorFlow variables.
    """

    value_range = (-1.0, 1.0)

    def __init__(
        self,
        out_size: int = 256,  # height and width of output and reference, a multiple of 8; the authors' weights: 256
        num_feat: int = 64,  # channels
        warper_blocks: int = 8,  # residual blocks of the warper
        blocks: int = 4,  # residual blocks of each of the generator's four stages
    ):
        super().__init__()
        if out_size < SCALE or out_size % SCALE:
            raise OptionError("out_size", f"got {out_size}", f"a multiple of {SCALE}")
        self.in_size, self.out_size = out_size // SCALE, out_size
        self.warper = Warper(num_feat, warper_blocks)
        self.generator = Generator(num_feat, blocks)
        self.register_buffer("lq_mean", _mean(LQ_MEAN), persistent=False)
        self.register_buffer("ref_mean", _mean(REFERENCE_MEAN), persistent=False)

    def forward(self, lq: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) and the reference, (N, 3, R, R), RGB in [-1, 1] -> (N, 3, out_size, out_size), not clipped.

        Other sizes than those of the network are resized, bicubically and with antialiasing.
        """
        for name, image in (("lq", lq), ("ref", ref)):
            check_shape(f"GWAInet({name})", image, {"N": len(lq), "C": 3, "H": None, "W": None})
        small = resize_to((lq + 1) / 2, self.in_size)
        enlarged = resize_to(small, self.out_size)
        guide = resize_to((ref + 1) / 2, self.out_size) - self.ref_mean
        flow = self.warper(enlarged - self.lq_mean, guide)
        return self.generator(small - self.lq_mean, warp(guide, flow))

    @staticmethod
    def from_published(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rename the authors' variables: scopes become modules, kernels (h, w, in, out) become (out, in, h, w).

        Variables that are no weights of the network, such as the optimizer's, are left out. A state dict in our names
        stays as it is.
        """
        if not any("/" in name for name in tensors):
            return dict(tensors)
        found = {}
        for name, tensor in tensors.items():
            scopes = name.removesuffix(":0").split("/")
            if scopes[0] in ("warper", "generator") and scopes[-1] in ("weight", "bias"):
                found[".".join(scopes)] = tensor.permute(3, 2, 0, 1).contiguous() if tensor.ndim == 4 else tensor
        return found


def warp(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Sample an image bilinearly at the identity grid plus a flow; 0 outside and, as the authors' code, on the border.

    Args:
        image: (N, C, H, W).
        flow: (N, 2, H, W), x and y, where -1 and 1 are the centers of the first and the last pixel.
    Returns:
        (N, C, H, W). Its last row and column are 0 where the flow is.
    """
    height, width = image.shape[2:]
    flow = flow.to(image.dtype)  # half precision cannot count the pixels
    y = torch.linspace(-1, 1, height, dtype=flow.dtype, device=flow.device)
    x = torch.linspace(-1, 1, width, dtype=flow.dtype, device=flow.device)
    grid = flow.permute(0, 2, 3, 1) + torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (N, H, W, 2)
    last = torch.tensor([width - 1, height - 1], dtype=flow.dtype, device=flow.device)
    position = (grid + 1) / 2 * last
    inside = ((position >= 0) & (position < last)).all(dim=-1)  # (N, H, W)
    sampled = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return sampled * inside[:, None]


def resize_to(image: torch.Tensor, size: int) -> torch.Tensor:
    """Resize (N, C, H, W) to (N, C, size, size) bicubically, with antialiasing, as Pillow does."""
    if image.shape[2:] == (size, size):
        return image
    return F.interpolate(image, (size, size), mode="bicubic", align_corners=False, antialias=True)


def _named(name: str, count: int, build) -> nn.ModuleDict:
    return nn.ModuleDict({f"{name}{index + 1}": build() for index in range(count)})


def _mean(rgb: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(rgb).view(1, 3, 1, 1) / 255
