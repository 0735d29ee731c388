"""Run a schedule in this process or in several. A process that is killed costs at most the input that killed it."""

import _thread
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gpen_plugin.errors import DataError, GPENError, OptionError

if TYPE_CHECKING:
    from gpen_plugin.restore.inputs import Job
    from gpen_plugin.restore.report import JobReport
    from gpen_plugin.restore.schedule import Schedule

STOP_SECONDS = 30  # that a process has for ending its computation when the run is stopped
# On Linux the processes are forks of one that has only imported modules, which takes seconds each otherwise. A fork of
# this process would copy the threads of PyTorch, and CUDA's state.
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"


@dataclass(frozen=True)
class Facts:
    """What a run prints of its networks, and what decides its results besides the options."""

    network: str  # one line for the user
    network_file: Path | None = None
    batch: int = 1  # photographs that are best restored together
    detector: str = ""  # one line; empty for aligned faces
    mask: str = ""  # one line; empty for aligned faces
    max_processes: int | None = None  # that fit into the memory of the GPUs; None without a GPU


class JobRunner(Protocol):
    """Runs jobs: `gpen_plugin.restore.batch.Runner`."""

    facts: Facts

    def __call__(self, jobs: Sequence["Job"]) -> Iterator[tuple["Job", "JobReport"]]: ...


class Inline:
    """Runs jobs in this process."""

    def __init__(self, runner: JobRunner):
        self._runner, self.facts = runner, runner.facts

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *error: object) -> None: ...

    def run(self, schedule: "Schedule") -> None:
        """Run all jobs. Errors: those of the runner and the schedule."""
        try:
            while jobs := schedule.take():
                for job, report in self._runner(jobs):
                    schedule.finish(job, report)
        finally:
            schedule.stop()


class Workers:
    """Runs jobs in processes, which end with this context.

    Raises:
        GPENError: of the opener, e.g. missing weights.
        OptionError: the processes are killed at their start.
    """

    def __init__(
        self,
        # picklable, called in one process each. The others start when the first is ready: then downloads are done
        openers: Sequence[Callable[[], JobRunner]],
        *,
        fit_gpus: bool = False,  # whether there are fewer processes if not all fit into the memory of the GPUs
        imports: Sequence[str] = (),  # modules that the openers and the runners need
        threads: int = 1,  # of BLAS and OpenMP in each process
    ):
        self._openers, self._fit_gpus, self._threads = openers, fit_gpus, threads
        self._context = multiprocessing.get_context(START_METHOD)
        if START_METHOD == "forkserver":
            self._context.set_forkserver_preload(list(imports))
        self._workers: list[_Worker] = []
        self._killed: set[Path] = set()  # targets of jobs whose process was killed
        self._again: deque[Job] = deque()  # those that are still to be run again

    def __enter__(self) -> "Workers":
        try:
            self._workers = [self._start(self._openers[0])]
            while not self._workers[0].is_ready:
                self._receive(None)
            most = self.facts.max_processes if self._fit_gpus else None
            self._workers += [self._start(opener) for opener in self._openers[1:most]]
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def run(self, schedule: "Schedule") -> None:
        """Run all jobs. Errors: those of the runners and the schedule."""
        try:
            while self._hand_out(schedule):
                self._receive(schedule)
        except BaseException:
            self._end()
            self._drain(schedule)
            raise
        finally:
            schedule.stop()

    def _start(self, opener: Callable[[], JobRunner]) -> "_Worker":
        with _variable("OMP_NUM_THREADS", str(self._threads)):  # read when NumPy and PyTorch are imported
            return _Worker(self._context, opener)

    def _hand_out(self, schedule: "Schedule") -> bool:
        """Give jobs to the workers that have none, then the next ones to all. False if all jobs have ended."""
        ready = [worker for worker in self._workers if worker.is_ready]
        for worker in ready:
            if not worker.jobs and (jobs := schedule.take()):
                worker.give(jobs)
        for worker in ready:  # so that none waits for this process
            if 0 < len(worker.jobs) <= schedule.chunk and (jobs := schedule.take_ahead(len(self._workers))):
                worker.give(jobs)
        if ready and not any(worker.jobs for worker in self._workers):
            if not self._again:
                return False
            ready[0].give([self._again.popleft()])  # alone, with all memory for itself
        return True

    def _receive(self, schedule: "Schedule | None") -> None:
        """Wait for messages, and handle one of each worker that has sent some."""
        for worker in wait([worker.connection for worker in self._workers]):
            worker = next(each for each in self._workers if each.connection is worker)
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                self._replace(worker, schedule)
                continue
            if isinstance(message, BaseException):
                raise message
            if isinstance(message, Facts):
                worker.is_ready, self.facts = True, message
                continue
            job, report = message
            worker.jobs.remove(job)
            schedule.finish(job, report)

    def _replace(self, worker: "_Worker", schedule: "Schedule | None") -> None:
        """Start another process instead of one that was killed. Its jobs are run again one by one, once."""
        worker.process.join()
        code = worker.process.exitcode
        reason = f"signal {-code}" if code < 0 else f"exit status {code}"
        self._workers.remove(worker)
        if worker.is_ready:
            self._workers.append(self._start(worker.opener))
        elif not self._workers:
            got = f"the processes end at their start ({reason})"
            raise OptionError("--jobs", got, hint="Use fewer, or free some memory.")
        for job in worker.jobs:
            if job.target not in self._killed:
                self._killed.add(job.target)
                self._again.append(schedule.retry(job))
                continue
            got = f"ended the process that restored it, twice ({reason})"
            schedule.fail(job, DataError(str(job.source), got, hint="If memory is short, use fewer --jobs."))

    def _end(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self._workers:
            worker.process.join(max(0, deadline - time.monotonic()))
            worker.process.kill()
            worker.process.join()

    def _drain(self, schedule: "Schedule") -> None:
        """Record what workers have finished before they ended."""
        for worker in self._workers:
            with contextlib.suppress(EOFError, OSError, GPENError):
                while worker.connection.poll():
                    message = worker.connection.recv()
                    if isinstance(message, tuple):
                        schedule.finish(*message)


class _Worker:
    """A process, and the jobs that it has not reported yet."""

    def __init__(self, context: multiprocessing.context.BaseContext, opener: Callable[[], JobRunner]):
        self.opener, self.is_ready = opener, False
        self.jobs: list[Job] = []
        self.connection, remote = context.Pipe()
        self.process = context.Process(target=_work, args=(remote, opener), daemon=True)
        self.process.start()
        remote.close()  # so that reading fails when the process has ended

    def give(self, jobs: list["Job"]) -> None:
        self.jobs += jobs
        with contextlib.suppress(OSError):  # it was killed: then reading fails, too
            self.connection.send(jobs)


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for processes that start now, unless the user has set it."""
    is_free = name not in os.environ
    if is_free:
        os.environ[name] = value
    try:
        yield
    finally:
        if is_free:
            del os.environ[name]


def _work(connection: multiprocessing.connection.Connection, opener: Callable[[], JobRunner]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # removes temporary files
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        runner = opener()
        connection.send(runner.facts)
        while True:
            for result in runner(connection.recv()):
                connection.send(result)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the first process has ended
    except GPENError as error:
        connection.send(error)
    except Exception:
        connection.send(RuntimeError(f"in a process of --jobs:\n{traceback.format_exc()}"))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    if hasattr(signal, "pthread_kill"):  # which also wakes the main thread
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
    else:  # Windows
        _thread.interrupt_main(signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)
