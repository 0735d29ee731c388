"""Memory of features on a CPU: what glibc does with it once PyTorch frees it."""

import ctypes
import platform

# of malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Let glibc keep what PyTorch frees, for the whole process: for commands and trainings, not for libraries.

    By itself, glibc returns large features to the system after each layer, and the system maps and clears new memory
    for the next one. Threads share one heap, because glibc keeps nothing above 64 MiB in a thread's own. Does nothing
    with another C library.
    """
    if _is_glibc():
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_ARENA_MAX, 1)):
            mallopt(option, value)


def return_freed_memory() -> None:
    """Return to the system once what `keep_freed_memory` keeps, as a server does before it waits."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
