"""GPEN, blind face restoration with an embedded GAN prior (CVPR 2021), as a guest in BasicSR.

Importing this package enters its classes into BasicSR's registries. After an installation BasicSR's own import does
that (see `gpen_plugin_hook`), so that ``python basicsr/train.py -opt ...`` finds them without a change.
"""

from gpen_plugin_hook import install

install()  # before anything else, because `python -m gpen_plugin.train` begins here: BasicSR 1.4.2 needs it to import

from gpen_plugin.version import __version__  # noqa: E402

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
]

host_failure: Exception | None = None

try:
    from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY  # noqa: F401
except Exception as error:  # of any kind: a torchvision for another torch ends in a RuntimeError
    # `gpen_plugin.doctor` must be able to run and say what is wrong; everybody else hears it at the first name.
    host_failure = error

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'gpen_plugin' has no attribute '{name}'")
        raise ImportError(
            f"gpen_plugin.{name} needs BasicSR, which cannot be imported "
            f"({type(host_failure).__name__}: {host_failure}). Run `python -m gpen_plugin.doctor` for the way out."
        ) from host_failure
else:
    from gpen_plugin import host, preflight
    from gpen_plugin.archs import GPEN, PSP, GPENDiscriminator, GPENPrior
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

    host.mend_host()
    host.before_run(preflight.check_run)

    def __getattr__(name: str) -> object:
        if name != "Restorer":
            raise AttributeError(f"module 'gpen_plugin' has no attribute '{name}'")
        from gpen_plugin.restore import Restorer  # not before it is asked for: a training has no use for it

        return Restorer
