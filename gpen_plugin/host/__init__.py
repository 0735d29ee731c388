"""Everything that depends on BasicSR's habits and faults (1.4.2 and git master).

`register` adds a class to BasicSR's registries, `PATCHES` lists the faults that a run of GPEN would meet, and
`before_run` adds a check between BasicSR's reading of an option file and its first write.
"""

from gpen_plugin.host.data_cursor import (
    DATA_PATCHES,
    batch_index,
    before_each_batch,
    before_first_batch,
    data_wait_seconds,
)
from gpen_plugin.host.patches import REGISTRY_PATCHES, HostPatch, cuda_ops_built, use_host_cuda_ops
from gpen_plugin.host.registry import (
    flush_pending,
    host_is_installed,
    host_module,
    is_our_own,
    is_ours,
    names_ours,
    register,
    registered,
    resolve,
    trains_ours,
)
from gpen_plugin.host.resume import RESUME_PATCHES, state_to_resume
from gpen_plugin.host.run_hooks import RUN_PATCHES, before_run, claim_run
from gpen_plugin.host.stop_signals import EXIT_CODE, SIGNAL_PATCHES, stop_signal, unwatch_signals, watch_signals

__all__ = [
    "EXIT_CODE",
    "PATCHES",
    "HostPatch",
    "apply_patches",
    "batch_index",
    "before_each_batch",
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
    "stop_signal",
    "trains_ours",
    "unwatch_signals",
    "watch_signals",
]

PATCHES: tuple[HostPatch, ...] = (*REGISTRY_PATCHES, *RUN_PATCHES, *RESUME_PATCHES, *DATA_PATCHES, *SIGNAL_PATCHES)


def apply_patches() -> None:
    """Apply every patch whose fault is present, and use BasicSR's CUDA ops. Repeating changes nothing."""
    for patch in PATCHES:
        patch.apply()
    use_host_cuda_ops()
