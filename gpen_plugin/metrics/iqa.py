"""Image quality by pyiqa (IQA-PyTorch): MUSIQ, MANIQA, CLIP-IQA, Q-Align, NIQE and some hundred others.

pyiqa is not part of this package: ``pip install "gpen_plugin[iqa]"``. Its license, PolyForm Noncommercial 1.0.0,
forbids commercial use. It downloads the weights of a metric at the first use. Option file: ``musiq: {type:
calculate_iqa, name: musiq}``, and ``better: lower`` for metrics such as niqe.
"""

import difflib
import json
from collections.abc import Mapping
from functools import lru_cache
from types import ModuleType
from typing import Literal

import numpy as np
import torch

from gpen_plugin.errors import MissingFileError, OptionError
from gpen_plugin.host import register
from gpen_plugin.metrics.base import check_better, check_image, check_pair, nan_if_weights_missing
from gpen_plugin.nets.loading import bgr_to_tensor, select_device


@register("metric")
@nan_if_weights_missing
def calculate_iqa(
    img: np.ndarray,  # restored, (H, W, 3) BGR uint8
    name: str,  # of the metric in pyiqa, such as musiq; `pyiqa.list_models()` lists them
    img2: np.ndarray | None = None,  # ground truth of the same size; metrics without reference ignore it
    arguments: Mapping | None = None,  # further arguments of `pyiqa.create_metric`
    device: str = "auto",  # `auto`, `cpu` or `cuda`
    better: Literal["higher", "lower"] = "higher",  # direction of better values: `lower` for metrics such as niqe
) -> float:
    """A metric of pyiqa; NaN if pyiqa or its weights are missing (see the log). OptionError: it has no such metric."""
    metric = _create(name, json.dumps(dict(arguments or {}), sort_keys=True), select_device(device))
    check_better(better, "lower" if metric.lower_better else "higher", f"pyiqa's {name} is defined so.")
    images = [img]
    if metric.metric_mode == "FR":
        if img2 is None:
            raise OptionError("name", f"got {name!r}, and there is no ground truth", "a metric without reference")
        check_pair(img, img2)
        images.append(img2)
    check_image("img", img)
    tensors = [(bgr_to_tensor(image) + 1) / 2 for image in images]  # (1, 3, H, W) RGB in [0, 1]
    with torch.inference_mode():
        return float(metric(*(tensor.clamp(0, 1).to(metric.device) for tensor in tensors)))


@lru_cache(maxsize=8)
def _create(name: str, arguments: str, device: torch.device):
    """pyiqa's metric. MissingFileError without pyiqa or a file, OptionError for an unknown name."""
    pyiqa = _import_pyiqa()
    known = pyiqa.list_models()
    if name not in known:
        nearest = difflib.get_close_matches(str(name), known, 3) or known[:3]
        raise OptionError("name", f"got {name!r}", "a metric of pyiqa", f"Perhaps {', '.join(nearest)}.")
    try:
        return pyiqa.create_metric(name, device=device, **json.loads(arguments)).eval()
    except TypeError as error:
        raise OptionError("arguments", f"pyiqa's {name} does not take them ({error})", "its own arguments") from error
    except Exception as error:  # of a download, or of a package that pyiqa needs
        got = f"pyiqa's {name} cannot be built ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]})"
        hint = (
            f"pyiqa downloads weights at the first use. Try: python -c \"import pyiqa; pyiqa.create_metric('{name}')\""
        )
        raise MissingFileError("calculate_iqa", got, hint=hint) from error


def _import_pyiqa() -> ModuleType:
    try:
        import pyiqa
    except ImportError as error:
        got = f"the package pyiqa is not installed ({error})"
        hint = 'Run: pip install "gpen_plugin[iqa]". Its license, PolyForm Noncommercial 1.0.0, forbids commercial use.'
        raise MissingFileError("calculate_iqa", got, hint=hint) from error
    return pyiqa
