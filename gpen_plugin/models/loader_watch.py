"""Tells a user whose training waits for its data."""

import os
import time

from basicsr.utils import get_root_logger

from gpen_plugin.host import seconds_waited

WINDOW = 100  # iterations between two looks
TOLERATED = 0.25  # share of the time that may go into waiting


class LoaderWatch:
    """Compares the time that training waited for pictures with the time that went by.

    Args:
        workers: ``num_worker_per_gpu``.
    """

    def __init__(self, workers: int):
        self.workers = workers
        self._looks = 0
        self._began = self._waited = 0.0
        self._warned = False

    def look(self) -> None:
        """To be called at each iteration; warns after the first window in which the loader was too slow.

        Windows begin after the first iteration: that waits until the workers have started.
        """
        self._looks += 1
        if self._warned or self._looks % WINDOW != 1:
            return
        now, waited = time.perf_counter(), seconds_waited()
        passed, waiting = now - self._began, waited - self._waited
        self._began, self._waited = now, waited
        if self._looks > 1 and waiting > TOLERATED * passed:
            self._warned = True
            get_root_logger().warning(
                f"Training waited for its data {waiting / passed:.0%} of the last {WINDOW} iterations' time. "
                f"Raise datasets:train:num_worker_per_gpu (now {self.workers}; this machine has {os.cpu_count()} "
                "cores), use an LMDB (datasets_prep/make_lmdb.py) or prefetch_mode: cuda."
            )
