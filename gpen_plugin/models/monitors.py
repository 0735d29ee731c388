"""What a training measures of itself: the time it waits for data, a profile, the peak of GPU memory."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from basicsr.utils import get_root_logger
from torch.profiler import ProfilerActivity, profile

from gpen_plugin.config.train_options import ProfileOptions
from gpen_plugin.host import data_wait_seconds

WINDOW = 100  # iterations of one measurement
MAX_WAIT_FRACTION = 0.25  # of the time


class DataWaitMonitor:
    """Warns once if training waits too long for its data. `workers` is ``num_worker_per_gpu``, for the message."""

    def __init__(self, workers: int):
        self.workers = workers
        self._iterations = 0
        self._started = self._waited = 0.0
        self._warned = False

    def update(self) -> None:
        """Call at each iteration. The first is not measured, because it waits until the workers have started."""
        self._iterations += 1
        if self._warned or self._iterations % WINDOW != 1:
            return
        now, waited = time.perf_counter(), data_wait_seconds()
        passed, waiting = now - self._started, waited - self._waited
        self._started, self._waited = now, waited
        if self._iterations > 1 and waiting > MAX_WAIT_FRACTION * passed:
            self._warned = True
            get_root_logger().warning(
                f"Training waited for its data {waiting / passed:.0%} of the last {WINDOW} iterations' time. "
                f"Raise datasets:train:num_worker_per_gpu (now {self.workers}; this machine has {os.cpu_count()} "
                "cores), use an LMDB (datasets_prep/make_lmdb.py) or prefetch_mode: cuda."
            )


class IterationProfiler:
    """Writes a trace of some iterations, which Chrome, Perfetto and TensorBoard read, into a folder; on rank 0."""

    def __init__(self, options: Mapping | None, folder: str | os.PathLike, rank: int):
        self.options = ProfileOptions(**options) if options and rank == 0 else None
        self.folder = Path(folder)
        self._running: profile | None = None
        self._first = 0

    def update(self, iteration: int) -> None:
        """Call at the end of each iteration: the profile begins and ends there, so that it contains the data."""
        if self.options is None:
            return
        last = self.options.start + self.options.iterations - 1
        if self._running is None and self.options.start - 1 <= iteration < last:
            on_gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._running, self._first = profile(activities=[ProfilerActivity.CPU, *on_gpu]), iteration + 1
            self._running.start()
        elif self._running is not None and iteration >= last:
            self.finish(iteration)

    def finish(self, iteration: int) -> None:
        """Write the trace of a profile that is running."""
        if self._running is None:
            return
        self._running.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"iterations_{self._first}_to_{iteration}.pt.trace.json"  # TensorBoard wants this suffix
        self._running.export_chrome_trace(str(path))
        self._running = self.options = None
        get_root_logger().info(f"The profile is in {path}. Open it at ui.perfetto.dev or in TensorBoard.")


def peak_memory(device: torch.device) -> dict[str, float]:
    """The largest memory of tensors on a GPU since the start, by its name in the log; nothing elsewhere."""
    if device.type != "cuda":
        return {}
    return {"peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30}
