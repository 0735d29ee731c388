"""AdaFace (Kim et al., CVPR 2022): the IR networks of its published files, for the identity of restored faces."""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from gpen_plugin.archs.psp_arch import IRUnit
from gpen_plugin.errors import OptionError
from gpen_plugin.host import register

# Units of the four levels. The authors call the deepest IR-101, and its files `adaface_ir101_*.ckpt`.
UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 101: (3, 13, 30, 3)}
HALVINGS = 4  # each level halves the image


@register("arch")
class AdaFace(nn.Module):
    """The recognition network of AdaFace's published files, which are the user's to get. Raises OptionError.

    ``network: {type: AdaFace, num_layers: 50}`` with ``weights: adaface_ir50_ms1mv2.ckpt``. Its input is BGR in
    [-1, 1].
    """

    image_channels = "bgr"  # of its input, see `gpen_plugin.nets.arcface`

    def __init__(
        self,
        num_layers: Literal[18, 34, 50, 101] = 50,  # as the authors name their files
        in_size: int = 112,  # side of the aligned faces, a multiple of 16
        num_feat: int = 64,  # channels of the first level; the others have 1, 2, 4 and 8 times as many
        num_embedding: int = 512,  # length of the embedding
    ):
        super().__init__()
        if num_layers not in UNITS:
            raise OptionError("num_layers", f"got {num_layers}", "one of " + ", ".join(map(str, UNITS)))
        if in_size < 1 or in_size % 2**HALVINGS:
            raise OptionError("in_size", f"got {in_size}", f"a multiple of {2**HALVINGS}")
        widths = [num_feat, *(num_feat * 2**level for level in range(HALVINGS))]
        stem = nn.Conv2d(3, num_feat, 3, padding=1, bias=False)
        self.input_layer = nn.Sequential(stem, nn.BatchNorm2d(num_feat), nn.PReLU(num_feat))
        units = []
        for (wide, wider), count in zip(pairwise(widths), UNITS[num_layers], strict=True):
            strides = [2, *[1] * (count - 1)]
            units += [
                IRUnit(wide if stride == 2 else wider, wider, stride, norm_between=True, squeeze=False)
                for stride in strides
            ]
        self.body = nn.Sequential(*units)
        side = in_size // 2**HALVINGS
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(widths[-1] * side * side, num_embedding),
            nn.BatchNorm1d(num_embedding, affine=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, in_size, in_size), BGR in [-1, 1] -> (N, num_embedding), each of length 1."""
        return F.normalize(self.output_layer(self.body(self.input_layer(x))))
