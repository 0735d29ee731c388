"""FAN: heat maps of 68 landmarks (Bulat and Tzimiropoulos, ICCV 2017), as in the package face-alignment."""

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from gpen_plugin.checkpoints.download import WeightFile, find_weights
from gpen_plugin.errors import CheckpointError
from gpen_plugin.nets.loading import load_frozen, load_tensors

PUBLISHED = WeightFile(
    "2DFAN4-11f355bf06.pth.tar",
    "FAN, heat maps of 68 landmarks",
    "https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",
    "11f355bf06",
)
SIDE = 256  # pixels of the input
LANDMARKS = 68
DEPTH = 4  # halvings of an hourglass
WIDTH = 256  # channels of an hourglass


class FANBlock(nn.Module):
    """Three convolutions, each on the last one's output, side by side, and a shortcut: (N, I, H, W) -> (N, O, H, W)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        widths = [in_channels, out_channels // 2, out_channels // 4, out_channels // 4]
        for number in (1, 2, 3):
            self.add_module(f"bn{number}", nn.BatchNorm2d(widths[number - 1]))
            convolution = nn.Conv2d(widths[number - 1], widths[number], 3, padding=1, bias=False)
            self.add_module(f"conv{number}", convolution)
        self.downsample = None
        if in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.downsample = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(), shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.conv1(self.bn1(x).relu())
        two = self.conv2(self.bn2(one).relu())
        three = self.conv3(self.bn3(two).relu())
        return torch.cat([one, two, three], dim=1) + (x if self.downsample is None else self.downsample(x))


class Hourglass(nn.Module):
    """Features of a size from those of it, its half, ..., its 16th: (N, C, H, W) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        for level in range(DEPTH, 0, -1):
            for part in ("b1", "b2", "b3"):
                self.add_module(f"{part}_{level}", FANBlock(channels, channels))
        self.b2_plus_1 = FANBlock(channels, channels)

    def forward(self, x: torch.Tensor, level: int = DEPTH) -> torch.Tensor:
        low = getattr(self, f"b2_{level}")(F.avg_pool2d(x, 2))
        low = self.b2_plus_1(low) if level == 1 else self(low, level - 1)
        low = getattr(self, f"b3_{level}")(low)
        return getattr(self, f"b1_{level}")(x) + F.interpolate(low, scale_factor=2, mode="nearest")


class FAN(nn.Module):
    """Stacked hourglasses; each gives heat maps and refines the features of the next one."""

    def __init__(self, stacks: int = 4, width: int = WIDTH):
        super().__init__()
        self.stacks = stacks
        self.conv1, self.bn1 = nn.Conv2d(3, width // 4, 7, stride=2, padding=3), nn.BatchNorm2d(width // 4)
        self.conv2, self.conv3 = FANBlock(width // 4, width // 2), FANBlock(width // 2, width // 2)
        self.conv4 = FANBlock(width // 2, width)
        for i in range(stacks):
            self.add_module(f"m{i}", Hourglass(width))
            self.add_module(f"top_m_{i}", FANBlock(width, width))
            self.add_module(f"conv_last{i}", nn.Conv2d(width, width, 1))
            self.add_module(f"bn_end{i}", nn.BatchNorm2d(width))
            self.add_module(f"l{i}", nn.Conv2d(width, LANDMARKS, 1))
            if i < stacks - 1:
                self.add_module(f"bl{i}", nn.Conv2d(width, width, 1))
                self.add_module(f"al{i}", nn.Conv2d(LANDMARKS, width, 1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """RGB (N, 3, 256, 256) in [0, 1] -> heat maps of each stack, (N, 68, 64, 64)."""
        x = F.avg_pool2d(self.conv2(self.bn1(self.conv1(x)).relu()), 2)
        x, heatmaps = self.conv4(self.conv3(x)), []
        for i in range(self.stacks):
            own = {name: getattr(self, f"{name}{i}", None) for name in ("m", "top_m_", "conv_last", "bn_end", "l")}
            y = own["bn_end"](own["conv_last"](own["top_m_"](own["m"](x)))).relu()
            heatmaps.append(own["l"](y))
            if i < self.stacks - 1:
                x = x + getattr(self, f"bl{i}")(y) + getattr(self, f"al{i}")(heatmaps[-1])
        return heatmaps


def load_fan(path: str | None = None, where: str = "weights") -> FAN:
    """FAN with published weights, frozen, on the CPU. MissingFileError without the file; CheckpointError for others."""
    file = str(find_weights(PUBLISHED, path, where))
    tensors = load_tensors(file)
    with torch.device("meta"):
        network = FAN(**_sizes(tensors, file))
    return load_frozen(network, tensors, file, torch.device("cpu"))


def _sizes(tensors: Mapping[str, torch.Tensor], file: str) -> dict[str, int]:
    stacks = sum(re.fullmatch(r"l\d+\.weight", name) is not None for name in tensors)
    if not stacks or "conv_last0.weight" not in tensors:
        names = ", ".join([*tensors][:4])
        raise CheckpointError(file, f"holds {names}, ...", "the weights of FAN", f"Name {PUBLISHED.name}.")
    return {"stacks": stacks, "width": len(tensors["conv_last0.weight"])}
