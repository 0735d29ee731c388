"""Faces in parallel, each on its own cores.

Threads that share one face wait for each other at every layer; threads with one face each do not, and keep it in their
cache.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_lock = threading.Lock()


def parallel_map(
    work: Callable[[Item], Result],  # may read shared data but must not change it
    items: Iterable[Item],  # its arguments
) -> list[Result]:
    """Apply a function to each item in threads that divide torch's threads among them.

    May be called from several threads at once; their numbers of threads do not change.

    Returns: The results in order. If some calls fail, the error is that of the first.
    """
    items = list(items)
    with _lock:
        cores = torch.get_num_threads()
    workers = min(cores, len(items))
    if workers < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(workers, "face", _set_threads, (cores // workers, cores)) as threads:
        return list(threads.map(work, items))


def _set_threads(share: int, whole: int) -> None:
    """Let torch use `share` threads in this thread, and `whole` in threads that start later.

    `set_num_threads` sets both the number of the calling thread and that of new threads. A short-lived thread resets
    the latter.
    """
    with _lock:
        torch.get_num_threads()  # else the first computation here would begin with the second one
        torch.set_num_threads(share)
        passing = threading.Thread(target=torch.set_num_threads, args=(whole,))
        passing.start()
        passing.join()
