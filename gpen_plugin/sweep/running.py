"""Trainings side by side, each a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from gpen_plugin.host.training_log import last_iteration
from gpen_plugin.sweep.plan import Training

PROGRAM = (sys.executable, "-m", "gpen_plugin.train")
BETWEEN_LOOKS = 0.5  # seconds
TO_END = 10  # seconds, after which a training that was asked to end is killed
LAST_LINES = 15
LAST_BYTES = 8192


@dataclass(frozen=True)
class Place:
    """What each of the trainings that run at a time gets of the machine.

    Attributes:
        processes: how many run.
        devices: numbers of GPUs to share out; empty to leave all to each.
    """

    processes: int
    devices: Sequence[int] = ()

    def environment(self, device: int | None = None) -> dict[str, str]:
        """Variables of a training: its share of the cores, unless the user has set one, and its GPU."""
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        share = {"OMP_NUM_THREADS": str(max(1, cores // self.processes))}
        gpu = {} if device is None else {"CUDA_VISIBLE_DEVICES": str(device)}
        return {**share, **os.environ, **gpu}

    def least_busy(self, busy: Sequence[int | None]) -> int | None:
        """The GPU with the fewest of the trainings whose GPUs are `busy`; None if none is shared out."""
        return min(self.devices, key=busy.count, default=None)


@dataclass
class Run:
    """A training that runs.

    Attributes:
        training: which.
        process: its process.
        output: file with all that it prints.
        device: its GPU.
        began: when.
        start: iteration that it goes on from.
        made: iterations since then, as far as was seen.
    """

    training: Training
    process: subprocess.Popen
    output: Path
    device: int | None
    start: int
    began: float = field(default_factory=time.monotonic)
    made: int = 0

    @classmethod
    def started(
        cls, training: Training, place: Place, device: int | None, folder: Path, program: Sequence[str]
    ) -> "Run":
        """Start a training whose output goes to ``<folder>/<name>.txt``."""
        folder.mkdir(parents=True, exist_ok=True)
        output, start = folder / f"{training.name}.txt", training.resumes_at
        with output.open("w") as stream:
            process = subprocess.Popen(
                [*program, *training.words],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=place.environment(device),
                start_new_session=True,  # Ctrl-C comes to the sweep alone, which ends its trainings in order
            )
        return cls(training, process, output, device, start)

    @property
    def wanted(self) -> int:
        """Iterations that it is to make."""
        return max(0, self.training.total_iter - self.start)

    def look(self) -> int:
        """See in its log how many iterations it has made."""
        self.made = max(self.made, (last_iteration(self.tail()) or 0) - self.start)
        return self.made

    def tail(self) -> str:
        """The last of what it has printed."""
        with self.output.open("rb") as stream:
            stream.seek(max(0, self.output.stat().st_size - LAST_BYTES))
            return stream.read().decode(errors="replace")

    def told(self) -> str:
        """How it ended, in a line; with the last lines of its output if it failed."""
        name, status = self.training.name, self.process.returncode
        duration = tqdm.format_interval(time.monotonic() - self.began)
        if not status:
            return f"{name}: trained in {duration}"
        head = f"{name}: failed with status {status} after {duration}; {self.output} ends:"
        return "\n    ".join([head, *self.tail().splitlines()[-LAST_LINES:]])


def run_all(
    trainings: Sequence[Training], place: Place, folder: Path, program: Sequence[str] = PROGRAM
) -> list[Training]:
    """Run trainings, in order, a few at a time. One that fails does not stop the others.

    Args:
        trainings: which.
        place: how many at a time, and where.
        folder: for a file per training with all that it prints.
        program: what is started with the words of a training.
    Returns:
        Those that failed.
    """
    waiting, running, failed = deque(trainings), [], []
    total = sum(max(0, training.total_iter - training.resumes_at) for training in trainings)
    bar = tqdm(total=total, unit="it", smoothing=0, mininterval=1, desc=f"0 of {len(trainings)}")
    with _all_ended(running), bar as progress:
        over = 0  # iterations of trainings that have ended
        while waiting or running:
            while waiting and len(running) < place.processes:
                device = place.least_busy([run.device for run in running])
                running.append(Run.started(waiting.popleft(), place, device, folder, program))
            time.sleep(BETWEEN_LOOKS)
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                tqdm.write(run.told())
                sys.stdout.flush()  # it may be a file, and the next end hours away
                made = run.look() if run.process.returncode else run.wanted
                over += made
                progress.total -= run.wanted - made
                failed += [run.training] * bool(run.process.returncode)
            ended = len(trainings) - len(waiting) - len(running)
            progress.set_description(f"{ended} of {len(trainings)}", refresh=False)
            progress.update(over + sum(run.look() for run in running) - progress.n)
    return failed


@contextmanager
def _all_ended(running: Sequence[Run]) -> Iterator[None]:
    """Leave no training behind, whatever ends the sweep; a closed terminal and ``kill`` end it as Ctrl-C does."""
    kinds = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    taken = [kind for kind in kinds if signal.getsignal(kind) is signal.SIG_DFL]  # nohup has one ignored
    for kind in taken:
        signal.signal(kind, signal.default_int_handler)
    try:
        yield
    finally:
        for run in running:
            run.process.terminate()
        for run in running:
            try:
                run.process.wait(TO_END)
            except subprocess.TimeoutExpired:
                run.process.kill()
                run.process.wait()
        for kind in taken:
            signal.signal(kind, signal.SIG_DFL)
