"""Runners of jobs for the processes of `gpen_plugin.restore.workers`. They need no PyTorch, so processes start fast."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from gpen_plugin.errors import OptionError
from gpen_plugin.images.files import whole_file
from gpen_plugin.restore.report import JobReport
from gpen_plugin.restore.workers import Facts


class Runner:
    """Copies inputs in capitals. An input may be an order: ``die``, ``die once``, ``sleep`` or ``fail``."""

    facts = Facts("a rule", batch=2)

    def __call__(self, jobs):
        for job in jobs:
            order = job.source.read_text()
            if order == "fail":
                yield job, JobReport(job.source, job.target, error=f"{job.source}: fails")
                continue
            with whole_file(job.target) as file:
                file.write(order.upper().encode())
                if order == "die" or (order == "die once" and not job.replaces):
                    os.kill(os.getpid(), signal.SIGKILL)
                if order == "sleep":
                    job.source.with_suffix(".pid").write_text(str(os.getpid()))
                    time.sleep(60)
            yield job, JobReport(job.source, job.target)


@dataclass
class Opener:
    """Opens a `Runner`, or fails."""

    at_start: str = ""  # ``die`` or ``fail``

    def __call__(self):
        if self.at_start == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.at_start == "fail":
            raise OptionError("model", "is missing")
        return Runner()


def open_runner(arguments, outputs, endings, index=None, threads=None) -> Runner:
    """Instead of that of `gpen_plugin.cli.restore`."""
    return Runner()


def write_orders(folder: Path, *orders: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(len(orders))]
    for path, order in zip(paths, orders, strict=True):
        path.write_text(order)
    return paths
