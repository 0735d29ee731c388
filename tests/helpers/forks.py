"""Code in a fork of the test process: it may be killed, and does not import everything again."""

import os
import signal
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import cv2
from tqdm import tqdm

TIME_LIMIT = 240  # seconds


def fork(action: Callable[[], int | None], log: Path) -> int:
    """Start `action` in a fork, whose exit code is what it returns; an error goes to `log`. Returns the process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(TIME_LIMIT)
            tqdm.set_lock(
                threading.RLock()
            )  # its own is shared with this process: who is killed would never release it
            cv2.setNumThreads(0)  # OpenCV's threads do not survive a fork
            code = action() or 0
        except BaseException as error:
            log.write_text("".join(traceback.format_exception(error)))
        finally:
            os._exit(code)
    return child


def wait(child: int) -> int:
    """The exit code of a fork; -9 if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
