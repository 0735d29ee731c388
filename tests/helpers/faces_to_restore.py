"""Cases for tests of methods."""

from pathlib import Path

import numpy as np
import torch

from gpen_plugin.baselines.method import Method, Sample
from gpen_plugin.evaluate.methods import build_method

CPU = torch.device("cpu")


def degraded(
    seed: int = 0, height: int = 12, width: int = 12, size: int = 64, condition: str = "", ref: np.ndarray | None = None
) -> Sample:
    """A case whose degraded image is noise."""
    lq = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample(f"folder/{seed}", condition, lq, None, size, ref)


def method(entry: dict, folder: Path = Path("unused")) -> Method:
    """Build an entry on the CPU."""
    return build_method(entry, "methods:M", CPU, folder)
