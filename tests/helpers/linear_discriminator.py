"""A discriminator small enough to differentiate on paper."""

import torch
from torch import nn


class LinearDiscriminator(nn.Module):
    """D(x) = w * sum(x) + b, with x itself as its one feature."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.3))
        self.b = nn.Parameter(torch.tensor(0.1))

    def forward(self, x, return_features=False):
        logits = self.w * x.sum(dim=(1, 2, 3)).unsqueeze(1) + self.b  # (N, 1)
        return (logits, [x]) if return_features else logits
