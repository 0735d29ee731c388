"""Everything that this package knows about BasicSR's habits and faults (1.4.2 and git master).

Nothing else in the package knows that the host has quirks. `register` is the door into the host's registries,
`MENDS` the table of the faults that a run of GPEN would meet, and `before_run` the place for checks between the
host's reading of an option file and its first write. Mends replace attributes in memory; no file is touched.
"""

from gpen_plugin.host.cuda_ops import cuda_ops_built, offer_cuda_ops
from gpen_plugin.host.data import DATA_MENDS, before_first_batch, place_in_epoch, seconds_waited
from gpen_plugin.host.mend import Mend
from gpen_plugin.host.named_classes import names_ours, trains_ours
from gpen_plugin.host.registration import (
    REGISTRY_MENDS,
    host_is_installed,
    host_module,
    is_our_own,
    is_ours,
    open_registries,
    register,
    registered,
    resolve,
)
from gpen_plugin.host.resumption import RESUME_MENDS, state_to_resume
from gpen_plugin.host.run_lock import claim_run
from gpen_plugin.host.runs import RUN_MENDS, before_run

__all__ = [
    "MENDS",
    "Mend",
    "before_first_batch",
    "before_run",
    "claim_run",
    "cuda_ops_built",
    "host_is_installed",
    "host_module",
    "is_our_own",
    "is_ours",
    "mend_host",
    "names_ours",
    "open_registries",
    "place_in_epoch",
    "register",
    "registered",
    "resolve",
    "seconds_waited",
    "state_to_resume",
    "trains_ours",
]

MENDS: tuple[Mend, ...] = (*REGISTRY_MENDS, *RUN_MENDS, *RESUME_MENDS, *DATA_MENDS)


def mend_host() -> None:
    """Apply every mend whose fault is present, and lend the host's CUDA ops to ours. Repeating changes nothing."""
    for mend in MENDS:
        mend.apply()
    offer_cuda_ops()
