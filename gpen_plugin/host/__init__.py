"""Everything that this package knows about BasicSR's habits and faults (1.4.2 and git master).

Nothing else in the package knows that the host has quirks. `register` is the door into the host's registries,
`PATCHES` the table of the faults that a run of GPEN would meet, and `before_run` the place for checks between the
host's reading of an option file and its first write. Mends replace attributes in memory; no file is touched.
"""

from gpen_plugin.host.cuda_ops import cuda_ops_built, use_host_cuda_ops
from gpen_plugin.host.data_cursor import DATA_PATCHES, batch_index, before_first_batch, data_wait_seconds
from gpen_plugin.host.named_classes import names_ours, trains_ours
from gpen_plugin.host.patch import HostPatch
from gpen_plugin.host.registry import (
    REGISTRY_MENDS,
    flush_pending,
    host_is_installed,
    host_module,
    is_our_own,
    is_ours,
    register,
    registered,
    resolve,
)
from gpen_plugin.host.resume import RESUME_PATCHES, state_to_resume
from gpen_plugin.host.run_hooks import RUN_PATCHES, before_run
from gpen_plugin.host.run_lock import claim_run

__all__ = [
    "PATCHES",
    "HostPatch",
    "apply_patches",
    "batch_index",
    "before_first_batch",
    "before_run",
    "claim_run",
    "cuda_ops_built",
    "data_wait_seconds",
    "flush_pending",
    "host_is_installed",
    "host_module",
    "is_our_own",
    "is_ours",
    "names_ours",
    "register",
    "registered",
    "resolve",
    "state_to_resume",
    "trains_ours",
]

PATCHES: tuple[HostPatch, ...] = (*REGISTRY_MENDS, *RUN_PATCHES, *RESUME_PATCHES, *DATA_PATCHES)


def apply_patches() -> None:
    """Apply every mend whose fault is present, and lend the host's CUDA ops to ours. Repeating changes nothing."""
    for mend in PATCHES:
        mend.apply()
    use_host_cuda_ops()
