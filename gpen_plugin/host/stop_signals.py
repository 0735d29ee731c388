"""SIGTERM and SIGUSR1 of a queue: a training saves its state and ends, so that it can be started again.

A signal only leaves a note. BasicSR's loop asks for it between two iterations, when log, checkpoint and validation of
the last one are done.
"""

import atexit
import mmap
import os
import signal
import threading
from collections.abc import Callable
from functools import wraps

from gpen_plugin.host.distributed import all_reduce_max
from gpen_plugin.host.patches import HostPatch

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]

_received = 0
_watched: list[int] = []
_ending: mmap.mmap | None = None  # shared with the loader's workers: its byte is 1 when this process ends them


def watch_signals() -> bool:
    """Note SIGTERM and SIGUSR1 instead of dying of them, until `unwatch_signals`. Handlers of others stay in place.

    Returns whether that is new.
    """
    global _received, _ending
    if _watched:
        return False
    _received = 0
    if threading.current_thread() is threading.main_thread():  # Python allows no other
        for number in SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _note)
                _watched.append(number)
    if _watched:
        _ending = mmap.mmap(-1, 1)
        atexit.register(_ending.__setitem__, 0, 1)  # before multiprocessing ends the workers, as registered after it
    return bool(_watched)


def unwatch_signals() -> None:
    """Let both end the process again."""
    if threading.current_thread() is threading.main_thread():
        while _watched:
            signal.signal(_watched.pop(), signal.SIG_DFL)


def _note(number: int, _frame: object) -> None:
    global _received
    _received = number


def stop_signal() -> str | None:
    """The name of the signal that some rank received; None without one. Every rank has to ask."""
    number = all_reduce_max(_received)
    return signal.Signals(number).name if number else None


def _leave_workers_alive(original: Callable) -> Callable:
    @wraps(original)
    def worker_init_fn(*arguments: object, **named: object) -> None:
        original(*arguments, **named)
        for number in _watched:
            # a queue signals all processes of a job: without its workers, training could not reach its next save
            signal.signal(number, lambda *_: os._exit(0) if _ending[0] else None)

    return worker_init_fn


SIGNAL_PATCHES = (
    HostPatch(
        "a queue's SIGTERM ends the loader's workers",
        "it goes to all processes of a job, and training ends with an error before it could save its state",
        "1.4.2, master",
        "basicsr.data",
        "worker_init_fn",
        _leave_workers_alive,
    ),
)
