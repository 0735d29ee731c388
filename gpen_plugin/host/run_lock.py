"""One run of a name at a time: a second one would rename the folder of the first and save into the same files."""

import logging
import os
import socket
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None

from gpen_plugin.errors import OptionError
from gpen_plugin.host.distributed import broadcast_object

_claims = True


@contextmanager
def no_claims() -> Iterator[None]:
    """Inside, option files are only checked: no folder is reserved or made."""
    global _claims
    _claims = False
    try:
        yield
    finally:
        _claims = True


def claim_run(opt: Mapping) -> None:
    """Reserve the folder of a run while `opt` exists; every rank has to call this, and rank 0 reserves it.

    The lock is on ``.NAME.lock`` beside the folder, because the folder may be renamed. It is a POSIX lock: it ends with
    the process, loader workers do not inherit it, and NFS supports it.

    Args:
        opt: the parsed options of a training or a test.
    Raises:
        OptionError: another process runs in this folder; the message names it.
    """
    if not _claims:
        return
    folder = opt["path"]["experiments_root" if opt["is_train"] else "results_root"]
    holder = broadcast_object(_lock(opt, folder) if opt["rank"] == 0 else None)
    if holder is not None:
        got = f"got {opt['name']!r}, and {folder} is in use by {holder}"
        hint = "Wait for that run or stop it, or change the name."
        raise OptionError("name", got, "a name that no other running training or test has", hint)


def _lock(opt: Mapping, folder: str) -> str | None:
    """Lock, and return None; where another process holds the lock, return its description."""
    if fcntl is None:
        return None
    path = os.path.join(os.path.dirname(folder), f".{os.path.basename(folder)}.lock")
    try:
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        return _warn(path, error)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        holder = os.read(file, 1000).decode(errors="replace").strip()
        os.close(file)
        return holder or "another process"
    except OSError as error:  # a file system without locks
        os.close(file)
        return _warn(path, error)
    os.ftruncate(file, 0)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    os.write(file, f"process {os.getpid()} on {socket.gethostname()} since {started}\n".encode())
    weakref.finalize(opt, os.close, file)  # when BasicSR's pipeline returned and the process continues
    return None


def _warn(path: str, error: OSError) -> None:
    reason = f"{path} cannot be locked ({error.strerror})"
    logging.getLogger("basicsr").warning(f"{reason}: a second run of this name would not be noticed.")
