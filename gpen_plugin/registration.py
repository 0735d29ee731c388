"""What happens when BasicSR has been imported: our classes enter its registries, and its faults are mended.

`gpen_plugin_hook` calls this. A room may be half imported then, for it may be the one that imports BasicSR
(`gpen_plugin.models` does): it enters the rest of its classes as it goes on.
"""

from collections.abc import Mapping
from importlib import import_module

from gpen_plugin import data, host, metrics

ROOMS = ("archs", "losses")


def register_all() -> None:
    """Mend the host, enter everything, and have option files checked. Repeating changes nothing.

    Raises:
        RegistryClashError: another module holds one of our names.
    """
    host.apply_patches()
    host.flush_pending()
    import_rooms()
    import_module("gpen_plugin.models")
    # at last: the host's own runs must not meet a package that cannot be imported
    host.before_run(_check_run)
    host.before_run(_claim_run)


def import_rooms() -> None:
    """Import everything of ours that is entered and needs no host: archs, data sets, losses, metrics."""
    for room in (data, metrics):
        for name in room.__all__:
            getattr(room, name)  # importing enters it
    import_module("gpen_plugin.metrics.psnr_ssim")
    for room in ROOMS:
        import_module(f"gpen_plugin.{room}")  # and not its names: a room that is on its way has none yet


def _check_run(opt: Mapping) -> None:
    from gpen_plugin.preflight import check_run

    check_run(opt)


def _claim_run(opt: Mapping) -> None:
    """Refuse a second run of one name, where the model is ours or derived from ours."""
    if host.trains_ours(opt):
        host.claim_run(opt)
