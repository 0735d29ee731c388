"""GPEN, blind face restoration with an embedded GAN prior (CVPR 2021), as a guest in BasicSR.

Importing this package imports nothing else: each name, PyTorch with it, comes when it is first asked for. Its classes
enter BasicSR's registries when BasicSR is imported, before or after (see `gpen_plugin_hook`), so that
``python basicsr/train.py -opt ...`` finds them without a change.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from gpen_plugin.late_names import late_names
from gpen_plugin.version import __version__
from gpen_plugin_hook import install

if TYPE_CHECKING:  # what a type checker and an editor see
    from gpen_plugin.archs import GPEN, PSP, GPENDiscriminator, GPENPrior, fold
    from gpen_plugin.data import (
        GPENColorizationDataset,
        GPENDegradationDataset,
        GPENFaceDataset,
        GPENInpaintingDataset,
        GPENSegmentationDataset,
    )
    from gpen_plugin.losses import DiscriminatorFeatureMatchingLoss
    from gpen_plugin.metrics import (
        calculate_fid,
        calculate_identity,
        calculate_kid,
        calculate_lmd,
        calculate_lpips,
        calculate_swd,
    )
    from gpen_plugin.models import GPENModel, GPENPriorModel
    from gpen_plugin.restore import Restorer

__all__ = [
    "GPEN",
    "PSP",
    "DiscriminatorFeatureMatchingLoss",
    "GPENColorizationDataset",
    "GPENDegradationDataset",
    "GPENDiscriminator",
    "GPENFaceDataset",
    "GPENInpaintingDataset",
    "GPENModel",
    "GPENPrior",
    "GPENPriorModel",
    "GPENSegmentationDataset",
    "Restorer",
    "__version__",
    "calculate_fid",
    "calculate_identity",
    "calculate_kid",
    "calculate_lmd",
    "calculate_lpips",
    "calculate_swd",
    "fold",
]

__getattr__, __dir__ = late_names(
    __name__,
    {
        "archs": (
            "GPEN",
            "PSP",
            "GPENDiscriminator",
            "GPENPrior",
            "fold",
        ),
        "checkpoints": (),
        "data": (
            "GPENColorizationDataset",
            "GPENDegradationDataset",
            "GPENFaceDataset",
            "GPENInpaintingDataset",
            "GPENSegmentationDataset",
        ),
        "errors": (),
        "losses": ("DiscriminatorFeatureMatchingLoss",),
        "metrics": (
            "calculate_fid",
            "calculate_identity",
            "calculate_kid",
            "calculate_lmd",
            "calculate_lpips",
            "calculate_swd",
        ),
        "models": (
            "GPENModel",
            "GPENPriorModel",
        ),
        "ops": (),
        "restore": ("Restorer",),
    },
)

# `python -m gpen_plugin.train` and the like run the commands in cli/.
__path__.append(str(Path(__file__).parent / "cli"))

install()  # for a Python that did not do it at its start; at the end, for it may bring in the rooms at once
